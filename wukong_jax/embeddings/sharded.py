"""The operations on stacks that lie on several devices: by rows, by columns, or whole on each of them.

Batches are split over all devices of the mesh; nothing of a table's size travels, but for the gradient of a replicated
stack that is smaller than what a batch touches. Equal ids are merged by sort: XLA would copy the work space that the
other way takes, for the loop over rounds.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from wukong_jax.config.mesh import MeshConfig
from wukong_jax.embeddings.deduplicate import MergedRows, merge_by_sort
from wukong_jax.embeddings.exchange import Wire, fetch, request, room_for, send_back
from wukong_jax.embeddings.lookup import gather_rows
from wukong_jax.embeddings.optimizers import update_rows
from wukong_jax.embeddings.plan import Stack
from wukong_jax.embeddings.table_ops import Rows, Touched, flat_ids, flat_rows, row_squares


def table_spec(stack: Stack, axes: tuple[str, ...], dimensions: int = 2) -> PartitionSpec:
    """How the stack's table lies on the mesh, or an array of as many `dimensions` beside it (a slot, work space)."""
    if stack.split_by_rows:
        return PartitionSpec(axes)
    if stack.placement == "columns" and dimensions == 2:
        return PartitionSpec(None, axes)
    return PartitionSpec()


def stored_ids(stack: Stack, ids: Int[Array, "places"]) -> Int[Array, "places"]:
    """Rows of the stored array, of rows of the stack; those past the end stay so."""
    if not stack.split_by_rows:
        return ids
    owner, own = ids % stack.devices, ids // stack.devices
    stored = owner * stack.device_rows + own if stack.placement == "dealt_rows" else ids
    return jnp.where(ids < stack.rows, stored, stack.stored_rows)


