import dataclasses

import jax
import numpy as np
import pytest

from tests.models.baseline_oracle import ONE, TWO, compare, embeddings, linear, mlp
from tests.models.wukong_oracle import layer_norm
from wukong_jax.config.baselines import MaskNetConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.errors import ConfigError

CASES = {
    "serial": MaskNetConfig(3, "serial", (7, 6)),
    "serial, narrow masks, no norm": MaskNetConfig(4, "serial", (7, 6, 8), 0.5, embedding_norm=False),
    "parallel": MaskNetConfig(3, "parallel", (7, 6), mlp=MLPConfig((5,), "tanh")),
    "parallel, wide masks, no MLP": MaskNetConfig(4, "parallel", (7, 6, 8), 2.0),
}


def block(p, plain: np.ndarray, v: np.ndarray, ratio: float) -> np.ndarray:
    hidden = np.maximum(linear(p["mask_hidden"], plain), 0)
    assert hidden.shape[1] == int(v.shape[1] * ratio)
    masked = v * linear(p["mask"], hidden)
    return np.maximum(layer_norm(p["norm"], masked @ p["linear"]["kernel"]), 0)


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    p, x = setup.params, embeddings(setup)
    plain = v = x.reshape(len(x), -1)
    if config.embedding_norm:
        norm = p["embedding_norm"]
        own = [{"scale": norm["scale"][i], "bias": norm["bias"][i]} for i in range(x.shape[1])]
        v = np.concatenate([layer_norm(own[i], x[:, i]) for i in range(x.shape[1])], axis=1)
    outputs: list[np.ndarray] = []
    for index in range(len(config.blocks)):
        before = outputs[-1] if config.structure == "serial" and outputs else v
        outputs.append(block(p[f"block_{index}"], plain, before, config.mask_ratio))
    if config.structure == "serial":
        wanted = linear(p["head"], outputs[-1])
    else:
        wanted = mlp(setup, "head", np.concatenate(outputs, axis=1), config.mlp)
    compare(setup, wanted)


def test_blocks_are_dropped_in_training_only(set_up):
    config = dataclasses.replace(CASES["serial"], dropout=0.5)
    setup = set_up(config, ONE)
    one, two = (setup.logits(train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1))
    assert not np.array_equal(one, two)
    without = dataclasses.replace(setup.model, config=CASES["serial"], parent=None)
    np.testing.assert_array_equal(setup.logits(train=False), without.apply(setup.variables, setup.inputs, train=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": ()}, "model.blocks: received no block"),
        ({"blocks": (4, 0)}, "model.blocks: received 0"),
        ({"mask_ratio": 0.0}, "model.mask_ratio: received 0.0"),
        ({"dropout": 1.0}, "model.dropout: received 1.0"),
        ({"mlp": MLPConfig((4,))}, "model.mlp: received .* but model.structure 'serial' has no MLP"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        MaskNetConfig(**settings)


def test_a_mask_without_hidden_values_is_refused(set_up):
    with pytest.raises(ConfigError, match=r"model.mask_ratio: received 0.01, .* for a mask of 18"):
        set_up(MaskNetConfig(3, "serial", (4,), 0.01), ONE)
