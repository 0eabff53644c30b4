import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wukong_jax
from wukong_jax.ops.products import product


def t(array):
    """Each example's transpose."""
    return np.swapaxes(array, -1, -2)


def h(array):
    """Heads before positions, or back."""
    return np.swapaxes(array, 1, 2)


# shapes of left and right; the result; the gradients of left and right from the result's, g
FORMS = {
    "bi,io->bo": ((7, 5), (5, 3), lambda a, b: a @ b, lambda a, b, g: (g @ b.T, a.T @ g)),
    "bnd,nm->bmd": ((4, 7, 5), (7, 3), lambda a, b: b.T @ a, lambda a, b, g: (b @ g, (a @ t(g)).sum(axis=0))),
    "bnd,bmd->bnm": ((4, 7, 5), (4, 3, 5), lambda a, b: a @ t(b), lambda a, b, g: (g @ b, t(g) @ a)),
    "bnd,bnk->bkd": ((4, 7, 5), (4, 7, 3), lambda a, b: t(b) @ a, lambda a, b, g: (b @ g, a @ t(g))),
    "bnd,bkd->bnk": ((4, 7, 5), (4, 3, 5), lambda a, b: a @ t(b), lambda a, b, g: (g @ b, t(g) @ a)),
    "bli,io->blo": ((4, 7, 5), (5, 3), lambda a, b: a @ b, lambda a, b, g: (g @ b.T, (t(a) @ g).sum(axis=0))),
    "bihe,bjhe->bhij": (
        (2, 7, 3, 5),
        (2, 6, 3, 5),
        lambda a, b: h(a) @ t(h(b)),
        lambda a, b, g: (h(g @ h(b)), h(t(g) @ h(a))),
    ),
    "bhij,bjhe->bihe": (
        (2, 3, 7, 6),
        (2, 6, 3, 5),
        lambda a, b: h(a @ h(b)),
        lambda a, b, g: (h(g) @ t(h(b)), h(t(a) @ h(g))),
    ),
}


def test_every_form_in_use_is_in_the_table():
    sources = [path.read_text() for path in pathlib.Path(wukong_jax.__file__).parent.rglob("*.py")]
    assert {form for source in sources for form in re.findall(r'\bproduct\("([^"]*)"', source)} == set(FORMS)


def drawn(rng, form):
    left, right = (rng.normal(size=shape) for shape in FORMS[form][:2])
    return left, right, rng.normal(size=FORMS[form][2](left, right).shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def forward_and_backward(form, dtype, left, right, gradient):
    out, backward = jax.vjp(lambda left, right: product(form, dtype, left, right), left, right)
    return out, *backward(gradient)


def assert_right(form, dtype, arrays, tolerance):
    found = forward_and_backward(form, dtype, *arrays)
    left, right, gradient = (np.asarray(array, np.float64) for array in arrays)
    wanted = FORMS[form][2](left, right), *FORMS[form][3](left, right, gradient)
    for name, one, other in zip(("out", "left", "right"), found, wanted, strict=True):
        assert one.shape == other.shape, name
        assert np.linalg.norm(np.asarray(one, np.float64) - other) < tolerance * np.linalg.norm(other), name
    return found


@pytest.mark.parametrize("form", FORMS)
def test_float32_equals_numpy(rng, form):
    assert_right(form, jnp.float32, [jnp.asarray(array, jnp.float32) for array in drawn(rng, form)], 4e-7)


@pytest.mark.parametrize("form", FORMS)
def test_float64_stays_float64(rng, form):
    with jax.enable_x64(True):
        found = assert_right(form, jnp.float64, [jnp.asarray(array) for array in drawn(rng, form)], 1e-14)
        assert [array.dtype for array in found] == [jnp.float64] * 3


NOT_ON_CPU = ("bnd,nm->bmd", "bli,io->blo", "bihe,bjhe->bhij", "bhij,bjhe->bihe")
"""XLA:CPU has no such products of bfloat16, or none of their gradients."""


@pytest.mark.parametrize("form", [form for form in FORMS if form not in NOT_ON_CPU])
def test_bfloat16_rounds_the_operands_and_nothing_else(rng, form):
    """On operands that bfloat16 holds exactly, the result and the gradients are those of float32."""
    arrays = [jnp.asarray(array, jnp.bfloat16).astype(jnp.float32) for array in drawn(rng, form)]
    found = assert_right(form, jnp.bfloat16, arrays, 4e-7)
    assert [array.dtype for array in found] == [jnp.float32] * 3
    for position in range(3):  # what bfloat16 does not hold is rounded: left, right and the incoming gradient
        finer = list(arrays)
        finer[position] = finer[position] * (1 + 2**-12)
        for one, other in zip(forward_and_backward(form, jnp.bfloat16, *finer), found, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", FORMS)
def test_every_product_of_a_bfloat16_step_reads_bfloat16_and_sums_in_float32(rng, form):
    arrays = [jnp.asarray(array, jnp.float32) for array in drawn(rng, form)]
    text = forward_and_backward.lower(form, jnp.bfloat16, *arrays).as_text()
    products = re.findall(r"dot_general .*x(\w+)>, tensor<.*x(\w+)>\) -> tensor<.*x(\w+)>", text)
    assert products == [("bf16", "bf16", "f32")] * 3


def test_257_ones_are_257():
    """bfloat16 holds 256 and 258: a sum or a gradient rounded to it would show."""
    ones = jnp.ones((257, 257))
    for array in forward_and_backward("bi,io->bo", jnp.bfloat16, ones, ones, ones):
        np.testing.assert_array_equal(array, 257.0)


def test_a_gradient_has_the_type_of_its_operand(rng):
    left, right, gradient = (jnp.asarray(array, jnp.float32) for array in drawn(rng, "bi,io->bo"))
    found = forward_and_backward("bi,io->bo", jnp.bfloat16, left, right.astype(jnp.bfloat16), gradient)
    assert [array.dtype for array in found] == [jnp.float32, jnp.float32, jnp.bfloat16]
