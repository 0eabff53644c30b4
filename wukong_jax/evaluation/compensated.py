"""Sums of many float32 numbers without loss: each is kept as a float and what it lost by rounding."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def add(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Sum of two numbers, each a float and its rounding error (Knuth's TwoSum, then renormalised)."""
    total = a[0] + b[0]
    shadow = total - a[0]
    error = (a[0] - (total - shadow)) + (b[0] - shadow) + (a[1] + b[1])
    high = total + error
    return high, error - (high - total)


def sum_rows(values: Float[Array, "rows columns"]) -> tuple[Array, Array]:
    """Compensated sum of each row, by a tree of sums over halves."""
    columns = 1 << (values.shape[1] - 1).bit_length()
    high = jnp.pad(values, ((0, 0), (0, columns - values.shape[1])))
    low = jnp.zeros_like(high)
    while high.shape[1] > 1:
        half = high.shape[1] // 2
        high, low = add((high[:, :half], low[:, :half]), (high[:, half:], low[:, half:]))
    return high[:, 0], low[:, 0]
