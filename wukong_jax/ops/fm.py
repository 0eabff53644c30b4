"""Factorization machines over embeddings: all pairwise dot products, whole or projected to low rank."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def full_fm(x: Float[Array, "batch n d"]) -> Float[Array, "batch n n"]:
    """FM(X) = X X^T (paper, section 3.4)."""
    return jnp.einsum("bnd,bmd->bnm", x, x)


def low_rank_fm(x: Float[Array, "batch n d"], y: Float[Array, "n k"]) -> Float[Array, "batch n k"]:
    """FM(X) = X (X^T Y) with one Y for all examples, in O(n k d) and without an n x n array (paper, section 3.6)."""
    return jnp.einsum("bnd,bdk->bnk", x, jnp.einsum("bnd,nk->bdk", x, y))


def attentive_fm(x: Float[Array, "batch n d"], y: Float[Array, "batch n k"]) -> Float[Array, "batch n k"]:
    """FM(X) = X (X^T Y) with a Y of its own for each example (paper, section 3.6)."""
    return jnp.einsum("bnd,bdk->bnk", x, jnp.einsum("bnd,bnk->bdk", x, y))
