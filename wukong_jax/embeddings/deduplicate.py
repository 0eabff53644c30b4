"""Equal ids of a batch merged into one row with the summed gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class MergedRows(NamedTuple):
    """Touched rows once each. Places that hold no row have ids past the end of the table, all different."""

    ids: Int[Array, "n"]
    gradients: Float[Array, "n width"]


def merge_by_slot(
    ids: Int[Array, "n"], gradients: Float[Array, "n width"], scratch: Int[Array, "rows"]
) -> tuple[MergedRows, Int[Array, "rows"]]:
    """Merge without a sort: each row's last writer into `scratch` represents it. Fast on CPU.

    `scratch` needs no clearing between steps: only entries written in this step are read. Ids past the end are left
    out. Which duplicate represents a row is not specified; only the order of summation depends on it.
    """
    rows, order = scratch.shape[0], jnp.arange(ids.shape[0], dtype=jnp.int32)
    scratch = scratch.at[ids].set(order, mode="drop")
    representative = scratch.at[ids].get(mode="fill", fill_value=ids.shape[0])
    sums = jnp.zeros_like(gradients).at[representative].add(gradients, mode="drop")
    return MergedRows(jnp.where(representative == order, ids, rows + order), sums), scratch


def merge_by_sort(ids: Int[Array, "n"], gradients: Float[Array, "n width"], rows: int) -> MergedRows:
    """Merge by a stable sort: gradients of one row are summed in batch order, so the result is deterministic."""
    count, order = ids.shape[0], jnp.arange(ids.shape[0], dtype=jnp.int32)
    by_id = jnp.argsort(ids, stable=True)
    sorted_ids = ids[by_id]
    first = jnp.concatenate([jnp.ones(1, bool), sorted_ids[1:] != sorted_ids[:-1]])
    segment = jnp.cumsum(first, dtype=jnp.int32) - 1
    sums = jax.ops.segment_sum(gradients[by_id], segment, count, indices_are_sorted=True)
    unique = (rows + order).at[segment].set(jnp.where(sorted_ids < rows, sorted_ids, rows + segment))
    return MergedRows(unique, sums)
