import numpy as np
import pytest

from wukong_jax.data.order import permuted_rows

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 97, 225, 1000, 1009, 1024, 4093, 65_536, 65_537, 99_991]


def whole(size: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return permuted_rows(np.arange(size), size=size, seed=seed, epoch=epoch)


@pytest.mark.parametrize("size", SIZES)
def test_every_row_comes_exactly_once(size):
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(whole(size, epoch=epoch)), np.arange(size))


def test_any_part_can_be_had_without_the_rest(rng):
    size = 10_007
    positions = rng.integers(0, size, 500)
    parts = np.concatenate([permuted_rows(np.array([p]), size=size, seed=3, epoch=5) for p in positions[:50]])
    rows = permuted_rows(positions, size=size, seed=3, epoch=5)
    np.testing.assert_array_equal(rows, whole(size, 3, 5)[positions])
    np.testing.assert_array_equal(rows[:50], parts)


def test_the_order_is_the_same_on_every_machine():
    # Written down once: another result would change every published run.
    assert whole(10, seed=1, epoch=2).tolist() == [5, 4, 0, 7, 2, 3, 1, 9, 8, 6]
    rows = permuted_rows(np.array([0, 1, 2**40]), size=2**41 + 1, seed=2**60, epoch=7)
    assert rows.tolist() == [752483784030, 816277195993, 1068238508130]


@pytest.mark.parametrize("size", [10**9 + 7, 2**41 + 1, 2**62 - 1])
def test_rows_of_a_very_large_store_stay_inside_and_apart(size, rng):
    positions = np.unique(np.concatenate([np.arange(50_000), rng.integers(0, size, 50_000), [size - 1]]))
    rows = permuted_rows(positions, size=size, seed=0, epoch=0)
    assert rows.min() >= 0
    assert rows.max() < size
    assert len(np.unique(rows)) == len(positions)
    assert abs(chi_square_z(np.histogram(rows / size, bins=100, range=(0, 1))[0])) < 4


def test_no_positions_give_no_rows():
    assert permuted_rows(np.arange(0), size=10, seed=0, epoch=0).shape == (0,)


@pytest.mark.parametrize("size", [1000, 1024])
def test_seeds_and_epochs_have_orders_of_their_own(size):
    orders = [whole(size, seed, epoch) for seed in range(4) for epoch in range(4)]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            # Two random permutations agree at one place on average, at more than eight with probability 1e-6.
            assert (first == second).sum() <= 8


@pytest.mark.parametrize("size", [3, 4])
def test_all_orders_of_few_rows_are_equally_frequent(size):
    draws = 600
    orders = [tuple(whole(size, seed=11, epoch=epoch).tolist()) for epoch in range(draws)]
    counts = np.unique(np.array(orders), axis=0, return_counts=True)[1]
    assert chi_square_z(np.pad(counts, (0, factorial(size) - len(counts)))) < 4


@pytest.mark.parametrize("size", [50, 64, 81])
def test_every_row_is_equally_frequent_at_every_position(size):
    orders = np.stack([whole(size, seed=12, epoch=epoch) for epoch in range(1000)])
    counts = np.stack([np.bincount(column, minlength=size) for column in orders.T])
    assert abs(chi_square_z(counts)) < 4


@pytest.mark.parametrize("size", [50, 64, 81, 100_003])
def test_neighbours_are_not_neighbours_afterwards(size):
    epochs = 500 if size < 1000 else 3
    orders = np.stack([whole(size, seed=13, epoch=epoch) for epoch in range(epochs)])
    steps = np.diff(orders, axis=1) % size
    assert abs(chi_square_z(np.bincount(steps.ravel(), minlength=size)[1:])) < 4


def test_a_part_of_an_epoch_is_spread_over_the_data():
    rows = permuted_rows(np.arange(100_000), size=10_000_019, seed=0, epoch=0)
    assert abs(chi_square_z(np.histogram(rows, bins=1000, range=(0, 10_000_019))[0])) < 4


def chi_square_z(counts: np.ndarray) -> float:
    """Standardised chi-square statistic of counts that are expected to be equal."""
    expected = counts.mean()
    degrees = counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees))


def factorial(size: int) -> int:
    return int(np.prod(np.arange(1, size + 1)))
