import dataclasses

import jax
import numpy as np
import pytest

from tests.models.baseline_oracle import ONE, TWO, compare, embeddings, first_order, flat_embeddings, mlp
from tests.models.wukong_oracle import layer_norm
from wukong_jax.config.baselines import AutoIntConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.errors import ConfigError

CASES = {
    "one head": AutoIntConfig(3, 1, 5, 1),
    "identity residual": AutoIntConfig(4, 2, 4, 2),
    "scaled, LayerNorm": AutoIntConfig(3, 3, 6, 2, scale=True, layer_norm=True),
    "plus": AutoIntConfig(3, 2, 6, 3, dnn=MLPConfig((5, 4), "tanh", batch_norm=True)),
    "plus, first-order weights": AutoIntConfig(3, 2, 6, 3, dnn=MLPConfig((5,)), linear=True),
}


def attend(p, x: np.ndarray, config: AutoIntConfig) -> np.ndarray:
    """One layer for one example [n, d], head by head and embedding by embedding."""
    width = config.attention_width // config.num_heads
    out = np.zeros((len(x), config.attention_width))
    for head in range(config.num_heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = (x @ p[name]["kernel"][:, part] for name in ("query", "key", "value"))
        for i in range(len(x)):
            scores = np.array([q[i] @ k[j] for j in range(len(x))]) / (np.sqrt(width) if config.scale else 1)
            weights = np.exp(scores) / np.exp(scores).sum()
            out[i, part] = sum(weights[j] * v[j] for j in range(len(x)))
    out = out + (x @ p["residual"]["kernel"] if x.shape[1] != config.attention_width else x)
    return np.maximum(layer_norm(p["norm"], out) if config.layer_norm else out, 0)


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    rows = []
    for x in embeddings(setup):
        for index in range(config.num_layers):
            x = attend(setup.params[f"attention_{index}"], x, config)
        rows.append(x.reshape(-1))
    head = setup.params["head"]
    wanted = np.stack(rows) @ head["kernel"] + head.get("bias", 0)
    if config.dnn is not None:
        wanted = wanted + mlp(setup, "dnn", flat_embeddings(setup), config.dnn)
    if config.linear:
        wanted = wanted + first_order(setup)
    assert ("bias" in head) != config.linear, "one bias, not two"
    compare(setup, wanted)


def test_attention_weights_are_dropped_in_training_only(set_up):
    config = AutoIntConfig(4, 2, 4, 2, dropout=0.5)
    setup = set_up(config, ONE)
    one, two = (setup.logits(train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1))
    assert not np.array_equal(one, two)
    without = dataclasses.replace(setup.model, config=dataclasses.replace(config, dropout=0.0), parent=None)
    np.testing.assert_array_equal(setup.logits(train=False), without.apply(setup.variables, setup.inputs, train=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 0}, "model.num_layers: received 0"),
        ({"num_heads": 3}, "model.num_heads: received 3, expected a divisor of model.attention_width, 32"),
        ({"dropout": 1.0}, "model.dropout: received 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        AutoIntConfig(**settings)
