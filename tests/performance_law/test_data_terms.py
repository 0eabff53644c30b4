"""ApEn' and D' by every policy; the coding bound only where its assumptions hold."""

import math
import re

import numpy as np
import pytest

from wukong_jax.performance_law.data_terms import (
    coding_bound,
    inverse_entropy,
    mean_data_term,
    real_coding_bound,
    token_data_term,
    user_data_term,
)
from wukong_jax.performance_law.entropy import per_user_approximate_entropy
from wukong_jax.sequential.sequences import from_lists

ENTROPIES = np.array([0.5, -0.25, 0.0, 1e-17, math.nan, -0.6931])
LENGTHS = np.array([10, 20, 30, 40, 1, 2])
"""With m = 1 the last two users, of 1 and 2 items, are too short."""


@pytest.mark.parametrize(
    ("policy", "values", "skipped", "term", "mean_term"),
    [
        ("absolute", [2, 4], (2, 2, 0), 10 * 2 + 20 * 4, 103 / (0.75 / 4)),
        ("signed", [2, -4], (2, 2, 0), 10 * 2 - 20 * 4, 103 / (0.25 / 4)),
        ("positive", [2, math.nan], (2, 2, 1), 10 * 2, 103 / (0.25 / 4)),
    ],
)
def test_each_policy_says_what_becomes_of_zero_negative_and_short(policy, values, skipped, term, mean_term):
    inverse = inverse_entropy(ENTROPIES, LENGTHS, 1, policy)
    np.testing.assert_array_equal(inverse.values, [*values, *[math.nan] * 4])
    assert (inverse.too_short, inverse.zero, inverse.negative) == skipped
    assert np.isnan(inverse.values).sum() == sum(skipped)
    assert user_data_term(LENGTHS, inverse) == pytest.approx(term)
    assert mean_data_term(ENTROPIES, LENGTHS, 1, policy) == pytest.approx(mean_term)


def test_a_mean_below_zero_has_an_inverse_only_where_the_policy_gives_one():
    entropies, lengths = np.array([-0.1, -0.3]), np.array([10, 10])
    found = [mean_data_term(entropies, lengths, 2, policy) for policy in ("absolute", "signed", "positive")]
    np.testing.assert_allclose(found, [100, -100, math.nan])


@pytest.mark.parametrize("entropy", [0.0, 1e-12, -1e-12, math.nan])
@pytest.mark.parametrize("policy", ["absolute", "signed", "positive"])
def test_no_entropy_gives_no_number_of_any_size(entropy, policy):
    assert math.isnan(token_data_term(100, entropy, policy))


def test_nobody_with_a_value_gives_none():
    inverse = inverse_entropy(np.array([math.nan, 0.0]), np.array([1, 9]), 1, "absolute")
    assert math.isnan(user_data_term(np.array([1, 9]), inverse))
    assert math.isnan(mean_data_term(np.array([math.nan]), np.array([1]), 1, "absolute"))


def test_tokens_over_the_entropy():
    assert token_data_term(505_108, 1 / 0.1864) == pytest.approx(505_108 * 0.1864)


def test_repeat_free_users_give_about_the_sum_of_squared_lengths():
    sequences = from_lists([list(range(size)) for size in (5, 40, 200)])
    values = per_user_approximate_entropy(sequences, [1])[:, 0]
    inverse = inverse_entropy(values, sequences.lengths, 1, "absolute")
    np.testing.assert_allclose(inverse.values, [1 / math.log(n / (n - 1)) for n in (5, 40, 200)], rtol=1e-9)
    assert user_data_term(sequences.lengths, inverse) == pytest.approx(25 + 1600 + 40_000, rel=0.01)


def test_the_coding_bound_where_its_assumptions_hold():
    bound = coding_bound(np.array([0.5, 0.25]), np.array([10, 20]), 30)
    assert bound.value == pytest.approx(10 / 0.5 + 20 / 0.25)
    assert "stationary Markov chains" in bound.reason


@pytest.mark.parametrize(
    ("entropies", "lengths", "num_items", "reason"),
    [
        ([0.5, 0.5], [3, 20], 30, "1 of 2 users have fewer than 4 items"),
        ([0.5, 0.5], [4, 200], 30, r"= 90.44 is below max \|S_u\| \+ 2 = 202"),
        ([0.5, -0.1], [10, 20], 30, "ApEn is not above 0, or not defined, for 1 of 2 users"),
        ([0.5, 0.0], [10, 20], 30, "for 1 of 2 users"),
        ([math.nan, 0.5], [10, 20], 30, "for 1 of 2 users"),
        ([], [], 30, "0 of 0 users"),
    ],
)
def test_the_coding_bound_does_not_apply_elsewhere_and_says_why(entropies, lengths, num_items, reason):
    bound = coding_bound(np.array(entropies, float), np.array(lengths, np.int64), num_items)
    assert bound.value is None
    assert bound.reason.startswith("does not apply")
    assert re.search(reason, bound.reason)


def test_the_coding_bound_by_real_entropy_needs_no_entropy_of_single_users():
    bound = real_coding_bound(1.5, np.array([10, 20]), 30)
    assert bound.value == pytest.approx(30 / 1.5)
    assert "stationary Markov chains" in bound.reason


@pytest.mark.parametrize(
    ("entropy", "lengths", "reason"),
    [
        (1.5, [3, 20], "1 of 2 users have fewer than 4 items"),
        (1.5, [4, 200], r"= 90.44 is below max \|S_u\| \+ 2 = 202"),
        (0.0, [10, 20], "the real entropy is 0"),
        (math.nan, [10, 20], "the real entropy is 0"),
        (1.5, [], "0 of 0 users"),
    ],
)
def test_the_coding_bound_by_real_entropy_does_not_apply_elsewhere(entropy, lengths, reason):
    bound = real_coding_bound(entropy, np.array(lengths, np.int64), 30)
    assert bound.value is None
    assert re.match(f"does not apply: .*{reason}", bound.reason)
