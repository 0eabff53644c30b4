"""Matrix products in a chosen type, summed in float32, whose gradients are products of that type too."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def product(
    subscripts: str, dtype: DTypeLike, left: Float[Array, "..."], right: Float[Array, "..."]
) -> Float[Array, "..."]:
    """einsum(subscripts, left, right) with operands cast to `dtype`, summed and returned in float32 (or float64).

    The incoming gradient is cast to `dtype` as well. Plain autodiff of a bfloat16 product that gives float32 would
    compute both gradients in float32, at a fraction of the speed.
    """
    return _einsum(subscripts, dtype, left, right)


def _forward(
    subscripts: str, dtype: DTypeLike, left: jax.Array, right: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(subscripts, dtype, left, right), (left, right)


def _backward(
    subscripts: str, dtype: DTypeLike, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    left, right = saved
    operands, out = subscripts.split("->")
    a, b = operands.split(",")
    to_left = _einsum(f"{out},{b}->{a}", dtype, gradient, right).astype(left.dtype)
    return to_left, _einsum(f"{a},{out}->{b}", dtype, left, gradient).astype(right.dtype)


product.defvjp(_forward, _backward)


def _einsum(subscripts: str, dtype: DTypeLike, left: jax.Array, right: jax.Array) -> jax.Array:
    wide = jnp.promote_types(dtype, jnp.float32)
    return jnp.einsum(subscripts, left.astype(dtype), right.astype(dtype), preferred_element_type=wide)
