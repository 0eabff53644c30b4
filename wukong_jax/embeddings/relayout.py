"""Stacks from one layout to another: a checkpoint of other devices holds the same tables in other places."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from wukong_jax.embeddings.plan import EmbeddingPlan, Stack


def logical_rows(stack: Stack, stored: Shaped[Array, "stored_rows ..."]) -> Shaped[Array, "rows ..."]:
    """A stack's array with its rows in order, without the unused ones."""
    if stack.placement == "dealt_rows":
        dealt = stored.reshape(stack.devices, stack.device_rows, *stored.shape[1:])
        stored = dealt.swapaxes(0, 1).reshape(stored.shape)
    return stored[: stack.rows]


def stored_rows(stack: Stack, rows: Shaped[Array, "rows ..."]) -> Shaped[Array, "stored_rows ..."]:
    """Inverse of `logical_rows`; unused rows are zeros."""
    unused = [(0, stack.stored_rows - stack.rows)] + [(0, 0)] * (rows.ndim - 1)
    stored = jnp.pad(rows, unused)
    if stack.placement != "dealt_rows":
        return stored
    dealt = stored.reshape(stack.device_rows, stack.devices, *rows.shape[1:])
    return dealt.swapaxes(0, 1).reshape(stored.shape)


def regroup(
    old: EmbeddingPlan, new: EmbeddingPlan, arrays: Mapping[str, Shaped[Array, "..."]]
) -> dict[str, Shaped[Array, "..."]]:
    """Arrays by stack of one plan as those of another plan of the same tables, which may stack them otherwise."""
    rows = {stack.name: logical_rows(stack, arrays[stack.name]) for stack in old.stacks if stack.name in arrays}

    def of_table(name: str) -> jax.Array:
        stack, offset, count = old.table_rows(name)
        return rows[stack.name][offset : offset + count]

    return {
        stack.name: stored_rows(stack, jnp.concatenate([of_table(spec.name) for spec in stack.tables]))
        for stack in new.stacks
        if old.table_rows(stack.tables[0].name)[0].name in rows
    }


def regroup_looked_up(
    old: EmbeddingPlan, new: EmbeddingPlan, rows: Mapping[str, Shaped[Array, "batch _ _"]]
) -> dict[str, Shaped[Array, "batch _ _"]]:
    """Rows [batch, slots, width] that were looked up by one plan, by stack, as another plan has them."""

    def of_lookup(feature: str, table: str) -> jax.Array:
        lookup = old.lookup(feature, table)
        return rows[lookup.stack][:, lookup.first_slot : lookup.first_slot + len(lookup.columns)]

    return {
        stack.name: jnp.concatenate(
            [
                of_lookup(lookup.feature, lookup.table)
                for lookup in sorted(stack.lookups, key=lambda lookup: lookup.first_slot)
            ],
            axis=1,
        )
        for stack in new.stacks
    }
