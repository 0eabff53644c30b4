"""The accelerator kernels of the FM in interpret mode against float64 NumPy, and lowered without the hardware."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.errors import ConfigError
from wukong_jax.ops import fm_hopper_pieces, fm_mosaic_gpu, fm_tpu

EPSILON = 1e-5
KERNELS = {"cuda": fm_mosaic_gpu, "tpu": fm_tpu}
# batch, n, d, k; none of the sizes a multiple of its tile, then all, then n below one block and an overlapping chunk.
SHAPES = [(3, 70, 40, 5), (2, 128, 64, 16), (5, 30, 80, 24), (1, 136, 72, 8)]


def inputs(rng, batch, n, d, k, dtype):
    def draw(*shape):
        return rng.normal(size=shape)

    # Means far from zero: padding that entered the statistics would show.
    x, y = draw(batch, n, d) + 0.3, 0.1 * draw(n, k) + 0.05
    vectors = [jnp.asarray(vector, jnp.float32) for vector in (1 + 0.3 * draw(n * k), draw(n * k))]
    return [jnp.asarray(array, dtype) for array in (x, y)] + vectors, jnp.asarray(draw(batch, n * k), dtype)


def expected(arrays, d_out):
    """The result and the gradients of X, Y, scale and bias, by the chain rule in float64."""
    x, y, scale, bias, g = (np.asarray(array, np.float64) for array in (*arrays, d_out))
    batch, n, _ = x.shape
    scale, bias, g = (array.reshape(-1, n, y.shape[1]) for array in (scale, bias, g))
    mean = {"axis": (1, 2), "keepdims": True}
    p = np.einsum("bnd,nk->bdk", x, y)
    f = x @ p
    rstd = 1 / np.sqrt(f.var(**mean) + EPSILON)
    h = (f - f.mean(**mean)) * rstd
    d_h = g * scale
    d_f = rstd * (d_h - d_h.mean(**mean) - h * (d_h * h).mean(**mean))
    d_p = np.einsum("bnd,bnk->bdk", x, d_f)
    d_x = np.einsum("bnk,bdk->bnd", d_f, p) + np.einsum("nk,bdk->bnd", y, d_p)
    d_y = np.einsum("bnd,bdk->nk", x, d_p)
    out = (h * scale + bias).reshape(batch, -1)
    return out, d_x, d_y, (g * h).sum(axis=0).reshape(-1), g.sum(axis=0).reshape(-1)


def found(kernel, arrays, d_out, *, interpret):
    def layer(*arrays):
        return kernel.fm_layer_norm(*arrays, EPSILON, interpret=interpret)

    def forward_and_backward(arrays, d_out):
        out, backward = jax.vjp(layer, *arrays)
        return out, *backward(d_out)

    return jax.jit(forward_and_backward).trace(arrays, d_out)


def relative_error(value, reference):
    return np.linalg.norm(np.asarray(value, np.float64) - reference) / np.linalg.norm(reference)


def check(kernel, arrays, d_out, tolerance):
    results = found(kernel, arrays, d_out, interpret=True).lower().compile()(arrays, d_out)
    references = expected(arrays, d_out)
    for name, value, reference in zip("out dx dy dscale dbias".split(), results, references, strict=True):
        assert value.shape == reference.shape, name
        assert relative_error(value, reference) < tolerance, name
    assert [value.dtype for value in results[:3]] == [arrays[0].dtype] * 3
    assert relative_error(results[-1], references[-1]) < 1e-6


@pytest.mark.parametrize("shape", [*SHAPES[:2], *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[2:])])
def test_mosaic_gpu_kernels_agree_with_numpy(rng, shape, monkeypatch):
    monkeypatch.setattr(fm_mosaic_gpu, "EXAMPLES", 2)
    monkeypatch.setattr(fm_mosaic_gpu, "BLOCKS", 4)
    check(fm_mosaic_gpu, *inputs(rng, *shape, jnp.bfloat16), 6e-3)


def test_mosaic_gpu_kernels_agree_with_numpy_where_y_does_not_fit_beside_x(rng, monkeypatch):
    n, d, k = 128, 64, 16
    sizes = fm_hopper_pieces.Sizes(3, n, d, k)
    assert sizes.y_rows == n
    little = 2 * sizes.shared_elements(64) + fm_hopper_pieces.SCRATCH_BYTES
    monkeypatch.setattr(fm_hopper_pieces, "SHARED_BYTES", little)
    assert sizes.y_rows == 64
    check(fm_mosaic_gpu, *inputs(rng, 3, n, d, k, jnp.bfloat16), 6e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 6e-3)])
@pytest.mark.parametrize("shape", SHAPES)
def test_tpu_kernels_agree_with_numpy(rng, shape, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(fm_tpu, "MAX_EXAMPLES", 2)
    check(fm_tpu, *inputs(rng, *shape, dtype), tolerance)


def lower(platform, batch, n, d, k):
    half = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((batch, n, d), (n, k), (batch, n * k))]
    vectors = [jax.ShapeDtypeStruct((n * k,), jnp.float32)] * 2
    traced = found(KERNELS[platform], [*half[:2], *vectors], half[2], interpret=False)
    return traced.lower(lowering_platforms=(platform,)).as_text()


MARKS = {"cuda": "mosaic_gpu", "tpu": "tpu_custom_call"}
FEW = [(32, 64, 8), (128, 128, 24), (512, 128, 96), (192, 160, 96)]


@pytest.mark.parametrize(("n", "d", "k"), FEW)
@pytest.mark.parametrize("platform", KERNELS)
def test_kernels_lower_without_the_hardware(platform, n, d, k):
    """Forward and backward: two kernels on TPU, three on GPU."""
    text = lower(platform, 4096, n, d, k)
    calls = [line for line in text.splitlines() if "custom_call" in line and MARKS[platform] in line]
    assert len(calls) == {"cuda": 3, "tpu": 2}[platform]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "k"), list(itertools.product((32, 64, 128, 256, 512), (64, 128), (8, 24, 96))))
@pytest.mark.parametrize("platform", KERNELS)
def test_kernels_lower_for_every_shape_to_be_measured(platform, n, d, k):
    assert MARKS[platform] in lower(platform, 4095, n, d, k)


@pytest.mark.parametrize(
    ("kernel", "shape", "dtype", "words"),
    [
        (fm_mosaic_gpu, (2, 128, 64, 8), jnp.float32, "dtype is float32, the kernel takes bfloat16"),
        (fm_mosaic_gpu, (2, 720, 160, 96), jnp.bfloat16, "n=720, d=160, k=96 needs 317440 bytes of shared memory"),
        (fm_mosaic_gpu, (2, 64, 64, 104), jnp.bfloat16, "n=64, d=64, k=104: the registers hold d <= 192 and k <= 96"),
        (fm_mosaic_gpu, (2, 64, 256, 8), jnp.bfloat16, "n=64, d=256, k=8: the registers hold d <= 192 and k <= 96"),
        (fm_tpu, (2, 128, 64, 8), jnp.float16, "dtype is float16, the kernel takes bfloat16 or float32"),
        (fm_tpu, (2, 4096, 512, 96), jnp.float32, "n=4096, d=512, k=96: one example exceeds the 12582912 bytes"),
    ],
)
def test_an_unsupported_shape_is_refused_with_the_limit_and_the_way_out(rng, kernel, shape, dtype, words):
    arrays, _ = inputs(rng, *shape, dtype)
    with pytest.raises(ConfigError, match='implementation="xla"') as error:
        kernel.fm_layer_norm(*arrays, EPSILON, interpret=True)
    assert words in str(error.value)


@pytest.mark.parametrize("kernel", KERNELS.values())
def test_x_and_y_of_two_dtypes_are_refused(rng, kernel):
    (x, y, *vectors), _ = inputs(rng, 2, 16, 64, 8, jnp.bfloat16)
    with pytest.raises(ConfigError, match="y is float32, x is bfloat16"):
        kernel.fm_layer_norm(x, y.astype(jnp.float32), *vectors, EPSILON)
