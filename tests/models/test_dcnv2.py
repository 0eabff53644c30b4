import numpy as np
import pytest

from tests.models.baseline_oracle import TWO, compare, flat_embeddings, linear, mlp
from wukong_jax.config.baselines import DCNv2Config
from wukong_jax.config.layers import MLPConfig
from wukong_jax.errors import ConfigError

HIDDEN = MLPConfig((5, 3), "tanh", batch_norm=True)
STRUCTURES = {"stacked": HIDDEN, "parallel": HIDDEN, "cross_only": MLPConfig()}
KINDS = {
    "full": {},
    "low_rank": {"cross": "low_rank", "rank": 2},
    "mixture": {"cross": "mixture", "rank": 2, "num_experts": 3},
}


def cross(p, x0: np.ndarray, config: DCNv2Config) -> np.ndarray:
    """Example by example, by the equations of the module's docstring."""
    rows = []
    for start in x0:
        x = start
        for index in range(config.num_layers):
            layer = p[f"layer_{index}"]
            if config.cross == "full":
                x = start * linear(layer, x) + x
            elif config.cross == "low_rank":
                x = start * (layer["u"]["kernel"].T @ (layer["v"].T @ x) + layer["u"]["bias"]) + x
            else:
                scores = np.exp(p["gate"]["kernel"].T @ x)
                total = x
                for e in range(config.num_experts or 0):
                    small = np.tanh(layer["c"][e].T @ np.tanh(layer["v"][e].T @ x))
                    expert = start * (layer["u"][e].T @ small + layer["bias"])
                    total = total + scores[e] / scores.sum() * expert
                x = total
        rows.append(x)
    return np.stack(rows)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_float64_forward_pass(kind, structure, set_up):
    config = DCNv2Config(3, structure, 3, mlp=STRUCTURES[structure], **KINDS[kind])
    setup = set_up(config, TWO)
    x0 = flat_embeddings(setup)
    out = cross(setup.params["cross"], x0, config)
    if structure == "stacked":
        out = mlp(setup, "mlp", out, config.mlp)
    elif structure == "parallel":
        out = np.concatenate([out, mlp(setup, "mlp", x0, config.mlp)], axis=1)
    compare(setup, linear(setup.params["head"], out))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 0}, "model.num_layers: received 0"),
        ({"rank": 4}, "model.rank: received 4, but model.cross 'full' has none"),
        ({"cross": "low_rank"}, "model.rank: not given, but model.cross 'low_rank' needs it"),
        ({"cross": "low_rank", "rank": 0}, "model.rank: received 0"),
        ({"cross": "low_rank", "rank": 4, "num_experts": 2}, "num_experts: received 2, but model.cross 'low_rank'"),
        ({"cross": "mixture", "rank": 4}, "model.num_experts: not given"),
        ({"structure": "cross_only"}, r"model.mlp: received MLPConfig.*'cross_only' has no MLP"),
        ({"structure": "parallel", "mlp": MLPConfig()}, "model.mlp.widths: received none, but .* 'parallel'"),
    ],
)
def test_an_option_without_effect_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DCNv2Config(**settings)
