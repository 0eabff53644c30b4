"""Approximate entropy against its O(n^2) definition, antropy's figures, closed forms and published data."""

import collections
import math

import numpy as np
import pytest

from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.entropy import (
    approximate_entropy,
    mean_approximate_entropy,
    per_user_approximate_entropy,
    pooled_approximate_entropy,
    pooled_repeated_share,
)
from wukong_jax.sequential.sequences import from_lists

MS = [1, 2, 3, 4, 7]


def by_definition(sequence, m):
    """phi_m = mean over windows of the log of the share of windows at Chebyshev distance 0; ApEn = phi_m - phi_m+1."""

    def phi(length):
        windows = np.array([sequence[i : i + length] for i in range(len(sequence) - length + 1)])
        distance = np.abs(windows[:, None, :] - windows[None, :, :]).max(axis=2)
        return np.log((distance <= 0).mean(axis=1)).mean()

    return phi(m) - phi(m + 1)


def block_entropy(sequence, length):
    """Entropy of the windows' distribution, in nats."""
    windows = [tuple(sequence[i : i + length]) for i in range(len(sequence) - length + 1)]
    shares = np.array([windows.count(window) for window in set(windows)]) / len(windows)
    return -(shares * np.log(shares)).sum()


def sequences_of_all_kinds():
    rng = np.random.default_rng(11)
    for symbols in (1, 2, 3, 10, 1000):
        for size in (2, 3, 5, 9, 40, 150):
            yield rng.integers(0, symbols, size)
    for period in (1, 2, 3, 5):
        yield np.tile(rng.permutation(period), 12)
    yield np.repeat([4, 9, 4], [20, 1, 20])
    yield rng.integers(-(2**40), 2**40, 30)


def random_users(rng, users=60, symbols=6):
    return [rng.integers(0, symbols, rng.integers(0, 30)).tolist() for _ in range(users)]


@pytest.mark.parametrize(
    "sequence", list(sequences_of_all_kinds()), ids=lambda one: f"{len(set(one.tolist()))}of{len(one)}"
)
def test_equals_the_definition_with_its_sign(sequence):
    for m in MS:
        if len(sequence) > m:
            assert approximate_entropy(sequence, m) == pytest.approx(by_definition(sequence, m), abs=1e-12)


def test_is_the_difference_of_block_entropies(rng):
    sequence = rng.integers(0, 4, 200)
    for m in MS:
        difference = block_entropy(sequence.tolist(), m + 1) - block_entropy(sequence.tolist(), m)
        assert approximate_entropy(sequence, m) == pytest.approx(difference, abs=1e-12)


@pytest.mark.parametrize("m", MS)
@pytest.mark.parametrize("size", [9, 20, 1000])
def test_a_constant_sequence_has_exactly_none(size, m):
    assert approximate_entropy(np.full(size, 7), m) == 0.0


@pytest.mark.parametrize("m", MS)
@pytest.mark.parametrize("size", [9, 20, 100, 5000])
def test_without_a_repeated_window_it_is_a_function_of_the_length(size, m):
    expected = math.log((size - m) / (size - m + 1))
    assert approximate_entropy(np.arange(size)[::-1], m) == pytest.approx(expected, abs=1e-14)


ANTROPY = {
    "two symbols": (0.6697486226947009, 0.654526647715628, 0.6066205205956536),
    "five symbols": (1.2937450686607601, 0.5924241415307341, 0.1829703827471647),
    "forty symbols": (0.34878759423115024, 0.014277291217828392, -0.0010035123772391685),
    "skewed": (1.4229922795396215, 0.7114632060439314, 0.20203031378074776),
    "constant": (0.0, 0.0, 0.0),
    "in turn": (0.0013856817075275085, -0.0017311029428268565, 0.0017311029428268565),
    "period 5": (-0.00031257806615125894, -2.1050390890620108e-05, 0.00029149709018461145),
    "all distinct": (-0.010152371464018373, -0.010256500167188598, -0.010362787035546717),
    "one odd item": (0.12252540825782882, 0.12672346917496352, 0.13110321960536614),
}
"""antropy 0.2.3 (BSD-3), signed, m = 2, 3, 4: `antropy.app_entropy(one.astype(float), order=m, tolerance=0)`."""


def measured_by_antropy():
    rng = np.random.default_rng(2)
    return {
        "two symbols": rng.integers(0, 2, 60),
        "five symbols": rng.integers(0, 5, 200),
        "forty symbols": rng.integers(0, 40, 1000),
        "skewed": np.minimum(rng.geometric(0.3, 500), 12),
        "constant": np.full(50, 3),
        "in turn": np.tile([0, 1], 10),
        "period 5": np.tile(rng.permutation(5), 12),
        "all distinct": rng.permutation(100),
        "one odd item": np.repeat([4, 9, 4], [20, 1, 20]),
    }


@pytest.mark.parametrize("name", ANTROPY)
def test_equals_what_antropy_says_with_its_sign(name):
    one = measured_by_antropy()[name]
    assert [approximate_entropy(one, m) for m in (2, 3, 4)] == pytest.approx(ANTROPY[name], abs=1e-12)


