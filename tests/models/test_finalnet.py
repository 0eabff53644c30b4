import jax
import numpy as np
import pytest

from tests.models.baseline_oracle import ONE, TWO, compare, embeddings, linear
from tests.models.wukong_oracle import ACTIVATIONS
from wukong_jax.config.baselines import FinalNetConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.errors import ConfigError
from wukong_jax.models.layers import OWN_LOSSES

NORMED, PLAIN = MLPConfig((6, 4), "tanh", 0.5, batch_norm=True), MLPConfig((4,), "identity")
CASES = {
    "one block": FinalNetConfig(3, NORMED),
    "one block without gates": FinalNetConfig(3, PLAIN, gates=False),
    "two blocks": FinalNetConfig(3, PLAIN, NORMED),
    "two blocks, sums": FinalNetConfig(4, MLPConfig((5, 3), batch_norm=True), MLPConfig((7,), "silu"), residual="sum"),
    "two blocks without gates": FinalNetConfig(4, NORMED, PLAIN, gates=False),
}


def block(p, statistics, x: np.ndarray, config: MLPConfig, residual: str) -> np.ndarray:
    for index, width in enumerate(config.widths):
        both = linear(p[f"hidden_{index}"], x)
        half = width // 2 if residual == "concat" else width
        plain, product = both[:, :half], both[:, :half] * both[:, half:]
        x = np.concatenate([plain, product], axis=1) if residual == "concat" else plain + product
        assert x.shape[1] == width
        if config.batch_norm:
            kept, norm = statistics[f"batch_norm_{index}"], p[f"batch_norm_{index}"]
            x = (x - kept["mean"]) / np.sqrt(kept["var"] + 1e-5) * norm["scale"] + norm["bias"]
        x = ACTIVATIONS[config.activation](x)
    return x


def gate(p, x: np.ndarray) -> np.ndarray:
    """Plain embeddings, then each times its own gates, which all embeddings decide value by value."""
    n = x.shape[1]
    gates = [sum(p["kernel"][j, i] * x[:, j] for j in range(n)) + p["bias"][i] for i in range(n)]
    return np.concatenate([x, np.stack([x[:, i] * gates[i] for i in range(n)], axis=1)], axis=1)


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    p, x = setup.params, embeddings(setup)
    statistics = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), setup.variables.get("batch_stats", {}))
    inputs = {1: gate(p["gates"], x) if config.gates else x, 2: x}
    logits = []
    for number, layers in enumerate((config.block1, config.block2), start=1):
        if layers is not None:
            name, flat = f"block_{number}", inputs[number].reshape(len(x), -1)
            out = block(p[name], statistics.get(name), flat, layers, config.residual)
            logits.append(linear(p[f"head_{number}"], out))
    compare(setup, np.mean(logits, axis=0))


def test_self_distillation_is_the_cross_entropy_of_each_block_to_both(set_up):
    config = FinalNetConfig(3, PLAIN, MLPConfig((6,), "tanh"), gates=False, self_distillation=True)
    setup = set_up(config, TWO)
    p, flat = setup.params, embeddings(setup).reshape(len(setup.batch.ids), -1)
    blocks = [
        linear(p[f"head_{number}"], block(p[f"block_{number}"], None, flat, layers, "concat"))
        for number, layers in ((1, config.block1), (2, config.block2))
    ]
    both = 1 / (1 + np.exp(-np.mean(blocks, axis=0)))
    expected = sum(-both * np.log(1 / (1 + np.exp(-y))) - (1 - both) * np.log(1 / (1 + np.exp(y))) for y in blocks)
    _, found = setup.model.apply(setup.variables, setup.inputs, train=True, mutable=[OWN_LOSSES])
    np.testing.assert_allclose(found[OWN_LOSSES]["self_distillation"][0], expected, rtol=1e-5)
    assert OWN_LOSSES not in setup.model.apply(setup.variables, setup.inputs, train=False, mutable=[OWN_LOSSES])[1]


def test_self_distillation_needs_two_blocks():
    with pytest.raises(ConfigError, match=r"model.self_distillation: received True, but model.block2 is None"):
        FinalNetConfig(3, PLAIN, self_distillation=True)


def test_gates_start_at_1(set_up):
    model = set_up(CASES["one block"], ONE).model
    inputs = set_up(CASES["one block"], ONE).inputs
    gates = model.init(jax.random.key(0), inputs)["params"]["gates"]
    np.testing.assert_array_equal(gates["kernel"], np.zeros((6, 6)))
    np.testing.assert_array_equal(gates["bias"], np.ones(6))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block1": MLPConfig()}, "model.block1.widths: received none"),
        ({"block2": MLPConfig()}, "model.block2.widths: received none"),
        ({"block2": MLPConfig((4, 3))}, r"model.block2.widths: received \[3\], but model.residual 'concat' needs even"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FinalNetConfig(**settings)
