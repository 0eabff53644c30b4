"""From ids to rows, and from rows to the arrays that a model reads."""

from collections.abc import Mapping, Sequence

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wukong_jax.embeddings.plan import EmbeddingPlan, Stack
from wukong_jax.errors import ConfigError


def stack_ids(stack: Stack, ids: Int[Array, "batch id_columns"]) -> Int[Array, "batch slots"]:
    """Rows of the stack that each example reads; unused places become `stack.rows`, one past the end."""
    columns = np.concatenate([lookup.columns for lookup in stack.lookups]).astype(np.int32)
    offsets = np.concatenate([np.full(len(lookup.columns), lookup.row_offset) for lookup in stack.lookups])
    local = jnp.asarray(ids)[:, columns] if not _is_prefix(columns) else jnp.asarray(ids)[:, : len(columns)]
    return jnp.where(local < 0, stack.rows, local + offsets.astype(np.int32))


def gather_rows(
    stack: Stack, table: Float[Array, "rows width"], ids: Int[Array, "batch id_columns"]
) -> Float[Array, "batch slots width"]:
    """The stack's rows that each example reads, zeros for unused places."""
    rows = table.at[stack_ids(stack, ids)]
    if any(lookup.combiner for lookup in stack.lookups):
        return rows.get(mode="fill", fill_value=0)
    return rows.get(mode="clip")  # every place is used; to choose between row and zero would cost as much as to copy


@flax.struct.dataclass
class Inputs:
    """What a model maps to logits: gathered rows by stack, ids, numeric values and vectors of one batch."""

    rows: Mapping[str, Float[Array, "batch slots width"]]
    tables: Mapping[str, Float[Array, "rows width"]]
    """Densely updated stacks, whole."""
    ids: Int[Array, "batch id_columns"]
    numeric: Float[Array, "batch numeric"]
    vectors: Float[Array, "batch vector_columns"]
    plan: EmbeddingPlan = flax.struct.field(pytree_node=False)

    def embedding(self, feature: str, table: str) -> Float[Array, "batch width"]:
        """The row of a one-hot feature, or the pooled rows of a multi-hot one."""
        lookup = self.plan.lookup(feature, table)
        first, length = lookup.first_slot, len(lookup.columns)
        rows = self.rows[lookup.stack][:, first : first + length]
        if lookup.combiner is None:
            return rows[:, 0]
        total = rows.sum(axis=1)
        if lookup.combiner == "sum":
            return total
        used = (self.ids[:, lookup.columns[0] : lookup.columns[-1] + 1] >= 0).sum(axis=1, keepdims=True)
        return total / jnp.maximum(used, 1).astype(total.dtype)

    def embeddings(self, lookups: Sequence[tuple[str, str]]) -> Float[Array, "batch n width"]:
        """The embeddings of several (feature, table) pairs of one width, in that order.

        Where they lie side by side in one stack, as they do for one-hot features, this is a slice and copies nothing.
        """
        found = [self.plan.lookup(feature, table) for feature, table in lookups]
        first = found[0]
        one_hot = all(lookup.combiner is None and lookup.stack == first.stack for lookup in found)
        if one_hot and [lookup.first_slot for lookup in found] == list(
            range(first.first_slot, first.first_slot + len(found))
        ):
            return self.rows[first.stack][:, first.first_slot : first.first_slot + len(found)]
        return jnp.stack([self.embedding(feature, table) for feature, table in lookups], axis=1)

    def table(self, name: str) -> Float[Array, "rows width"]:
        """A whole, densely updated table (a softmax over all items needs it); raises `ConfigError` if row-sparse."""
        stack, offset, rows = self.plan.table_rows(name)
        if stack.name not in self.tables:
            raise ConfigError(
                f"table {name!r} is updated row by row and cannot be passed whole; "
                f"put TableRule('^{name}$', update='dense', name='adam') first in tables.rules"
            )
        return self.tables[stack.name][offset : offset + rows]


def _is_prefix(columns: np.ndarray) -> bool:
    return bool(np.array_equal(columns, np.arange(len(columns))))
