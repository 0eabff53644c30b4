"""The factorization machine for XLA:CPU: every product in one of the two forms that run fast there.

These are a 2-D product with shared weights, and a batched product that contracts the last axis with the next-to-last.
So X^T is copied once, and optimization barriers keep the copy (`CPU_COMPILER_OPTIONS` keeps the barriers). Unlike on
an accelerator, Y and the W's are projected apart: cutting one product's result along its last axis costs more.

All in float32: XLA:CPU has no batched product of bfloat16 with a float32 sum.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from wukong_jax.ops.fm_xla import cut

# (X X^T) Y is taken up to this many times the FLOPs of X (X^T Y): it needs no transposed copies.
PAIRS_FIRST_RATIO = 1.25

kept = jax.lax.optimization_barrier


def pairs_first(n: int, d: int, k: int) -> bool:
    """Whether (X X^T) Y is the faster order: where its n^2 (d + k) products are at most 1.25 x the 2 n d k."""
    return n * (d + k) <= PAIRS_FIRST_RATIO * 2 * d * k


def factorization_machine(
    x: Float[Array, "batch n d"],
    y: Float[Array, "n k"] | Float[Array, "batch n k"] | None,
    linear: Mapping[str, Float[Array, "n _"]],
    dtype: DTypeLike,
) -> tuple[Float[Array, "batch n k"], dict[str, Float[Array, "batch _ d"]]]:
    """FM(X), and W^T X for every W of `linear`; `dtype` rounds the operands, as it does elsewhere."""
    wide_x = _rounded(x, dtype)
    transposed = _transposed(wide_x)
    if y is None:
        interactions = _gram(wide_x)
    elif pairs_first(x.shape[1], x.shape[2], y.shape[-1]):
        pairs = _gram(wide_x)  # symmetric: its own transposed copy
        own = _rounded(y, dtype)
        interactions = _mix(pairs, own) if y.ndim == 2 else _batched(pairs, pairs, own)
    else:
        own = _rounded(y, dtype)
        projected = _mix(transposed, own) if y.ndim == 2 else _batched(transposed, wide_x, own)
        interactions = _batched(wide_x, transposed, projected)
    return interactions.astype(x.dtype), _compress(transposed, linear, dtype, x.dtype)


def compress(
    x: Float[Array, "batch n d"], linear: Mapping[str, Float[Array, "n _"]], dtype: DTypeLike
) -> dict[str, Float[Array, "batch _ d"]]:
    """W^T X for every W."""
    return _compress(_transposed(_rounded(x, dtype)), linear, dtype, x.dtype)


def _compress(
    transposed: jax.Array, linear: Mapping[str, jax.Array], dtype: DTypeLike, out_dtype: DTypeLike
) -> dict[str, jax.Array]:
    if not linear:
        return {}
    weights = jnp.concatenate(list(linear.values()), axis=1)
    return cut(_transposed(_mix(transposed, _rounded(weights, dtype))).astype(out_dtype), linear)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _rounded(values: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Rounded to `dtype`, in float32 at least; its gradient, a float32 sum, is not rounded."""
    return values.astype(dtype).astype(jnp.promote_types(dtype, jnp.float32))


_rounded.defvjp(
    # the empty array carries the type of the values
    lambda values, dtype: (_rounded(values, dtype), jnp.zeros(0, values.dtype)),
    lambda _, like, gradient: (gradient.astype(like.dtype),),
)


@jax.custom_vjp
def _transposed(x: Float[Array, "batch a b"]) -> Float[Array, "batch b a"]:
    """A real copy, so that the products that read it find it in order."""
    return _kept_in_order(x.swapaxes(1, 2))


_transposed.defvjp(lambda x: (_transposed(x), None), lambda _, gradient: (kept(gradient).swapaxes(1, 2),))


def _kept_in_order(x: Float[Array, "batch a b"]) -> Float[Array, "batch a b"]:
    """A barrier on the 2-D form: of a 3-D array XLA would only note another order of its axes, and copy it later."""
    return kept(x.reshape(-1, x.shape[2])).reshape(x.shape)


@jax.custom_vjp
def _mix(x: Float[Array, "batch a b"], weights: Float[Array, "b m"]) -> Float[Array, "batch a m"]:
    """X W for every example as one 2-D product."""
    return kept(x.reshape(-1, x.shape[2]) @ weights).reshape(*x.shape[:2], -1)


def _mix_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weights = saved
    rows = kept(gradient).reshape(-1, weights.shape[1])
    return kept(rows @ weights.T).reshape(x.shape), x.reshape(-1, x.shape[2]).T @ rows


_mix.defvjp(lambda x, weights: (_mix(x, weights), (x, weights)), _mix_backward)


@jax.custom_vjp
def _batched(
    left: Float[Array, "batch a b"], left_transposed: Float[Array, "batch b a"], right: Float[Array, "batch b c"]
) -> Float[Array, "batch a c"]:
    """Example by example left @ right; `left_transposed`, the same array as a copy, serves the gradient."""
    return kept(left @ right)


def _batched_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    left_transposed, right = saved
    gradient = kept(gradient)
    to_left = kept(gradient @ _kept_in_order(right.swapaxes(1, 2)))
    return to_left, jnp.zeros_like(left_transposed), kept(left_transposed @ gradient)


_batched.defvjp(
    lambda left, left_transposed, right: (_batched(left, left_transposed, right), (left_transposed, right)),
    _batched_backward,
)


@jax.custom_vjp
def _gram(x: Float[Array, "batch n d"]) -> Float[Array, "batch n n"]:
    """X X^T for every example."""
    return kept(x @ x.swapaxes(1, 2))


_gram.defvjp(lambda x: (_gram(x), x), lambda x, gradient: (kept(kept(gradient + gradient.swapaxes(1, 2)) @ x),))
