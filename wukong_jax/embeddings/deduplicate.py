"""Equal ids of a batch merged into one row with the summed gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


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


def merge_by_sort(
    ids: Int[Array, "n"], gradients: Float[Array, "n width"], rows: int, *, scatter: bool | None = None
) -> MergedRows:
    """Merge by a stable sort, so that the result is the same every time.

    By default equal ids are summed with a `scatter` on CPU, which works in batch order, and elsewhere by a scan: on a
    GPU the terms of a scatter come in any order, the pairs of a scan are always the same.
    """
    count, order = ids.shape[0], jnp.arange(ids.shape[0], dtype=jnp.int32)
    by_id = jnp.argsort(ids, stable=True)
    sorted_ids, ordered = ids[by_id], gradients[by_id]
    first = jnp.concatenate([jnp.ones(1, bool), sorted_ids[1:] != sorted_ids[:-1]])
    segment = jnp.cumsum(first, dtype=jnp.int32) - 1
    if jax.default_backend() == "cpu" if scatter is None else scatter:
        sums = jax.ops.segment_sum(ordered, segment, count, indices_are_sorted=True)
    else:
        last = jnp.concatenate([first[1:], jnp.ones(1, bool)])
        place = jnp.where(last, segment, count + order)
        sums = jnp.zeros_like(gradients).at[place].set(_running_sums(ordered, first), mode="drop", unique_indices=True)
    unique = (rows + order).at[segment].set(jnp.where(sorted_ids < rows, sorted_ids, rows + segment))
    return MergedRows(unique, sums)


def _running_sums(values: Float[Array, "n width"], first: Bool[Array, "n"]) -> Float[Array, "n width"]:
    """Of each run of rows that begins where `first` is set, the sums up to every row."""

    def combine(left: Any, right: Any) -> Any:
        begins = left[0] | right[0]
        return begins, jnp.where(right[0][:, None], right[1], left[1] + right[1])

    sums: Array = jax.lax.associative_scan(combine, (first, values))[1]
    return sums
