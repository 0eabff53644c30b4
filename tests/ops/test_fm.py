import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.errors import ConfigError
from wukong_jax.ops import fm_mosaic_gpu, fm_tpu, products
from wukong_jax.ops.fm import compress, factorization_machine, fm_layer_norm
from wukong_jax.ops.fm_cpu import pairs_first
from wukong_jax.ops.platform import CPU_COMPILER_OPTIONS, resolve_implementation

KINDS = ("full", "low_rank", "attentive")
IMPLEMENTATIONS = ("reference", "xla", "xla_cpu")
# batch, n, d, k; (X X^T) Y is the faster order on CPU for some and X (X^T Y) for the others
PAIRS_FIRST = [(1, 1, 1, 1), (2, 1, 8, 3), (5, 4, 6, 9), (3, 5, 4, 4), (17, 24, 40, 24)]
PROJECTION_FIRST = [(4, 3, 1, 5), (3, 6, 4, 4), (7, 31, 16, 8), (33, 13, 5, 2)]
EPSILON = 1e-5


def drawn(rng, kind, batch, n, d, k):
    """x, y, linear; the gradients of the FM and of each W^T X. Two W's, the second a single column."""

    def normal(*shape):
        return rng.normal(size=shape)

    y = {"full": None, "low_rank": normal(n, k), "attentive": normal(batch, n, k)}[kind]
    linear = {"lcb": normal(n, 3), "residual": normal(n, 1)}
    out = normal(batch, n, n if y is None else k), {"lcb": normal(batch, 3, d), "residual": normal(batch, 1, d)}
    return normal(batch, n, d), y, linear, *out


def cast(tree, dtype):
    return jax.tree.map(lambda array: jnp.asarray(array, dtype), tree)


def t(array):
    """Each example's transpose."""
    return np.swapaxes(array, -1, -2)


def expected(x, y, linear, d_out, d_linear):
    """(X X^T) Y and W^T X; the gradients of X, Y and each W. All in float64."""
    arrays = (x, y, linear, d_out, d_linear)
    x, y, linear, d_out, d_linear = jax.tree.map(lambda array: np.asarray(array, np.float64), arrays)
    pairs = x @ t(x)
    compressed = {name: weight.T @ x for name, weight in linear.items()}
    d_pairs = d_out if y is None else d_out @ t(y)
    dx = (d_pairs + t(d_pairs)) @ x + sum(linear[name] @ d_linear[name] for name in linear)
    dy = None if y is None else pairs @ d_out
    if y is not None and y.ndim == 2:
        dy = dy.sum(axis=0)
    d_weights = {name: (x @ t(d_linear[name])).sum(axis=0) for name in linear}
    return {"out": pairs if y is None else pairs @ y, "compressed": compressed, "x": dx, "y": dy, "linear": d_weights}


def forward_and_backward(implementation, dtype, x, y, linear, d_out, d_linear):
    def machine(x, y, linear):
        return factorization_machine(x, y, linear, dtype=dtype, implementation=implementation)

    (out, compressed), backward = jax.vjp(machine, x, y, linear)
    dx, dy, d_weights = backward((d_out, d_linear))
    return {"out": out, "compressed": compressed, "x": dx, "y": dy, "linear": d_weights}


jitted = functools.partial(jax.jit, static_argnums=(0, 1))(forward_and_backward)


def assert_close(found, wanted, tolerance):
    """Every array to `tolerance` of its own norm."""
    leaves = jax.tree_util.tree_leaves_with_path(wanted)
    for (path, other), one in zip(leaves, jax.tree.leaves(found), strict=True):
        name = jax.tree_util.keystr(path)
        assert one.shape == other.shape, name
        assert np.linalg.norm(np.asarray(one, np.float64) - other) <= tolerance * np.linalg.norm(other), name


@pytest.mark.parametrize("shape", PAIRS_FIRST + PROJECTION_FIRST, ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_numpy_to_float32_rounding(rng, kind, implementation, shape):
    arrays = cast(drawn(rng, kind, *shape), jnp.float32)
    assert_close(jitted(implementation, jnp.float32, *arrays), expected(*arrays), 1e-6)


@pytest.mark.parametrize("shape", [PAIRS_FIRST[-1], PROJECTION_FIRST[2]], ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_float64_stays_float64(rng, kind, implementation, shape):
    with jax.enable_x64(True):
        arrays = cast(drawn(rng, kind, *shape), jnp.float64)
        found = jitted(implementation, jnp.float64, *arrays)
        assert_close(found, expected(*arrays), 1e-14)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float64)}


