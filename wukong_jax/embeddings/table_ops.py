"""What a step does with a stack of tables: gather rows, sum gradients, update touched rows. Here on one device."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wukong_jax.embeddings.deduplicate import MergedRows, merge_by_slot, merge_by_sort
from wukong_jax.embeddings.lookup import gather_rows, stack_ids
from wukong_jax.embeddings.optimizers import Slots, update_rows
from wukong_jax.embeddings.plan import Stack


class Rows(NamedTuple):
    """All that is kept of a row-sparse stack."""

    table: jax.Array
    slots: Slots
    scratch: jax.Array | None
    """Work space of the slot de-duplication; None where equal ids are merged by sort."""


class Touched(NamedTuple):
    """What a batch, worked off in parts, says of a stack."""

    ids: Int[Array, "parts examples id_columns"]
    gradients: Float[Array, "parts examples slots width"]


@runtime_checkable  # so that annotations can be checked in tests
class TableOps(Protocol):
    """The operations on stacks; their arrays are laid out as the stack's placement says."""

    def gather(
        self, stack: Stack, table: Float[Array, "rows width"], ids: Int[Array, "examples id_columns"]
    ) -> Float[Array, "examples slots width"]:
        """The stack's rows that each example reads, zeros for unused places."""

    def add_gradients(
        self, stack: Stack, gradient: Float[Array, "rows width"], touched: Touched
    ) -> tuple[Float[Array, "rows width"], Int[Array, ""] | None]:
        """A densely updated table's gradient with those of its gathered rows added; and the count of `update`."""

    def update(
        self, stack: Stack, rows: Rows, touched: Touched, rate: Float[Array, ""], step: Int[Array, ""]
    ) -> tuple[Rows, Int[Array, ""] | None]:
        """One step of the optimizer on the touched rows; and how many of them needed further rounds of exchange."""

    def squares(
        self, stack: Stack, rows: Rows, touched: Touched, rate: Float[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, "3 tables"]:
        """Sums of squares by table over the touched rows: of gradient, change by this step, and values before."""


class OneDevice:
    """Stacks that lie whole on one device."""

    def gather(
        self, stack: Stack, table: Float[Array, "rows width"], ids: Int[Array, "examples id_columns"]
    ) -> Float[Array, "examples slots width"]:
        """As `TableOps.gather`."""
        return gather_rows(stack, table, ids)

    def add_gradients(
        self, stack: Stack, gradient: Float[Array, "rows width"], touched: Touched
    ) -> tuple[Float[Array, "rows width"], Int[Array, ""] | None]:
        """As `TableOps.add_gradients`; nothing is exchanged."""
        return gradient.at[flat_ids(stack, touched.ids)].add(flat_rows(touched.gradients), mode="drop"), None

    def update(
        self, stack: Stack, rows: Rows, touched: Touched, rate: Float[Array, ""], step: Int[Array, ""]
    ) -> tuple[Rows, Int[Array, ""] | None]:
        """As `TableOps.update`; nothing is exchanged."""
        merged, scratch = merge(flat_ids(stack, touched.ids), flat_rows(touched.gradients), rows.scratch, stack.rows)
        table, slots = update_rows(rows.table, rows.slots, merged, stack.rule, rate, step)
        return Rows(table, slots, scratch), None

    def squares(
        self, stack: Stack, rows: Rows, touched: Touched, rate: Float[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, "3 tables"]:
        """As `TableOps.squares`."""
        merged = merge_by_sort(flat_ids(stack, touched.ids), flat_rows(touched.gradients), stack.rows)
        return row_squares(stack, rows.table, rows.slots, merged, merged.ids, rate, step)


ONE_DEVICE = OneDevice()


def flat_ids(stack: Stack, ids: Int[Array, "parts examples id_columns"]) -> Int[Array, "places"]:
    """The stack's row at every place of a batch; unused places are `stack.rows`."""
    return stack_ids(stack, ids.reshape(-1, ids.shape[-1])).reshape(-1)


def flat_rows(rows: Float[Array, "*places width"]) -> Float[Array, "places width"]:
    """One row a place, in the order of `flat_ids`."""
    return rows.reshape(-1, rows.shape[-1])


def merge(
    ids: Int[Array, "n"], gradients: Float[Array, "n width"], scratch: Int[Array, "rows"] | None, rows: int
) -> tuple[MergedRows, Int[Array, "rows"] | None]:
    """Merge equal ids, by slot where there is work space for it, else by sort."""
    if scratch is None:
        return merge_by_sort(ids, gradients, rows), None
    return merge_by_slot(ids, gradients, scratch)


def row_squares(
    stack: Stack,
    table: Float[Array, "rows width"],
    slots: Slots,
    merged: MergedRows,
    stack_rows: Int[Array, "n"],
    rate: Float[Array, ""],
    step: Int[Array, ""],
    column_axes: tuple[str, ...] = (),
) -> Float[Array, "3 tables"]:
    """`TableOps.squares` of merged rows of one block, which stand at `stack_rows` in the stack (its end for none).

    The touched rows, copied into a small table, are updated there as the training step does in the large one.
    """
    old = table.at[merged.ids].get(mode="fill", fill_value=0)
    old_slots = {name: slot.at[merged.ids].get(mode="fill", fill_value=0) for name, slot in slots.items()}
    places = merged._replace(ids=jnp.arange(len(merged.ids), dtype=merged.ids.dtype))
    new, _ = update_rows(old, old_slots, places, stack.rule, rate, step, column_axes)
    number = jnp.searchsorted(jnp.asarray((*stack.offsets[1:], stack.rows)), stack_rows, side="right")
    count = len(stack.tables)
    change = new.astype(jnp.float32) - old.astype(jnp.float32)
    sums = (
        jax.ops.segment_sum(jnp.square(array.astype(jnp.float32)).sum(axis=-1), number, count + 1)
        for array in (merged.gradients, change, old)
    )
    return jnp.stack([total[:count] for total in sums])  # the last sum is that of the places without a row
