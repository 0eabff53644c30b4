"""Noise of single runs: against scipy.stats."""

import numpy as np
import pytest
import scipy.stats

from wukong_jax.scaling.run_noise import given_noise, noise_of_seeds

GROUPS = np.repeat([0, 1, 2], [4, 3, 5])


def runs(rng, deviations):
    return rng.normal(size=12) * np.repeat(deviations, [4, 3, 5])


def test_alike_sizes_share_the_pooled_deviation(rng):
    y = runs(rng, [1.0, 1.0, 1.0])
    noise = noise_of_seeds(y, GROUPS)
    by_size = [y[group == GROUPS] for group in range(3)]
    pooled = np.sqrt(sum(np.var(each) * len(each) for each in by_size) / 9)
    assert noise.shared
    np.testing.assert_allclose(noise.deviation, pooled)
    np.testing.assert_allclose(noise.freedom, 9)
    found = noise.half_width(np.array([1.0, -1, 0]), np.array([4, 3, 5]))
    assert found == pytest.approx(scipy.stats.t.ppf(0.975, 9) * pooled * np.sqrt(1 / 4 + 1 / 3))


def test_unlike_sizes_are_compared_by_welchs_test(rng):
    y = runs(rng, [0.01, 1.0, 30.0])
    noise = noise_of_seeds(y, GROUPS)
    assert not noise.shared
    ours, theirs = y[GROUPS == 1], y[GROUPS == 2]
    expected = scipy.stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    found = noise.half_width(np.array([0.0, 1, -1]), np.array([4, 3, 5]))
    assert found == pytest.approx((expected.high - expected.low) / 2)


@pytest.mark.parametrize("deviations", [[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1.0, 4.0, 16.0]])
def test_sizes_differ_where_bartletts_test_says_so(rng, deviations):
    for _ in range(20):
        y = runs(rng, deviations)
        p_value = scipy.stats.bartlett(*(y[group == GROUPS] for group in range(3))).pvalue
        assert noise_of_seeds(y, GROUPS).shared == (p_value >= 0.05)


def test_a_size_of_one_run_takes_the_deviation_of_the_others():
    noise = noise_of_seeds(np.array([0.0, 1, 3, 0.001, 0.002, 0.003, 7]), np.array([0, 0, 0, 1, 1, 1, 2]))
    assert not noise.shared
    np.testing.assert_allclose(noise.deviation[2], np.sqrt((2 * np.var([0, 1, 3], ddof=1) + 2 * 0.001**2) / 4))


def test_equal_values_of_a_size_are_rounding_and_no_proof():
    assert noise_of_seeds(np.array([0.5, 0.5, 0.4, 0.41]), np.array([0, 0, 1, 1])).shared


def test_without_repetitions_the_noise_is_unknown():
    assert noise_of_seeds(np.arange(3.0), np.arange(3)) is None


def test_a_given_deviation_is_exact():
    assert given_noise(0.1, 2).half_width(np.array([1.0, -1]), np.array([1, 1])) == pytest.approx(
        1.959964 * 0.1 * 2**0.5
    )