class OverMesh:
    """Stacks on the devices of a mesh, each laid out as its placement says."""

    def __init__(self, mesh: Mesh, config: MeshConfig) -> None:
        """Operations over all axes of `mesh`."""
        self._mesh, self._config = mesh, config
        self._axes = tuple(mesh.axis_names)

    def gather(
        self, stack: Stack, table: Float[Array, "rows width"], ids: Int[Array, "examples id_columns"]
    ) -> Float[Array, "examples slots width"]:
        """As `TableOps.gather`."""

        def local(table: jax.Array, ids: jax.Array) -> jax.Array:
            if stack.placement == "replicated":
                return gather_rows(stack, table, ids)
            places = flat_ids(stack, ids[None])
            if stack.placement == "columns":
                everyone = jax.lax.all_gather(places, self._axes, tiled=True)
                columns = self._sent(table.at[everyone].get(mode="fill", fill_value=0))
                # [devices that ask, places, own columns] to [places, columns of all]
                rows = jax.lax.all_to_all(columns, self._axes, 0, 1, tiled=True).astype(table.dtype)
            else:
                wire = self._wire(stack, len(places))
                rows = fetch(table, request(stored_ids(stack, places), wire), wire)
            return rows.reshape(len(ids), stack.slots, stack.width)

        return self._on_each(local, (self._spec(stack), self._batch), self._batch)(table, ids)

    def add_gradients(
        self, stack: Stack, gradient: Float[Array, "rows width"], touched: Touched
    ) -> tuple[Float[Array, "rows width"], Int[Array, ""] | None]:
        """As `TableOps.add_gradients`."""

        def local(gradient: jax.Array, touched: Touched) -> tuple[jax.Array, jax.Array]:
            if stack.placement == "replicated":
                zeros = jnp.zeros_like(gradient)
                own = zeros.at[flat_ids(stack, touched.ids)].add(flat_rows(touched.gradients), mode="drop")
                return gradient + jax.lax.psum(own, self._axes), jnp.int32(0)
            add = lambda ids, rows, gradient: gradient.at[ids].add(rows, mode="drop")  # noqa: E731
            return self._to_owners(stack, touched, add, gradient)

        specs, out = (self._spec(stack), self._parts), (self._spec(stack), PartitionSpec())
        total, excess = self._on_each(local, specs, out)(gradient, touched)
        return total, excess if stack.split_by_rows else None

    def update(
        self, stack: Stack, rows: Rows, touched: Touched, rate: Float[Array, ""], step: Int[Array, ""]
    ) -> tuple[Rows, Int[Array, ""] | None]:
        """As `TableOps.update`."""

        def local(rows: Rows, touched: Touched, rate: jax.Array, step: jax.Array) -> tuple[Rows, jax.Array]:
            def take(merged: MergedRows, carry: Rows) -> Rows:
                axes = self._column_axes(stack)
                return Rows(*update_rows(carry.table, carry.slots, merged, stack.rule, rate, step, axes), None)

            return self._visit(stack, touched, take, rows)

        everywhere = PartitionSpec()
        specs = (self._rows_spec(stack, rows), self._parts, everywhere, everywhere)
        out = (self._rows_spec(stack, rows), everywhere)
        new, excess = self._on_each(local, specs, out)(rows, touched, rate, step)
        return new, excess if stack.split_by_rows else None

    def squares(
        self, stack: Stack, rows: Rows, touched: Touched, rate: Float[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, "3 tables"]:
        """As `TableOps.squares`."""

        def local(rows: Rows, touched: Touched, rate: jax.Array, step: jax.Array) -> jax.Array:
            def take(merged: MergedRows, carry: jax.Array) -> jax.Array:
                where = self._stack_rows(stack, merged.ids)
                axes = self._column_axes(stack)
                return carry + row_squares(stack, rows.table, rows.slots, merged, where, rate, step, axes)

            zeros = jnp.zeros((3, len(stack.tables)))
            sums, _ = self._visit(stack, touched, take, zeros)
            return sums if stack.placement == "replicated" else jax.lax.psum(sums, self._axes)

        everywhere = PartitionSpec()
        specs = (self._rows_spec(stack, rows), self._parts, everywhere, everywhere)
        return self._on_each(local, specs, everywhere)(rows, touched, rate, step)

    def _visit(self, stack: Stack, touched: Touched, take: Any, carry: Any) -> tuple[Any, jax.Array]:
        """Call `take` with the merged touched rows of this device's block, maybe several times; and the excess."""
        places = touched.gradients.shape[0] * touched.gradients.shape[1] * stack.slots * self._mesh.size
        if stack.placement == "replicated" and stack.rows <= places:
            return take(self._all_reduced(stack, touched), carry), jnp.int32(0)
        merged = lambda ids, gradients, carry: take(merge_by_sort(ids, gradients, stack.device_rows), carry)  # noqa: E731
        return self._to_owners(stack, touched, merged, carry)

    def _to_owners(self, stack: Stack, touched: Touched, take: Any, carry: Any) -> tuple[Any, jax.Array]:
        """Call `take` with rows of this device's block, duplicates among them, their gradients, and the carry."""
        ids, gradients = flat_ids(stack, touched.ids), flat_rows(touched.gradients)
        if stack.split_by_rows:
            wire = self._wire(stack, len(ids))
            requests = request(stored_ids(stack, ids), wire)
            return send_back(gradients, requests, wire, take, carry), requests.excess
        everyone = jax.lax.all_gather(ids, self._axes, tiled=True)
        if stack.placement == "columns":
            # [own places, columns of all] to [places of all, own columns]
            received = jax.lax.all_to_all(self._sent(gradients), self._axes, 1, 0, tiled=True)
        else:
            received = jax.lax.all_gather(self._sent(gradients), self._axes, tiled=True)
        return take(everyone, received.astype(gradients.dtype), carry), jnp.int32(0)

    def _all_reduced(self, stack: Stack, touched: Touched) -> MergedRows:
        """Every row of a small stack with its gradient from all devices; those that none touched count as no row."""
        ids, gradients = flat_ids(stack, touched.ids), flat_rows(touched.gradients)
        used = jnp.ones((len(ids), 1), gradients.dtype)
        sums = jnp.zeros((stack.rows, stack.width + 1), gradients.dtype)
        own = sums.at[ids].add(jnp.concatenate([gradients, used], axis=1), mode="drop")
        sums = jax.lax.psum(own, self._axes)
        order = jnp.arange(stack.rows, dtype=jnp.int32)
        return MergedRows(jnp.where(sums[:, -1] > 0, order, stack.rows + order), sums[:, :-1])

    def _stack_rows(self, stack: Stack, own: jax.Array) -> jax.Array:
        """Rows of the stack, of rows of this device's block; the stack's end for none."""
        device, inside = jax.lax.axis_index(self._axes), own < stack.device_rows
        if stack.placement == "rows":
            own = device * stack.device_rows + own
        elif stack.placement == "dealt_rows":
            own = own * stack.devices + device
        return jnp.where(inside, own, stack.rows)

    def _wire(self, stack: Stack, places: int) -> Wire:
        room = room_for(places, stack.devices, self._config.exchange_capacity)
        return Wire(self._axes, stack.devices, stack.device_rows, room, self._wire_dtype)

    @property
    def _wire_dtype(self) -> Any:
        return jnp.bfloat16 if self._config.exchange_dtype == "bfloat16" else None

    def _sent(self, rows: jax.Array) -> jax.Array:
        return rows if self._wire_dtype is None else rows.astype(self._wire_dtype)

    def _column_axes(self, stack: Stack) -> tuple[str, ...]:
        return self._axes if stack.placement == "columns" else ()

    @property
    def _batch(self) -> PartitionSpec:
        return PartitionSpec(self._axes)

    @property
    def _parts(self) -> Any:
        spec: Any = PartitionSpec(None, self._axes)
        return Touched(spec, spec)

    def _spec(self, stack: Stack, dimensions: int = 2) -> PartitionSpec:
        return table_spec(stack, self._axes, dimensions)

    def _rows_spec(self, stack: Stack, rows: Rows) -> Any:
        return jax.tree.map(lambda array: self._spec(stack, array.ndim), rows)

    def _on_each(self, function: Any, in_specs: Any, out_specs: Any) -> Any:
        return jax.shard_map(function, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