@pytest.fixture
def bfloat16_products_on_cpu(monkeypatch):
    """XLA:CPU lacks some of the products of bfloat16 summed in float32: operands are rounded, products are float32."""

    def einsum(subscripts, dtype, left, right):
        return jnp.einsum(subscripts, *(operand.astype(dtype).astype(jnp.float32) for operand in (left, right)))

    monkeypatch.setattr(products, "_einsum", einsum)


@pytest.mark.parametrize("shape", [PAIRS_FIRST[-1], PROJECTION_FIRST[2]], ids=str)
@pytest.mark.parametrize("implementation", ["xla", "xla_cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_rounds_operands_but_returns_the_type_of_x(rng, kind, implementation, shape, bfloat16_products_on_cpu):
    """On operands that bfloat16 holds, a single product is exact; only what lies between two of them is rounded."""
    arrays = cast(cast(drawn(rng, kind, *shape), jnp.bfloat16), jnp.float32)
    # compiled anew: the fixture changes what the program calls
    found = jax.jit(functools.partial(forward_and_backward, implementation, jnp.bfloat16))(*arrays)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    wanted = expected(*arrays)
    assert_close(found, wanted, 5e-3)
    assert_close([found["compressed"], found["linear"]], [wanted["compressed"], wanted["linear"]], 1e-6)
    finer = jax.tree.map(lambda array: array * (1 + 2**-12), arrays[:3])
    rounded = jax.jit(functools.partial(forward_and_backward, implementation, jnp.bfloat16))(*finer, *arrays[3:])
    np.testing.assert_array_equal(rounded["out"], found["out"])


def lowered(implementation, dtype, shape, kind="low_rank"):
    """The traced program, forward and backward, before any compiler has seen it."""
    arrays = cast(drawn(np.random.default_rng(0), kind, *shape), jnp.float32)
    return jitted.lower(implementation, dtype, *arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_every_bfloat16_product_of_xla_reads_bfloat16_and_sums_in_float32(kind):
    text = lowered("xla", jnp.bfloat16, PROJECTION_FIRST[2], kind).as_text()
    found = re.findall(r"dot_general .*x(\w+)>, tensor<.*x(\w+)>\) -> tensor<.*x(\w+)>", text)
    # forward and twice backward: X X^T and [W ...], or [Y W ...] and X (X^T Y), or all three apart
    assert found == [("bf16", "bf16", "f32")] * (3 * {"full": 2, "low_rank": 2, "attentive": 3}[kind])


def test_pairs_first_up_to_a_quarter_more_products():
    assert all(pairs_first(*shape[1:]) for shape in PAIRS_FIRST)
    assert not any(pairs_first(*shape[1:]) for shape in PROJECTION_FIRST)
    # n^2 (d + k) against 1.25 x 2 n d k
    assert pairs_first(10, 8, 8)
    assert not pairs_first(11, 8, 8)


@pytest.mark.parametrize(("n", "cheap"), [(11, False), (40, True)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["low_rank", "attentive"])
def test_no_array_of_all_pairs_where_it_is_dearer(kind, implementation, n, cheap):
    d, k = 9, 10
    forms_pairs = f"tensor<3x{n}x{n}x" in lowered(implementation, jnp.float32, (3, n, d, k), kind).as_text()
    assert forms_pairs == (implementation == "xla_cpu" and not cheap)
    assert forms_pairs == (implementation == "xla_cpu" and pairs_first(n, d, k))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_compress_is_the_linear_part_alone(rng, implementation):
    x, _, linear, _, gradient = cast(drawn(rng, "full", 7, 31, 16, 1), jnp.float32)

    @jax.jit
    def found(x, linear, gradient):
        out, backward = jax.vjp(lambda x, linear: compress(x, linear, implementation=implementation), x, linear)
        return out, backward(gradient)

    out, (dx, d_weights) = found(x, linear, gradient)
    wanted = expected(x, None, linear, np.zeros((7, 31, 31)), gradient)
    assert_close([out, dx, d_weights], [wanted[name] for name in ("compressed", "x", "linear")], 1e-6)
    assert list(out) == list(linear)
    assert compress(x, {}, implementation=implementation) == {}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_fm_layer_norm_normalises_the_flattened_products(rng, kind, implementation):
    x, y, linear, _, _ = arrays = cast(drawn(rng, kind, 7, 13, 5, 2), jnp.float32)
    wanted = expected(*arrays)
    size = wanted["out"][0].size
    scale, bias = cast([1 + 0.3 * rng.normal(size=size), rng.normal(size=size)], jnp.float32)
    found, compressed = fm_layer_norm(
        x, y, scale, bias, linear, epsilon=EPSILON, implementation=implementation
    )  # fmt: skip
    flat = wanted["out"].reshape(7, -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    normalised = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    result = normalised * np.asarray(scale, np.float64) + np.asarray(bias, np.float64)
    assert_close([found, compressed], [result, wanted["compressed"]], 1e-6)


@pytest.mark.parametrize("shape", [PAIRS_FIRST[-1], PROJECTION_FIRST[2]], ids=str)
def test_the_cpu_options_keep_the_barriers_and_the_numbers(rng, shape):
    arrays = cast(drawn(rng, "low_rank", *shape), jnp.float32)
    program = jitted.lower("xla_cpu", jnp.float32, *arrays)
    kept, dropped = program.compile(compiler_options=CPU_COMPILER_OPTIONS), program.compile()
    assert "opt-barrier" in kept.as_text()
    assert "opt-barrier" not in dropped.as_text(), "XLA keeps them by itself now: the option is not needed any more"
    one, other = kept(*arrays), dropped(*arrays)
    assert_close(one, jax.tree.map(lambda array: np.asarray(array, np.float64), other), 1e-6)
    assert_close(one, expected(*arrays), 1e-6)


@pytest.mark.parametrize(("platform", "name"), [("cpu", "xla_cpu"), ("gpu", "xla"), ("tpu", "xla")])
def test_auto_is_chosen_by_platform_and_never_a_kernel(monkeypatch, platform, name):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert resolve_implementation("auto") == name
    for other in ("reference", "xla", "xla_cpu", "mosaic_gpu", "tpu"):
        assert resolve_implementation(other) == other


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_auto_computes_as_the_implementation_that_it_stands_for(monkeypatch, platform):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    name = resolve_implementation("auto")
    arrays = cast(drawn(np.random.default_rng(0), "low_rank", 3, 11, 5, 2), jnp.float32)
    texts = [str(jax.make_jaxpr(functools.partial(forward_and_backward, which, jnp.float32))(*arrays)) for which in
             ("auto", name)]  # fmt: skip
    assert ("optimization_barrier" in texts[0]) == ("optimization_barrier" in texts[1]) == (platform == "cpu")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("name", "module"), [("mosaic_gpu", fm_mosaic_gpu), ("tpu", fm_tpu)])
def test_a_kernel_named_gets_operands_in_the_type_of_the_products(
    rng, monkeypatch, name, module, dtype, bfloat16_products_on_cpu
):
    """Only X and Y are cast; the rest of the layer's linear maps are XLA's, and the result has X's type."""
    x, y, linear, *_ = cast(drawn(rng, "low_rank", 4, 6, 5, 3), jnp.float32)
    scale, bias = jnp.full(18, 1 + 2**-12), jnp.full(18, 2**-12)
    calls = []

    def kernel(*arguments, interpret=False):
        calls.append((arguments, interpret))
        return jnp.full((4, 18), 3, dtype)

    monkeypatch.setattr(module, "fm_layer_norm", kernel)
    found, compressed = fm_layer_norm(
        x, y, scale, bias, linear, epsilon=EPSILON, dtype=dtype, implementation=name
    )  # fmt: skip
    (((*arrays, epsilon), interpret),) = calls
    assert [array.dtype for array in arrays] == [dtype, dtype, jnp.float32, jnp.float32]
    for one, other in zip(arrays, (x.astype(dtype), y.astype(dtype), scale, bias), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (epsilon, interpret) == (EPSILON, False)
    assert (found.shape, found.dtype) == ((4, 18), jnp.float32)
    np.testing.assert_array_equal(found, 3)
    operands = cast(cast((x, linear), dtype), jnp.float32)
    wanted = {key: np.asarray(weight).T @ np.asarray(operands[0]) for key, weight in operands[1].items()}
    assert_close(compressed, wanted, 1e-6)


@pytest.mark.parametrize("kind", ["full", "attentive"])
@pytest.mark.parametrize("name", ["mosaic_gpu", "tpu"])
def test_a_kernel_asked_for_what_it_does_not_compute_is_refused(rng, name, kind):
    x, y, linear, d_out, _ = cast(drawn(rng, kind, 4, 6, 5, 3), jnp.float32)
    size = d_out[0].size
    with pytest.raises(ConfigError, match=f"implementation='{name}'.*use implementation='auto'"):
        fm_layer_norm(x, y, jnp.ones(size), jnp.zeros(size), linear, epsilon=EPSILON, implementation=name)
    with pytest.raises(ConfigError, match=f"implementation='{name}'.*fm_layer_norm"):
        factorization_machine(x, y, linear, implementation=name)
