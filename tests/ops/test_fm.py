import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.ops.fm import attentive_fm, full_fm, low_rank_fm


@pytest.fixture
def arrays(rng):
    shapes = (3, 7, 5), (7, 2), (3, 7, 2)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_full_fm_holds_all_pairwise_dot_products(arrays):
    x = arrays[0]
    found = np.asarray(full_fm(jnp.asarray(x)))
    for example in range(3):
        for i in range(7):
            for j in range(7):
                assert found[example, i, j] == pytest.approx(float(x[example, i] @ x[example, j]), rel=1e-4, abs=1e-5)


def test_the_cheap_order_of_products_gives_the_same(arrays):
    """X (X^T Y) = (X X^T) Y, with a Y for all examples and with one for each."""
    x, shared, own = arrays
    pairs = x.astype(np.float64) @ x.transpose(0, 2, 1)
    np.testing.assert_allclose(low_rank_fm(jnp.asarray(x), jnp.asarray(shared)), pairs @ shared, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(attentive_fm(jnp.asarray(x), jnp.asarray(own)), pairs @ own, rtol=1e-4, atol=1e-5)


def test_low_rank_never_forms_n_by_n(arrays):
    x, shared, own = (jnp.asarray(array) for array in arrays)
    for program in (jax.make_jaxpr(low_rank_fm)(x, shared), jax.make_jaxpr(attentive_fm)(x, own)):
        shapes = [variable.aval.shape for equation in program.eqns for variable in equation.outvars]
        assert (3, 7, 7) not in shapes
        assert (3, 5, 2) in shapes
