import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from wukong_jax.ops.dropout import dropout, keep_mask

SHAPE = (512, 300)


def masks(keep, count, shape=SHAPE):
    keys = jax.random.split(jax.random.key(7), count)
    return np.stack([keep_mask(key, shape, keep) for key in keys])


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_a_share_is_dropped_and_the_rest_scaled_so_that_the_mean_stays(rate):
    x = jnp.full(SHAPE, 3.0)
    out = np.asarray(dropout(x, rate, jax.random.key(0)))
    np.testing.assert_allclose(np.unique(out), [0, 3 / (1 - rate)], rtol=1e-6)
    size = out.size
    assert abs((out == 0).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / size)
    gradient = jax.grad(lambda x: dropout(x, rate, jax.random.key(0)).sum())(x)
    np.testing.assert_allclose(gradient, out / 3, rtol=1e-6)


def test_everything_or_nothing_is_dropped_at_the_ends():
    x = jnp.ones((5, 4))
    np.testing.assert_array_equal(dropout(x, 1.0, jax.random.key(0)), np.zeros((5, 4)))
    np.testing.assert_array_equal(dropout(x, 0.0, jax.random.key(0)), np.ones((5, 4)))


def test_columns_rows_and_neighbours_are_independent():
    """Counts of kept values by row, column and pattern of four neighbours are those of independent draws."""
    keep = 0.7
    mask = masks(keep, 1)[0].astype(int)
    for axis, size in ((0, SHAPE[0]), (1, SHAPE[1])):
        counts = mask.sum(axis=axis)
        expected = scipy.stats.binom(size, keep)
        assert abs((counts - expected.mean()).std() / expected.std() - 1) < 0.15
    for shift in ((0, 1), (1, 0), (1, 1), (4, 0), (0, 16), (256, 0)):
        other = np.roll(mask, shift, axis=(0, 1))
        assert abs(np.corrcoef(mask.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(mask.size)
    patterns = np.bincount((mask.reshape(-1, 4) @ [8, 4, 2, 1]), minlength=16)
    chances = [keep**bits * (1 - keep) ** (4 - bits) for bits in (bin(pattern).count("1") for pattern in range(16))]
    assert scipy.stats.chisquare(patterns, np.array(chances) * patterns.sum()).pvalue > 1e-4


def test_masks_of_different_keys_are_independent():
    drawn = masks(0.5, 30, (4000,)).astype(float)
    correlations = np.corrcoef(drawn)[np.triu_indices(30, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)
    assert abs(correlations.mean()) < 4 / np.sqrt(4000 * len(correlations))
    near = [keep_mask(jax.random.wrap_key_data(jnp.array([1, word], jnp.uint32)), (4000,), 0.5) for word in range(6)]
    assert np.abs(np.corrcoef(np.stack(near).astype(float))[np.triu_indices(6, 1)]).max() < 5 / np.sqrt(4000)


def test_one_key_gives_one_mask_whatever_compiles_it():
    mask = keep_mask(jax.random.key(3), SHAPE, 0.8)
    np.testing.assert_array_equal(jax.jit(lambda key: keep_mask(key, SHAPE, 0.8))(jax.random.key(3)), mask)
