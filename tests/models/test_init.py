"""Initialisation keeps every part of a layer at the scale of its input, whatever n is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import AttentiveConfig
from wukong_jax.models.wukong import AttentiveProjection, FactorizationMachineBlock, LinearCompressBlock, WukongLayer

BATCH, D = 64, 16


@pytest.mark.parametrize("n", [4, 64, 256])
@pytest.mark.parametrize("fm", ["full", "low_rank", "attentive"])
def test_every_part_of_a_layer_is_about_1(fm, n, rng):
    if fm == "full" and n > 64:
        n = 64  # n^2 inputs of the MLP, as in the paper's largest full FM
    layer = WukongLayer(4, 4, 8, MLPConfig((64,)), fm, AttentiveConfig(8, MLPConfig((32,))))
    x = jnp.asarray(rng.normal(size=(BATCH, n, D)), jnp.float32)

    def parts():
        variables = layer.init(jax.random.key(0), x)
        own = {name: {"params": variables["params"][name]} for name in ("fmb", "lcb", "residual")}
        block = FactorizationMachineBlock(4, layer.fmb_mlp, fm, 8, layer.attentive)
        found = {
            name: LinearCompressBlock(size).apply(own[name], x) for name, size in {"lcb": 4, "residual": 8}.items()
        }
        return layer.apply(variables, x), found | {"fmb": block.apply(own["fmb"], x)}

    out, found = jax.jit(parts)()
    assert float(jnp.std(out)) == pytest.approx(1, abs=0.02)
    for name, value in found.items():
        assert 0.4 < float(jnp.std(value)) < 2.0, name


@pytest.mark.parametrize("n", [4, 256])
def test_projections_have_variance_1_over_n(n):
    x = jnp.zeros((1, n, 2))
    weight = LinearCompressBlock(512).init(jax.random.key(0), x)["params"]["weight"]
    assert float(jnp.std(weight)) * np.sqrt(n) == pytest.approx(1, rel=0.1)
    shared = AttentiveProjection(64, AttentiveConfig(2)).init(jax.random.key(0), x)["params"]["static"]
    assert float(jnp.std(shared)) * np.sqrt(n) == pytest.approx(1, rel=0.2)
