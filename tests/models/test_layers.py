import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.models.conftest import filled
from wukong_jax.config.layers import MLPConfig
from wukong_jax.models.layers import ACTIVATIONS, MLP, LayerNorm

X = np.linspace(-3, 3, 13)
ORACLES = {
    "relu": np.maximum(X, 0),
    "gelu": 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))),
    "silu": X * scipy.special.expit(X),
    "tanh": np.tanh(X),
    "sigmoid": scipy.special.expit(X),
    "identity": X,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(X, jnp.float32)), ORACLES[name], rtol=1e-5, atol=1e-6)


def test_the_mlp_has_hidden_layers_and_a_linear_output(rng):
    x = rng.normal(size=(5, 3)).astype(np.float32)
    model = MLP(MLPConfig((4, 6), "tanh"), 2)
    variables = filled(jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(x))), rng)
    p = jax.tree.map(np.asarray, variables["params"])
    hidden = np.tanh(x @ p["hidden_0"]["kernel"] + p["hidden_0"]["bias"])
    hidden = np.tanh(hidden @ p["hidden_1"]["kernel"] + p["hidden_1"]["bias"])
    wanted = hidden @ p["output"]["kernel"] + p["output"]["bias"]
    np.testing.assert_allclose(model.apply(variables, jnp.asarray(x)), wanted, rtol=1e-4, atol=1e-5)
    assert MLP(MLPConfig((4,)), None).init_with_output(jax.random.key(0), jnp.asarray(x))[0].shape == (5, 4)


def test_batch_norm_learns_its_statistics_in_training_and_uses_them_in_evaluation(rng):
    model = MLP(MLPConfig((4,), "identity", batch_norm=True), None)
    batches = [rng.normal(loc=3, scale=2, size=(32, 3)).astype(np.float32) for _ in range(3)]
    variables = model.init(jax.random.key(0), jnp.asarray(batches[0]))
    p = jax.tree.map(np.asarray, variables["params"])
    statistics = variables["batch_stats"]
    mean, variance = np.zeros(4), np.ones(4)

    def hidden(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64) @ p["hidden_0"]["kernel"] + p["hidden_0"]["bias"]

    for x in batches:
        h = hidden(x)
        out, changed = model.apply(
            {"params": p, "batch_stats": statistics}, jnp.asarray(x), train=True, mutable=["batch_stats"]
        )
        np.testing.assert_allclose(out, (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5), rtol=1e-3, atol=1e-4)
        mean, variance = 0.9 * mean + 0.1 * h.mean(axis=0), 0.9 * variance + 0.1 * h.var(axis=0)
        statistics = changed["batch_stats"]
        np.testing.assert_allclose(statistics["batch_norm_0"]["mean"], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(statistics["batch_norm_0"]["var"], variance, rtol=1e-4, atol=1e-5)

    found = model.apply({"params": p, "batch_stats": statistics}, jnp.asarray(batches[0]), train=False)
    wanted = (hidden(batches[0]) - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_layer_norm_keeps_its_statistics_in_float32(rng):
    """In bfloat16 a mean of 100 would swallow a spread of 0.3: the statistics must come from float32 sums."""
    x = jnp.asarray(100 + rng.normal(size=(4, 256)), jnp.bfloat16)
    found = np.asarray(LayerNorm().apply({"params": {"scale": jnp.ones(256), "bias": jnp.zeros(256)}}, x), np.float64)
    exact = np.asarray(x, np.float64)
    wanted = (exact - exact.mean(axis=1, keepdims=True)) / np.sqrt(exact.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
