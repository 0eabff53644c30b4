"""First values of stacks, drawn by table so that they are the same wherever the rows lie."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from wukong_jax.embeddings.plan import Stack
from wukong_jax.embeddings.sharded import stored_ids, table_spec
from wukong_jax.embeddings.specs import TableSpec

VALUES_AT_ONCE = 2**20


def init_stack(
    stack: Stack, key: Key[Array, ""], mesh: Mesh | None = None, dtype: DTypeLike = jnp.float32
) -> Float[Array, "stored_rows width"]:
    """N(0, stddev^2) rows, drawn in chunks so that no second array of the table's size is needed.

    `key` is that of all tables of a run. Of a stack that is split over a `mesh`, each device draws what it owns.
    """
    if stack.placement == "replicated":
        return _draw(stack, key, 0, dtype)
    if mesh is None:
        raise ValueError(f"stack {stack.name} is split over {stack.devices} devices: a mesh is needed")
    axes = tuple(mesh.axis_names)

    def own(key_data: jax.Array) -> jax.Array:
        return _draw(stack, jax.random.wrap_key_data(key_data), jax.lax.axis_index(axes), dtype)

    spread = jax.shard_map(own, mesh=mesh, in_specs=PartitionSpec(), out_specs=table_spec(stack, axes), check_vma=False)
    table: jax.Array = spread(jax.random.key_data(key))
    return table


def _draw(stack: Stack, key: jax.Array, device: jax.Array | int, dtype: DTypeLike) -> jax.Array:
    """The block of one device; `device` counts where the stack is split."""
    width = stack.width // stack.devices if stack.placement == "columns" else stack.width
    block = jnp.zeros((stack.device_rows, width), dtype)
    for (group, place), spec, offset in zip(stack.numbers, stack.tables, stack.offsets, strict=True):
        of_table = jax.random.fold_in(jax.random.fold_in(key, group), place)
        block = _fill(stack, spec, offset, of_table, device, block)
    return block


def _fill(
    stack: Stack, spec: TableSpec, offset: int, key: jax.Array, device: jax.Array | int, block: jax.Array
) -> jax.Array:
    chunk = min(max(1, VALUES_AT_ONCE // stack.width), spec.rows)

    def draw(number: jax.Array, block: jax.Array) -> jax.Array:
        values = spec.init_stddev * jax.random.normal(
            jax.random.fold_in(key, number), (chunk, stack.width), block.dtype
        )
        start = offset + jnp.minimum(number * chunk, spec.rows - chunk)  # the last chunk overlaps the one before
        if stack.placement == "columns":
            values = jax.lax.dynamic_slice_in_dim(values, device * block.shape[1], block.shape[1], axis=1)
        if not stack.split_by_rows:
            return jax.lax.dynamic_update_slice(block, values, (start, 0))
        order = jnp.arange(chunk, dtype=jnp.int32)
        own = stored_ids(stack, start + order) - device * stack.device_rows
        inside = (own >= 0) & (own < stack.device_rows)
        places = jnp.where(inside, own, stack.device_rows + order)
        return block.at[places].set(values, mode="drop", unique_indices=True)

    return jax.lax.fori_loop(*_chunks_of_device(stack, device, offset, spec.rows, chunk), draw, block)


def _chunks_of_device(
    stack: Stack, device: jax.Array | int, offset: int, rows: int, chunk: int
) -> tuple[jax.Array | int, jax.Array | int]:
    """First chunk of a table that a device needs, and the one after the last; all but where rows lie in blocks."""
    chunks = -(-rows // chunk)
    if stack.placement != "rows":
        return 0, chunks
    start = device * stack.device_rows - offset
    stop = start + stack.device_rows
    first = jnp.clip(start // chunk, 0, chunks)
    after = jnp.where(stop > rows - chunk, chunks, jnp.clip(-(-stop // chunk), 0, chunks))
    # the last chunk overlaps the one before, and is drawn wherever one of its rows may lie
    return jnp.minimum(first, chunks - 1), jnp.where((start < rows) & (stop > 0), after, 0)