@pytest.mark.parametrize(("m", "printed"), [(1, -0.00139), (2, 0.00139)])
def test_two_items_in_turn(m, printed):
    assert approximate_entropy(np.arange(20) % 2, m) == pytest.approx(printed, abs=5e-6)


def test_it_is_undefined_for_m_items_or_fewer():
    assert [approximate_entropy(np.arange(size), 2) for size in (0, 1, 2)] == [pytest.approx(math.nan, nan_ok=True)] * 3
    assert approximate_entropy(np.arange(3), 2) == pytest.approx(math.log(1 / 2))
    for m in (0, -1):
        with pytest.raises(ConfigError, match=f"m: received {m}, expected windows of 1 item or more"):
            approximate_entropy(np.arange(5), m)


def test_users_in_one_pass_are_users_one_by_one(rng):
    sequences = from_lists([*random_users(rng), [], [3], [2, 2, 2, 2]])
    values = per_user_approximate_entropy(sequences, MS)
    for user in range(sequences.num_users):
        own = sequences.of(user)
        expected = [by_definition(own, m) if len(own) > m else math.nan for m in MS]
        np.testing.assert_allclose(values[user], expected, atol=1e-12)


def test_the_window_lengths_may_come_in_any_order(rng):
    sequences = from_lists(random_users(rng))
    straight, mixed = (per_user_approximate_entropy(sequences, ms) for ms in ([1, 2, 4], [4, 1, 2]))
    np.testing.assert_array_equal(straight[:, [2, 0, 1]], mixed)
    assert per_user_approximate_entropy(sequences, []).shape == (60, 0)


def test_the_mean_leaves_out_users_that_are_too_short():
    sequences = from_lists([[0, 1, 0, 1, 1], [2, 3], [1], []])
    two, three = by_definition([0, 1, 0, 1, 1], 1), math.log(1 / 2)
    np.testing.assert_allclose(mean_approximate_entropy(sequences, [1]), [(two + three) / 2])
    assert np.isnan(mean_approximate_entropy(sequences, [9])).all()
    assert np.isnan(mean_approximate_entropy(from_lists([]), [1])).all()


def test_pooled_joins_the_sequences_or_keeps_to_their_windows(rng):
    lists = random_users(rng)
    sequences = from_lists(lists)
    joined = [item for one in lists for item in one]
    expected = [by_definition(joined, m) for m in MS]
    np.testing.assert_allclose(pooled_approximate_entropy(sequences, MS), expected, atol=1e-12)

    def phi(length):
        windows = [tuple(one[i : i + length]) for one in lists for i in range(len(one) - length + 1)]
        return sum(math.log(windows.count(window) / len(windows)) for window in windows) / len(windows)

    within = [phi(m) - phi(m + 1) for m in MS]
    np.testing.assert_allclose(pooled_approximate_entropy(sequences, MS, across_users=False), within, atol=1e-12)
    assert np.abs(np.subtract(expected, within)).min() > 1e-3  # the two are told apart


def test_the_share_of_windows_that_occur_again():
    sequences = from_lists([[0, 1, 2], [0, 1, 3]])
    np.testing.assert_allclose(pooled_repeated_share(sequences, [2, 1, 9]), [2 / 5, 4 / 6, math.nan])


def test_windows_of_many_items_do_not_overflow():
    """5 items of 2^17 do not fit 64 bits: windows that differ in their first item alone must stay apart."""
    blocks = [item for first in range(1000, 1050) for item in (first, 0, 1, 2, 3) * 2]
    sequence = [*range(2**17), *blocks]

    def phi(length):
        windows = list(zip(*(sequence[start:] for start in range(length)), strict=False))
        counts = np.array(list(collections.Counter(windows).values()))
        return (counts / len(windows) * np.log(counts / len(windows))).sum()

    assert approximate_entropy(np.array(sequence), 4) == pytest.approx(phi(4) - phi(5), rel=1e-9)
    assert approximate_entropy(np.array(sequence), 5) == pytest.approx(phi(5) - phi(6), rel=1e-9)


def test_rounding_errors_do_not_add_up():
    """Everything twice: the difference of two sums of 2^17 terms near 12 is about 4e-6."""
    half = 2**17
    once = np.random.default_rng(3).permutation(half)

    def phi(length):
        """All windows but the length - 1 across the seam occur twice."""
        windows, twice = 2 * half - length + 1, half - length + 1
        return (2 * twice * math.log(2 / windows) - (length - 1) * math.log(windows)) / windows

    assert approximate_entropy(np.concatenate([once, once]), 5) == pytest.approx(phi(5) - phi(6), rel=1e-6)


@pytest.mark.parametrize(("last", "one", "two"), [(50, 3.611, 0.2675), (200, 4.222, 0.4036)])
def test_the_pooled_figures_of_movielens_100k(shared_data, tmp_path, last, one, two):
    from wukong_jax.sequential.datasets import load_sequences

    sequences = load_sequences("movielens_100k", shared_data / "ml-100k", tmp_path).by_start().last(last)
    found = pooled_approximate_entropy(sequences, [1, 2])
    assert found[0] == pytest.approx(one, abs=5e-4)
    assert found[1] == pytest.approx(two, abs=5e-5)
