"""The CPU kernels beside NumPy in float64, forward and backward."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.layers import MLPConfig
from wukong_jax.errors import ConfigError
from wukong_jax.models.wukong import WukongLayer
from wukong_jax.ops.cpu import build
from wukong_jax.ops.cpu.build import available
from wukong_jax.ops.fm import add_layer_norm, fm_layer_norm

EPSILON = 1e-5
# batch, n, d, k: whole vectors and remainders along d and k, more and fewer rows than a tile, one of everything
SHAPES = [
    (1, 1, 1, 1), (3, 5, 7, 3), (37, 32, 64, 16), (17, 39, 16, 8), (5, 64, 64, 24), (9, 33, 10, 20), (2, 27, 128, 24),
    (33, 6, 48, 17), (40, 17, 80, 33), (3, 130, 20, 40),
]  # fmt: skip
LINEAR = {"none": (), "one": (4,), "two": (1, 35)}
needs_kernels = pytest.mark.skipif(not available(), reason="no C++ compiler here to build the CPU kernels with")


def normalised(values, scale, bias, gradient):
    """LayerNorm over the last axis and its gradients to the values, scale and bias."""
    mean = {"axis": -1, "keepdims": True}
    centred = values - values.mean(**mean)
    inverse = 1 / np.sqrt((centred**2).mean(**mean) + EPSILON)
    normal, scaled = centred * inverse, gradient * scale
    to_values = inverse * (scaled - scaled.mean(**mean) - normal * (scaled * normal).mean(**mean))
    rows = tuple(range(values.ndim - 1))
    return normal * scale + bias, to_values, (gradient * normal).sum(axis=rows), gradient.sum(axis=rows)


def expected(x, y, scale, bias, weights, gradients):
    """All results and all gradients; the last of `gradients` is that of X passed on."""
    to_flat, *to_linear, to_passed = gradients
    p = np.einsum("bnd,nk->bdk", x, y)
    flat, to_fm, to_scale, to_bias = normalised((x @ p).reshape(len(x), -1), scale, bias, to_flat)
    to_fm = to_fm.reshape(len(x), *y.shape)
    to_p = np.einsum("bnd,bnk->bdk", x, to_fm)
    to_x = np.einsum("bnk,bdk->bnd", to_fm, p) + np.einsum("nk,bdk->bnd", y, to_p) + to_passed
    to_x = to_x + sum(np.einsum("nm,bmd->bnd", w, g) for w, g in zip(weights, to_linear, strict=True))
    to_weights = [np.einsum("bnd,bmd->nm", x, g) for g in to_linear]
    results = [flat, *(np.einsum("nm,bnd->bmd", w, x) for w in weights), x]
    return results, [to_x, np.einsum("bnd,bdk->nk", x, to_p), to_scale, to_bias, *to_weights]


def assert_close(found, wanted, tolerance):
    """Differences by their norm, relative to that of the wanted array."""
    assert found.shape == wanted.shape
    assert np.linalg.norm(np.asarray(found, np.float64) - wanted) <= tolerance * max(np.linalg.norm(wanted), 1e-6)


def float32(arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


@needs_kernels
@pytest.mark.parametrize("through", [False, True], ids=["", "X passed on"])
@pytest.mark.parametrize("widths", LINEAR.values(), ids=LINEAR.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_interaction_layers_results_and_gradients_equal_numpy(rng, shape, widths, through):
    batch, n, d, k = shape
    x, y, scale, bias = rng.normal(size=(batch, n, d)), rng.normal(size=(n, k)), rng.normal(size=n * k), np.ones(n * k)
    weights = [rng.normal(size=(n, m)) for m in widths]
    to_passed = rng.normal(size=x.shape) if through else np.zeros(x.shape)
    gradients = [rng.normal(size=(batch, n * k)), *(rng.normal(size=(batch, m, d)) for m in widths), to_passed]
    names = [f"w{i}" for i in range(len(weights))]

    def layer(x, y, scale, bias, *weights):
        linear = dict(zip(names, weights, strict=True)) | ({"x": None} if through else {})
        flat, found = fm_layer_norm(x, y, scale, bias, linear, epsilon=EPSILON, implementation="cpu_kernel")
        return [flat, *(found[name] for name in linear)]

    arrays = float32([x, y, scale, bias, *weights])
    gradients = float32(gradients)
    found, backward = jax.vjp(jax.jit(layer), *arrays)
    own = backward(gradients if through else gradients[:-1])
    as64 = [np.asarray(array, np.float64) for array in arrays]
    results, wanted = expected(*as64[:4], as64[4:], [np.asarray(g, np.float64) for g in gradients])
    for one, other in zip(found, results, strict=False):  # without X passed on there is one result less
        assert_close(one, other, 1e-6)
    for one, other in zip(own, wanted, strict=True):
        # n k = 1 has variance 0: all that reaches it is a difference of equal numbers
        assert_close(one, other, 3e-6 if n * k > 1 else 1e-3)


@needs_kernels
def test_a_large_mean_costs_the_layers_end_no_more_than_its_own_rounding(rng):
    """As in test_layer_norm.py: 2^-10 is a unit of float32 at 10^4; squares of 10^8 would drown a variance of 1."""
    x, scale, bias = float32([rng.normal(size=(9, 4, 72)) + 1e4, np.ones(72), np.zeros(72)])
    out = np.asarray(add_layer_norm([x], None, scale, bias, EPSILON, implementation="cpu_kernel"), np.float64)
    wanted = normalised(np.asarray(x, np.float64), 1.0, 0.0, np.zeros(x.shape))[0]
    assert np.abs(out - wanted).max() < 4 * 2**-10
    assert np.abs(out - out.mean(axis=-1, keepdims=True) - wanted).max() < 2e-5, "all are off by the same"


@needs_kernels
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize(
    ("batch", "sizes", "d"), [(1, (1,), 3), (5, (3, 4), 7), (40, (8, 16), 16), (17, (2, 1, 5), 72)]
)
def test_the_layers_end_equals_numpy(rng, batch, sizes, d, residual):
    parts, whole = [rng.normal(size=(batch, m, d)) for m in sizes], (batch, sum(sizes), d)
    arrays = float32([rng.normal(size=d), rng.normal(size=d), *parts, *([rng.normal(size=whole)] if residual else [])])
    gradient = jnp.asarray(rng.normal(size=whole), jnp.float32)

    def end(scale, bias, *arrays):
        parts, beside = (arrays[:-1], arrays[-1]) if residual else (arrays, None)
        return add_layer_norm(parts, beside, scale, bias, EPSILON, implementation="cpu_kernel")

    found, backward = jax.vjp(jax.jit(end), *arrays)
    scale, bias, *as64 = [np.asarray(array, np.float64) for array in arrays]
    values = np.concatenate(as64[: len(sizes)], axis=1) + (as64[-1] if residual else 0)
    out, to_values, to_scale, to_bias = normalised(values, scale, bias, np.asarray(gradient, np.float64))
    assert_close(found, out, 1e-6)
    to_parts = np.split(to_values, np.cumsum(sizes)[:-1], axis=1)
    for one, other in zip(backward(gradient), [to_scale, to_bias, *to_parts, to_values], strict=False):
        assert_close(one, other, 3e-6)


@needs_kernels
def test_the_same_input_gives_the_same_bits_and_vmap_is_a_loop(rng):
    x, y = float32([rng.normal(size=(100, 9, 16)), rng.normal(size=(9, 8))])
    scale, bias = jnp.ones(72), jnp.zeros(72)

    def loss(x, y):
        flat, found = fm_layer_norm(x, y, scale, bias, {"w": y}, epsilon=EPSILON, implementation="cpu_kernel")
        return (flat**3).sum() + (found["w"] ** 2).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    first = gradient(x, y)
    for _ in range(5):
        for one, other in zip(gradient(x, y), first, strict=True):
            np.testing.assert_array_equal(one, other)
    mapped = jax.vmap(jax.grad(loss, argnums=1), in_axes=(0, None))(x.reshape(4, 25, 9, 16), y)
    np.testing.assert_allclose(mapped.sum(axis=0), first[1], rtol=1e-4, atol=1e-3)


@needs_kernels
@pytest.mark.parametrize("dtype", ["float64", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_another_type_is_refused_by_name_and_served_in_another_way_by_auto(rng, dtype):
    with jax.enable_x64(True):
        x, y = jnp.asarray(rng.normal(size=(3, 4, 5)), dtype), jnp.asarray(rng.normal(size=(4, 2)), dtype)
        arguments = (x, y, jnp.ones(8, dtype), jnp.zeros(8, dtype))
        with pytest.raises(ConfigError, match=f"received .*{dtype}.* expected float32 on cpu; use 'auto'"):
            fm_layer_norm(*arguments, epsilon=EPSILON, dtype=dtype, implementation="cpu_kernel")
        flat, _ = fm_layer_norm(*arguments, epsilon=EPSILON, dtype=dtype)
        assert flat.dtype == x.dtype


@needs_kernels
def test_parameters_of_another_type_are_served_in_another_way(rng):
    x = jnp.asarray(rng.normal(size=(3, 8, 5)), jnp.float32)
    layer = WukongLayer(4, 4, 2, MLPConfig((8,)), param_dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    plain = layer.clone(implementation="xla_cpu").apply(variables, x)
    np.testing.assert_allclose(layer.apply(variables, x), plain, rtol=1e-5, atol=1e-5)


def test_a_library_that_cannot_be_loaded_is_removed_so_that_it_is_built_anew(tmp_path):
    library = tmp_path / "kernels.so"
    library.write_bytes(b"no library")
    with pytest.raises(OSError, match=r"kernels\.so"):
        build._register(library)
    assert not library.exists()


@pytest.mark.parametrize("folder", ["missing", "read-only"])
def test_a_cache_that_cannot_be_written_is_a_note_and_no_crash(tmp_path, monkeypatch, capsys, folder):
    (tmp_path / "full").write_text("")
    place = None if folder == "missing" else tmp_path / "full"  # no folder can be made in a file
    monkeypatch.setattr(build, "machine_folder", lambda *names: place)
    assert build._problem.__wrapped__()
    assert capsys.readouterr().err.count("note: no CPU kernels, XLA's form runs instead: ") == 1


def test_without_a_compiler_auto_takes_xlas_form_and_the_kernel_by_name_is_refused(tmp_path):
    program = """
import jax.numpy as jnp
from wukong_jax.errors import ConfigError
from wukong_jax.ops.fm import fm_layer_norm
arguments = jnp.ones((2, 3, 4)), jnp.ones((3, 2)), jnp.ones(6), jnp.zeros(6)
print(fm_layer_norm(*arguments, epsilon=1e-5)[0].shape)
try:
    fm_layer_norm(*arguments, epsilon=1e-5, implementation="cpu_kernel")
except ConfigError as error:
    print(error)
"""
    environment = {key: value for key, value in os.environ.items() if key != "CXX"}
    environment |= {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("note: no CPU kernels, XLA's form runs instead: there is no C++ compiler") == 1
    assert "(2, 6)" in done.stdout
    assert (
        "'cpu_kernel' cannot be had here: there is no C++ compiler (c++, g++, clang++ or CXX); use 'auto'"
        in done.stdout
    )
