import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.ops.layer_norm import layer_norm
from wukong_jax.scaling.flops import matmul_flops

EPSILON = 1e-5
PATHS = ("xla", "xla_cpu")
SHAPES = [(*batch, values) for batch in ((5,), (3, 4)) for values in (1, 2, 7, 64, 624)]


def drawn(rng, shape):
    """x, scale, bias and the gradient of the result."""
    scale, bias = 1 + 0.3 * rng.normal(size=shape[-1]), rng.normal(size=shape[-1])
    return [jnp.asarray(array, jnp.float32) for array in (rng.normal(size=shape), scale, bias, rng.normal(size=shape))]


def expected(x, scale, bias, gradient):
    """The result, the gradients of x, scale and bias, and how large the terms are that make up the gradient of x."""
    x, scale, bias, gradient = (np.asarray(array, np.float64) for array in (x, scale, bias, gradient))
    mean = {"axis": -1, "keepdims": True}
    inverse = 1 / np.sqrt(((x - x.mean(**mean)) ** 2).mean(**mean) + EPSILON)
    normalised = (x - x.mean(**mean)) * inverse
    scaled = gradient * scale
    dx = inverse * (scaled - scaled.mean(**mean) - normalised * (scaled * normalised).mean(**mean))
    rows = tuple(range(x.ndim - 1))
    sums = (gradient * normalised).sum(axis=rows), gradient.sum(axis=rows)
    return (normalised * scale + bias, dx, *sums), np.linalg.norm(inverse * scaled)


@functools.partial(jax.jit, static_argnums=0)
def found(path, x, scale, bias, gradient):
    def normalise(*arrays):
        return layer_norm(*arrays, EPSILON, implementation=path)

    out, backward = jax.vjp(normalise, x, scale, bias)
    return out, *backward(gradient)


def assert_right(path, arrays, tolerance):
    wanted, terms = expected(*arrays)
    for name, one, other in zip(("out", "x", "scale", "bias"), found(path, *arrays), wanted, strict=True):
        assert one.shape == other.shape, name
        size = terms if name == "x" else max(np.linalg.norm(other), 1e-30)  # one value alone has a gradient of 0
        assert np.linalg.norm(np.asarray(one, np.float64) - other) <= tolerance * size, name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_equals_numpy(rng, path, shape):
    assert_right(path, drawn(rng, shape), 3e-6)


@pytest.mark.parametrize("path", PATHS)
def test_float64_stays_float64(rng, path):
    with jax.enable_x64(True):
        arrays = [jnp.asarray(array, jnp.float64) for array in drawn(rng, (3, 4, 7))]
        assert_right(path, arrays, 1e-14)
        assert [array.dtype for array in found(path, *arrays)] == [jnp.float64] * 4


@pytest.mark.parametrize("path", PATHS)
def test_a_large_mean_costs_no_more_than_its_own_rounding(rng, path):
    """float32 is spaced 2^-10 at 10^4, so the mean of values of spread 1 is off by about that, and with it each value.

    The variance, of squares as large as 10^8, would be lost if it were the mean of squares less the squared mean.
    """
    x, scale, bias, gradient = drawn(rng, (64, 624))
    x, scale, bias = x + 1e4, jnp.ones_like(scale), jnp.zeros_like(bias)
    (out, dx, *_), _ = expected(x, scale, bias, gradient)
    values = [np.asarray(array, np.float64) for array in found(path, x, scale, bias, gradient)]
    assert np.abs(values[0] - out).max() < 4 * 2**-10
    assert np.abs((values[0] - values[0].mean(axis=1, keepdims=True)) - out).max() < 2e-5, "all are off by the same"
    assert np.linalg.norm(values[1] - dx) < 2e-4 * np.linalg.norm(dx)


@pytest.mark.parametrize("path", PATHS)
def test_bfloat16_comes_out_as_bfloat16_with_statistics_in_float32(rng, path):
    """Mean 8, where bfloat16 is spaced 2^-5: only the result and dx are rounded, by half a unit of 8 bits at most."""
    x, scale, bias, gradient = drawn(rng, (33, 624))
    x, gradient = (x + 8).astype(jnp.bfloat16), gradient.astype(jnp.bfloat16)
    values = found(path, x, scale, bias, gradient)
    assert [array.dtype for array in values] == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]
    wanted, _ = expected(x, scale, bias, gradient)
    for one, other in zip(values[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(np.asarray(one, np.float64), other, rtol=1.01 * 2**-8, atol=1e-5)
    for one, other in zip(values[2:], wanted[2:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


def test_sums_by_products_are_no_flops(rng):
    x, scale, bias, _ = drawn(rng, (6, 7))
    weight = jnp.ones((7, 3))

    def normalised(x):
        return layer_norm(x, scale, bias, EPSILON, implementation="xla_cpu")

    program = jax.make_jaxpr(lambda x: normalised(x) @ weight)(x)
    assert str(program).count("dot_general[") == 3  # mean, variance, and the product that counts
    assert sum(flops for _, flops in matmul_flops(program.jaxpr)) == 2 * 6 * 7 * 3
