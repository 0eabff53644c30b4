"""A seeded pseudo-random order of n rows of which any part can be had without the rest."""

import math

import numpy as np
from jaxtyping import Int

ROUNDS = 8
SMALLEST_SIDE = 4
_MULTIPLIER = 0x9E3779B97F4A7C15
_FINALIZER = 0xD6E8FEB86659FD93


def permuted_rows(positions: Int[np.ndarray, "n"], *, size: int, seed: int, epoch: int) -> Int[np.ndarray, "n"]:
    """Rows at the given positions of the permutation of range(size) that belongs to (seed, epoch).

    A Feistel network on a grid of a x b >= size cells, a and b near sqrt(size): position = l b + r, and in turn
    l <- (l + F(r)) mod a, r <- (r + F(l)) mod b, each of which can be undone, with F a keyed 64-bit hash. The
    results beyond the size are sent through again until they fall inside (cycle walking). Constant memory,
    integers only, the same on every machine.

    Args:
        positions: integers from 0 to size - 1, in any order.
        size: number of rows, 1 to 2^62.
        seed: 0 or more.
        epoch: 0 or more; each has an order of its own.

    >>> permuted_rows(np.arange(5), size=5, seed=0, epoch=0).tolist()
    [1, 3, 4, 2, 0]
    """
    keys = [int(key) for key in np.random.SeedSequence((seed, epoch)).generate_state(ROUNDS, np.uint64)]
    high = max(math.isqrt(size - 1) + 1, SMALLEST_SIDE)
    low = max(-(-size // high), SMALLEST_SIDE)
    rows = _feistel(positions.astype(np.uint64), high, low, keys)
    outside = np.flatnonzero(rows >= size)
    while len(outside):
        again = _feistel(rows[outside], high, low, keys)
        rows[outside] = again
        outside = outside[again >= size]
    return rows.astype(np.int64)


def _feistel(values: np.ndarray, high: int, low: int, keys: list[int]) -> np.ndarray:
    left = values // low
    right = values - left * low
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = _add(left, _hash(right, key, high), high)
        else:
            right = _add(right, _hash(left, key, low), low)
    return left * low + right


def _hash(values: np.ndarray, key: int, bound: int) -> np.ndarray:
    """Keyed hash to range(bound); `bound` and the values are below 2^32."""
    hashed = (values + np.uint64(key)) * _MULTIPLIER
    hashed ^= hashed >> 32
    hashed *= _FINALIZER
    hashed >>= 32
    hashed *= bound
    hashed >>= 32
    return hashed


def _add(first: np.ndarray, second: np.ndarray, modulus: int) -> np.ndarray:
    """Sum modulo `modulus` of numbers below it: the smaller of s and s - modulus, which wraps around if negative."""
    total = first + second
    return np.minimum(total, total - modulus)
