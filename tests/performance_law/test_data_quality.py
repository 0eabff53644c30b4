"""The report's figures against direct counts, and a warning for each degenerate measure, and only then."""

import collections
import dataclasses
import math
import zlib

import numpy as np
import pytest

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.performance_law.data_quality import data_quality
from wukong_jax.performance_law.entropy import approximate_entropy
from wukong_jax.performance_law.real_entropy import real_entropy
from wukong_jax.sequential.sequences import from_lists


def users_who_repeat(rng, users=40):
    """Walks on a circle of 12 items with some noise: long enough, and with repeats."""
    steps = [rng.integers(0, 2, 60) for _ in range(users)]
    return [((rng.integers(12) + np.cumsum(1 + step)) % 12).tolist() for step in steps]


def test_sizes_are_counts():
    lists = [[0, 1, 0, 3], [1, 1], [3], [], [0, 1, 5]]
    size = data_quality(from_lists(lists), [1]).size
    assert (size.users, size.empty_users, size.one_event_users, size.interactions) == (5, 1, 1, 10)
    assert size.items == 4  # 2 and 4 do not occur
    assert size.mean_length == 2
    assert size.length_quantiles["50%"] == 2
    assert (size.length_quantiles["0%"], size.length_quantiles["100%"]) == (0, 4)
    assert size.repeat_rate == pytest.approx(2 / 10)
    assert size.repeat_free_users == 1
    assert size.sparsity == pytest.approx(1 - 8 / (5 * 4))
    assert size.ties is None


def test_ties_are_counted_within_users():
    sequences = dataclasses.replace(from_lists([[0, 1, 2], [0, 1]]), times=np.array([5, 5, 6, 6, 6]))
    assert data_quality(sequences, [1]).size.ties == 2


def test_the_measures_are_those_of_their_functions(rng):
    lists = users_who_repeat(rng)
    quality = data_quality(from_lists(lists), [2, 1], "signed")
    joined = np.array([item for one in lists for item in one])
    assert quality.real_entropy == real_entropy(joined)
    assert quality.d_real == pytest.approx(len(joined) / real_entropy(joined))
    for entropy, m in zip(quality.entropies, (2, 1), strict=True):
        own = np.array([approximate_entropy(np.array(one), m) for one in lists])
        assert entropy.m == m
        assert entropy.mean == pytest.approx(own.mean())
        assert entropy.mean_absolute == pytest.approx(np.abs(own).mean())
        assert entropy.pooled == pytest.approx(approximate_entropy(joined, m))
        assert entropy.d_users == pytest.approx(sum(len(one) / value for one, value in zip(lists, own, strict=True)))
        assert entropy.d_mean == pytest.approx(len(joined) / own.mean())
        assert entropy.d_pooled == pytest.approx(len(joined) / approximate_entropy(joined, m))


def block_entropy(windows: list[tuple[int, ...]]) -> float:
    """In nats, of the shares of the distinct windows."""
    counts = collections.Counter(windows).values()
    return sum(-count / len(windows) * math.log(count / len(windows)) for count in counts)


def test_the_measures_of_items_and_of_windows_are_direct_counts():
    lists = [[0, 1, 0, 3, 1, 0], [1, 1, 2], [3, 3, 0, 1, 0]]
    quality = data_quality(from_lists(lists), [1, 2])
    joined = [item for one in lists for item in one]
    assert quality.shannon_bits == pytest.approx(block_entropy([(item,) for item in joined]) / math.log(2))
    for entropy, m in zip(quality.entropies, (1, 2), strict=True):
        shorter, longer = (
            [tuple(one[at : at + n]) for one in lists for at in range(len(one) - n + 1)] for n in (m, m + 1)
        )
        assert entropy.pooled_within_users == pytest.approx(block_entropy(longer) - block_entropy(shorter))
        assert entropy.pooled_within_users != pytest.approx(entropy.pooled, rel=0.01)


def test_the_compression_ratio_is_that_of_the_items_in_their_order(rng):
    lists = [[*range(70), *range(300)], rng.integers(0, 300, 50).tolist()]
    quality = data_quality(from_lists(lists), [1])
    content, backwards = (np.concatenate(lists)[::step].astype("<i4").tobytes() for step in (1, -1))
    assert quality.compression_ratio == len(zlib.compress(content)) / len(content)
    assert len(zlib.compress(content)) != len(zlib.compress(backwards)), "else the order would not show"


