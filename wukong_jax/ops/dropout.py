"""Dropout whose mask is a hash of position and key: a few integer operations a value, where threefry takes hundreds."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32


def dropout(x: Float[Array, "*shape"], rate: float, key: jax.Array) -> Float[Array, "*shape"]:
    """Each value with probability `rate` replaced by 0, the others divided by 1 - rate."""
    if rate >= 1:
        return jnp.zeros_like(x)
    return jnp.where(keep_mask(key, x.shape, 1 - rate), x / (1 - rate), 0).astype(x.dtype)


def keep_mask(key: jax.Array, shape: tuple[int, ...], keep: float) -> Bool[Array, "..."]:
    """True with probability `keep` for each position, by two rounds of a 32-bit mixing function and the key's words.

    Good for dropout, not for cryptography or for Monte Carlo: neighbouring positions and keys are uncorrelated, which
    is all that a mask needs.
    """
    words = jax.random.key_data(key).reshape(-1)
    position = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):  # not a reshaped iota: an array spread over devices stays so
        position = position + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride % 2**32)
        stride *= shape[axis]
    mixed = _mix(_mix(position * np.uint32(0x9E3779B9) + words[0]) ^ words[-1])
    return mixed < np.uint32(min(round(keep * 2**32), 2**32 - 1))


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Every bit of the result depends on every bit of x, one to one."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
