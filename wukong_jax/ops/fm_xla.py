"""The factorization machine for GPU and TPU by XLA: one projection for [Y | W ...], gradients in the products' type."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from wukong_jax.ops.products import product


def factorization_machine(
    x: Float[Array, "batch n d"],
    y: Float[Array, "n k"] | Float[Array, "batch n k"] | None,
    linear: Mapping[str, Float[Array, "n _"]],
    dtype: DTypeLike,
) -> tuple[Float[Array, "batch n k"], dict[str, Float[Array, "batch _ d"]]]:
    """FM(X), and W^T X for every W of `linear`; a shared Y is projected together with them."""
    if y is None:
        return product("bnd,bmd->bnm", dtype, x, x).astype(x.dtype), compress(x, linear, dtype)
    if y.ndim == 3:
        parts = compress(x, linear, dtype)
        projected = product("bnd,bnk->bkd", dtype, x, y).astype(x.dtype)
    else:
        parts = compress(x, {"": y, **linear}, dtype)
        projected = parts.pop("")
    return product("bnd,bkd->bnk", dtype, x, projected).astype(x.dtype), parts


def compress(
    x: Float[Array, "batch n d"], linear: Mapping[str, Float[Array, "n _"]], dtype: DTypeLike
) -> dict[str, Float[Array, "batch _ d"]]:
    """W^T X for every W, by one product with all of them side by side."""
    if not linear:
        return {}
    all_of_them = product("bnd,nm->bmd", dtype, x, jnp.concatenate(list(linear.values()), axis=1)).astype(x.dtype)
    return cut(all_of_them, linear)


def cut(
    together: Float[Array, "batch all_m d"], linear: Mapping[str, Float[Array, "n _"]]
) -> dict[str, Float[Array, "batch _ d"]]:
    """What each W gave, from the product with all of them side by side."""
    found: dict[str, jax.Array] = {}
    first = 0
    for name, weight in linear.items():
        found[name] = together[:, first : first + weight.shape[1]]
        first += weight.shape[1]
    return found
