import numpy as np
import pytest

from tests.models.baseline_oracle import ONE, TWO, compare, flat_embeddings, linear, mlp, pooled
from wukong_jax.config.baselines import FinalMLPConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.errors import ConfigError
from wukong_jax.models.registry import table_specs

ONE_HIDDEN, NORMED = MLPConfig((5,)), MLPConfig((5, 4), "tanh", batch_norm=True)
CASES = {
    "contexts": FinalMLPConfig(3, NORMED, MLPConfig((6,)), 2, MLPConfig((4, 3)), ("a", "b"), ("b",)),
    "one context": FinalMLPConfig(3, MLPConfig((6,)), NORMED, 2, ONE_HIDDEN, context2=("a",)),
    "learned contexts": FinalMLPConfig(3, NORMED, MLPConfig((6,)), 1, ONE_HIDDEN),
    "no gates": FinalMLPConfig(3, MLPConfig((4,)), MLPConfig((8,)), 4, None),
}


def fuse(p, one: np.ndarray, two: np.ndarray, heads: int, tasks: int) -> np.ndarray:
    """Linear terms, and the sum over heads of x_k^T W_k y_k, task by task."""
    total = linear(p["linear_1"], one) + linear(p["linear_2"], two)
    for example in range(len(one)):
        for k, (x, y) in enumerate(zip(np.split(one[example], heads), np.split(two[example], heads), strict=True)):
            for task in range(tasks):
                weight = p["bilinear"][k][:, task * len(y) : (task + 1) * len(y)]
                total[example, task] += x @ weight @ y
    return total


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    flat, streams = flat_embeddings(setup), []
    for number, hidden, names in ((1, config.mlp1, config.context1), (2, config.mlp2, config.context2)):
        gate = np.ones_like(flat)
        if config.gates is not None:
            features = {feature.name: feature for feature in TWO.id_features}
            parts = [pooled(setup, features[name], f"{name}:context{number}") for name in names]
            context = np.concatenate(parts, axis=1) if parts else setup.params[f"context{number}"]
            gate = 2 / (1 + np.exp(-mlp(setup, f"gate{number}", context, config.gates)))
        streams.append(mlp(setup, f"mlp{number}", gate * flat, hidden))
    compare(setup, fuse(setup.params["fusion"], *streams, config.num_heads, len(TWO.labels)))


def test_contexts_have_tables_of_their_own(set_up):
    config = FinalMLPConfig(3, context1=("a", "mean"), context2=("a",))
    specs = table_specs(config, TWO)
    assert [(table.name, table.rows) for table in specs.tables[4:]] == [
        ("a:context1", 9), ("mean:context1", 7), ("a:context2", 9),
    ]  # fmt: skip
    assert {table.width for table in specs.tables} == {3}
    setup = set_up(config, TWO)
    feature = TWO.id_features[2]
    np.testing.assert_allclose(
        setup.inputs.embedding("mean", "mean:context1"), pooled(setup, feature, "mean:context1"), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 3}, "model.num_heads: received 3, expected a divisor of 64, the last width of model.mlp1"),
        ({"num_heads": 32, "mlp2": MLPConfig((8, 16))}, "expected a divisor of 16, the last width of model.mlp2"),
        ({"mlp1": MLPConfig()}, "model.mlp1.widths: received none"),
        ({"gates": None, "context2": ("a",)}, r"model.context2: received \['a'\], but model.gates is None"),
        ({"context1": ("a", "a")}, r"model.context1: \['a'\] named more than once"),
        ({"gates": MLPConfig((4,), batch_norm=True), "context1": ("a",)}, "without model.context2 that gate is"),
        ({"gates": MLPConfig((4,), dropout=0.1)}, "dropout=0.1, but without model.context1"),
    ],
)
def test_an_option_without_effect_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FinalMLPConfig(**settings)


def test_an_unknown_context_is_refused():
    with pytest.raises(ConfigError, match=r"model.context2: unknown feature 'x'; the schema's .* are \['a', 'b', "):
        table_specs(FinalMLPConfig(3, context2=("x",)), ONE)
