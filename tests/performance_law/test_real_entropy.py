"""Real entropy: Lambda_i against a search through the prefix, closed forms, and a published figure."""

import math

import numpy as np
import pytest

from wukong_jax.performance_law.real_entropy import real_entropy, shortest_new


def by_search(sequence):
    """Shortest substring from i on that is nowhere within sequence[:i]; one more than is left where all of it is."""
    found = []
    for i in range(len(sequence)):
        k = 1
        while i + k <= len(sequence) and any(sequence[p : p + k] == sequence[i : i + k] for p in range(i - k + 1)):
            k += 1
        found.append(k)
    return found


def sequences_of_all_kinds():
    rng = np.random.default_rng(5)
    for symbols in (1, 2, 3, 8, 500):
        for size in (1, 2, 3, 5, 17, 64, 150):
            yield rng.integers(0, symbols, size)
    for period in (2, 3, 5, 7):
        yield np.tile(rng.integers(0, 3, period), 15)
    once = rng.integers(0, 20, 60)
    yield np.concatenate([once, once])
    yield np.concatenate([once, [99], once, once[:7]])
    yield rng.integers(-(2**40), 2**40, 30)


@pytest.mark.parametrize(
    "sequence", list(sequences_of_all_kinds()), ids=lambda one: f"{len(set(one.tolist()))}of{len(one)}"
)
def test_lambda_equals_a_search_through_the_prefix(sequence):
    assert shortest_new(sequence).tolist() == by_search(sequence.tolist())


def test_many_small_sequences_equal_the_search():
    rng = np.random.default_rng(6)
    for _ in range(400):
        sequence = rng.integers(0, rng.integers(1, 4), rng.integers(1, 25))
        assert shortest_new(sequence).tolist() == by_search(sequence.tolist())


def test_a_word_by_hand():
    """a b a b a: nothing before; b new; then `aba` (ab is there, aba is not); `ba` + 1; `a` + 1."""
    assert shortest_new(np.array([0, 1, 0, 1, 0])).tolist() == [1, 1, 3, 3, 2]


@pytest.mark.parametrize("size", [1000, 100_000])
def test_one_symbol_is_seen_as_far_as_the_prefix_or_the_rest_goes(size):
    """Takes O(n log n): the square of 100,000 would not end."""
    position = np.arange(size)
    expected = np.minimum(position, size - position) + 1
    assert shortest_new(np.zeros(size, np.int32)).tolist() == expected.tolist()
    assert real_entropy(np.zeros(size, np.int32)) == pytest.approx(math.log(size) / expected.mean())


def test_distinct_items_have_the_largest_entropy():
    assert real_entropy(np.arange(500)) == pytest.approx(math.log(500))


def test_sequences_said_twice_are_seen_to_the_end():
    once = np.arange(20_000)
    found = shortest_new(np.concatenate([once, once]))
    assert found[:20_000].tolist() == [1] * 20_000
    assert found[20_000:].tolist() == list(range(20_001, 1, -1))


def test_one_item_has_none_and_nothing_is_undefined():
    assert real_entropy(np.array([3])) == 0
    assert math.isnan(real_entropy(np.array([], np.int32)))


def test_it_tends_to_the_entropy_rate_of_independent_draws():
    sequence = np.random.default_rng(0).integers(0, 2, 200_000)
    assert real_entropy(sequence) == pytest.approx(math.log(2), rel=0.02)


def test_the_figure_of_movielens_100k(shared_data, tmp_path):
    from wukong_jax.sequential.datasets import load_sequences

    sequences = load_sequences("movielens_100k", shared_data / "ml-100k", tmp_path).by_start().last(200)
    assert sequences.num_events == 85_678
    assert real_entropy(sequences.items) == pytest.approx(5.1120, abs=5e-5)
