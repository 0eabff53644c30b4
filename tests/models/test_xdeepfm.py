import numpy as np
import pytest

from tests.models.baseline_oracle import TWO, compare, embeddings, first_order, flat_embeddings, mlp
from wukong_jax.config.baselines import XDeepFMConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.errors import ConfigError

CASES = {
    "CIN only": XDeepFMConfig(3, (4,), None, linear=False),
    "CIN and first-order weights": XDeepFMConfig(3, (4, 2, 3), None),
    "CIN and MLP": XDeepFMConfig(4, (2, 3), MLPConfig((5, 6), "tanh", batch_norm=True), linear=False),
    "all": XDeepFMConfig(3, (3, 2), MLPConfig((5,))),
}


def cin(p, x0: np.ndarray, maps: tuple[int, ...]) -> np.ndarray:
    """Feature map by feature map for one example [n, d]; summed over d."""
    x, sums = x0, []
    for k, count in enumerate(maps):
        kernel, bias = p[f"layer_{k}"]["kernel"].reshape(len(x0), len(x), count), p[f"layer_{k}"]["bias"]
        x = np.stack(
            [
                bias[h] + sum(kernel[i, j, h] * x0[i] * x[j] for i in range(len(x0)) for j in range(len(x)))
                for h in range(count)
            ]
        )
        sums += [row.sum() for row in x]
    return np.array(sums)


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    head = setup.params["head"]
    sums = np.stack([cin(setup.params["cin"], x, config.cin) for x in embeddings(setup)])
    wanted = sums @ head["kernel"] + head.get("bias", 0)
    if config.dnn is not None:
        wanted = wanted + mlp(setup, "dnn", flat_embeddings(setup), config.dnn)
    if config.linear:
        wanted = wanted + first_order(setup)
    assert ("bias" in head) != config.linear, "one bias, not two"
    compare(setup, wanted)


@pytest.mark.parametrize(
    ("settings", "message"), [({"cin": ()}, "model.cin: received no layer"), ({"cin": (4, 0)}, "model.cin: received 0")]
)
def test_a_cin_without_feature_maps_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        XDeepFMConfig(**settings)