@pytest.mark.parametrize("policy", ["absolute", "signed", "positive"])
@pytest.mark.parametrize("repeating", [3, 0])
def test_negative_entropies_count_as_the_policy_says(repeating, policy, rng):
    """Users who repeat nothing have ApEn < 0; and so has all of them joined, where nobody repeats."""
    lists = [*users_who_repeat(rng, repeating), list(range(20, 28)), list(range(30, 35))]
    entropy = data_quality(from_lists(lists), [1], policy).entropies[0]
    joined = np.concatenate(lists)
    own = np.array([approximate_entropy(np.array(one), 1) for one in lists])
    assert np.count_nonzero(own > 0) == repeating
    assert entropy.negative == (2 if policy == "positive" else 0)

    def inverse(value: float) -> float:
        return {"absolute": 1 / abs(value), "signed": 1 / value, "positive": 1 / value if value > 0 else math.nan}[
            policy
        ]

    terms = np.array([len(one) * inverse(value) for one, value in zip(lists, own, strict=True)])
    kept = terms[np.isfinite(terms)]
    assert entropy.d_users == pytest.approx(kept.sum() if len(kept) else math.nan, nan_ok=True)
    mean = np.abs(own).mean() if policy == "absolute" else own.mean()
    assert entropy.d_mean == pytest.approx(len(joined) * inverse(mean), nan_ok=True)
    assert entropy.d_pooled == pytest.approx(len(joined) * inverse(approximate_entropy(joined, 1)), nan_ok=True)


def test_sound_data_gives_no_warning(rng):
    quality = data_quality(from_lists(users_who_repeat(rng)), [1, 2])
    assert quality.warnings == ()
    assert all(entropy.bound.value is not None for entropy in quality.entropies)


FEW_PAIRS = [[*range(1000), *(item for k in range(20) for item in (2 * k, 2 * k + 1, 1000 + k))]]
"""20 of 1,000 pairs twice, once before the next number and once before another."""


@pytest.mark.parametrize(
    ("lists", "ms", "message"),
    [
        ([[0, 1, 2, 3], [3, 2, 1]], [1], "repeat-free: no user has an item twice, so that their ApEn is log"),
        ([[0, 1, 2, 3], [3, 2, 1], [1, 1]], [1], "repeat-free: 2 users do not have an item twice"),
        ([[0, 1, 0, 0], [1, 1, 0]], [2], "m = 2: 1 users (50.0%) have m + 1 = 3 items or fewer"),
        ([[1] * 9, [0, 1, 0, 0, 1, 1]], [2], "m = 2: ApEn is 0 for 1 users, as of constant sequences"),
        (FEW_PAIRS, [2], "m = 2: only 3.78% of the windows occur more than once; pooled ApEn is close to 0"),
        ([[0, 1, 2, 3, 4, 5, 6, 0]], [3], "m = 3: pooled ApEn is -0.18, no further from 0"),
        ([[0, 1] * 10], [1], "m = 1: pooled ApEn is -0.0014, no further from 0 than the end of a sequence makes it"),
        ([[1], [0], [1], [0]], [1], "tokens / ApEn means nothing"),
        ([[3] * 9], [2], "m = 2: pooled ApEn is 0, no further from 0"),
        ([[0, 1, 0, 1], []], [1], "1 users have no event"),
        ([[0, 1, 0, 1], [1]], [1], "1 users have one event"),
        ([[0]], [1], "real entropy is 0"),
    ],
)
def test_a_degenerate_measure_is_said(lists, ms, message):
    assert any(message in warning for warning in data_quality(from_lists(lists), ms).warnings)


def test_events_of_one_time_are_said():
    sequences = dataclasses.replace(from_lists([[0, 1, 0, 1]]), times=np.array([1, 1, 1, 2]))
    assert any("50.0% of the events have the time" in warning for warning in data_quality(sequences, [1]).warnings)


def test_one_event_gives_no_number_that_means_nothing():
    quality = data_quality(from_lists([[0]]), [1])
    assert (quality.real_entropy, quality.shannon_bits) == (0, 0)
    assert math.isnan(quality.d_real)
    entropy = quality.entropies[0]
    assert all(math.isnan(value) for value in (entropy.mean, entropy.pooled, entropy.d_users, entropy.d_pooled))


def test_no_event_is_refused():
    for lists in ([], [[], []]):
        with pytest.raises(DataError, match="the file: no events; expected at least one user with an item"):
            data_quality(from_lists(lists, "the file"))
    with pytest.raises(ConfigError, match="m: received 0"):
        data_quality(from_lists([[1, 2]]), [0])
