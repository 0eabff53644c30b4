"""Shannon entropy, compression and repeats on cases whose values are known."""

import math
import zlib

import numpy as np
import pytest

from wukong_jax.performance_law.regularity import compression_ratio, repeats, shannon_entropy
from wukong_jax.sequential.sequences import from_lists


@pytest.mark.parametrize(
    ("items", "bits"), [([5], 0), ([5, 5, 5], 0), ([0, 9], 1), ([1, 1, 2, 3], 1.5), (list(range(64)), 6)]
)
def test_shannon_entropy_is_in_bits(items, bits):
    found = shannon_entropy(np.array(items))
    assert found == pytest.approx(bits)
    assert math.copysign(1, found) == 1


def test_compression_is_of_four_byte_numbers(rng):
    items = rng.integers(0, 1000, 5000).astype(np.int32)
    content = b"".join(int(item).to_bytes(4, "little") for item in items)
    assert compression_ratio(items) == len(zlib.compress(content)) / 20_000
    assert compression_ratio(np.zeros(5000, np.int32)) < 0.01


def test_nothing_has_neither():
    assert math.isnan(shannon_entropy(np.array([], np.int32)))
    assert math.isnan(compression_ratio(np.array([], np.int32)))


def test_repeats_are_of_the_same_user(rng):
    lists = [[1, 2, 1, 1], [1, 2], [], [3, 3]]
    assert repeats(from_lists(lists)).tolist() == [False, False, True, True, False, False, False, True]
    lists = [rng.integers(0, 9, 12).tolist() for _ in range(20)]
    expected = [item in one[:place] for one in lists for place, item in enumerate(one)]
    assert repeats(from_lists(lists)).tolist() == expected
