"""Embedding collapse: how many of a table's dimensions its trained rows really fill (arXiv 2310.04400).

Information abundance of a matrix with singular values s: IA = sum(s) / max(s). It is 1 if all rows lie on one line, the
width d if they spread evenly in all directions (as many random normal rows do), and never above min(rows, d).

Rows that no training example read are left out: they still hold their random start, which would hide a collapse.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int, Shaped

from wukong_jax.config.run import TrainConfig
from wukong_jax.data.pipeline import BatchSource, steps_per_epoch
from wukong_jax.data.store import Split
from wukong_jax.embeddings.plan import EmbeddingPlan, Stack
from wukong_jax.embeddings.sharded import stored_ids

PlanOf = Callable[[Int[np.ndarray, "_ _"]], EmbeddingPlan]
CHUNK = 2**22
"""Numbers of a table that are on the host at a time."""
CHUNK_ROWS = 2**16
"""Rows of a split that are read at a time."""


class Abundance(TypedDict):
    """One table's information abundance, None where every trained row is 0; its trained rows and its width."""

    information_abundance: float | None
    rows: int
    width: int


def information_abundance(gram: Float[np.ndarray, "d d"]) -> float | None:
    """Sum(s) / max(s) of a matrix A with singular values s, from A^T A in float64; None if A is 0.

    Squaring loses half of the digits: a singular value below sqrt(d eps) max(s), eps 2.2e-16, is uncertain by as much,
    so that the result is off by less than d sqrt(d eps): 3e-6 at d = 32, 5e-5 at d = 256.
    """
    squares = np.linalg.eigvalsh(gram)
    if not squares[-1] > 0:
        return None
    return float(np.sqrt(np.maximum(squares, 0) / squares[-1]).sum())


def table_abundance(
    plan: EmbeddingPlan, tables: Mapping[str, Shaped[jax.Array, "..."]], seen: Mapping[str, Bool[np.ndarray, "rows"]]
) -> dict[str, Abundance]:
    """Information abundance of every table over the rows marked in `seen`, in memory bounded by `CHUNK`.

    Args:
        plan: which tables lie where in which stack.
        tables: stacks [rows, width] by name.
        seen: the rows of each stack that count.
    """
    found: dict[str, Abundance] = {}
    for stack in plan.stacks:
        grams = {spec.name: np.zeros((stack.width, stack.width)) for spec in stack.tables}
        for first, rows in _chunks(stack, tables[stack.name]):
            for spec, offset in zip(stack.tables, stack.offsets, strict=True):
                start, stop = max(first, offset), min(first + len(rows), offset + spec.rows)
                if start < stop:
                    part = rows[start - first : stop - first][seen[stack.name][start:stop]].astype(np.float64)
                    grams[spec.name] += part.T @ part
        for spec, offset in zip(stack.tables, stack.offsets, strict=True):
            count = int(seen[stack.name][offset : offset + spec.rows].sum())
            value = information_abundance(grams[spec.name])
            found[spec.name] = {"information_abundance": value, "rows": count, "width": stack.width}
    return found


def rows_seen(
    plan: EmbeddingPlan, ids: Iterable[Int[np.ndarray, "_ _"]], plan_of: PlanOf | None = None
) -> dict[str, Bool[np.ndarray, "rows"]]:
    """For each stack, which rows the examples read; ids below 0 read none.

    `plan_of` gives the lookups of ids that differ in their columns, as sequences cut to several lengths do.
    """
    seen = {stack.name: np.zeros(stack.rows, bool) for stack in plan.stacks}
    for part in ids:
        for stack in (plan_of(part) if plan_of else plan).stacks:
            for lookup in stack.lookups:
                read = part[:, list(lookup.columns)]
                seen[stack.name][read[read >= 0] + lookup.row_offset] = True
    return seen


def trained_ids(split: Split, train: TrainConfig, shuffle: bool, step: int) -> Iterator[Int[np.ndarray, "_ _"]]:
    """Ids of the examples that the first `step` steps read.

    From one epoch on these are those of the whole split, read in its own order, though it may be that a few examples,
    fewer than a batch, were left out of every epoch.
    """
    if step >= steps_per_epoch(split, train.batch_size):
        for start in range(0, split.rows, CHUNK_ROWS):
            yield split.take(slice(start, start + CHUNK_ROWS)).ids
        return
    source = BatchSource(split, train.batch_size, train.seed, train.epochs, shuffle, 0, 1)
    for index in range(step):
        yield source[index].ids


def trained_abundance(
    plan: EmbeddingPlan,
    tables: Mapping[str, Shaped[jax.Array, "..."]],
    split: Split,
    train: TrainConfig,
    shuffle: bool,
    step: int,
    plan_of: PlanOf | None = None,
) -> dict[str, Abundance]:
    """Information abundance of every table after `step` steps on a training split, over the rows they read."""
    if not plan.stacks:
        return {}
    return table_abundance(plan, tables, rows_seen(plan, trained_ids(split, train, shuffle, step), plan_of))


def _chunks(stack: Stack, table: jax.Array) -> Iterator[tuple[int, np.ndarray]]:
    """First row and rows of each part of a stack, in order wherever they lie."""
    size = max(1, min(stack.rows, CHUNK // stack.width))
    whole = table.sharding.is_fully_replicated
    for first in range(0, stack.rows, size):
        count = min(size, stack.rows - first)
        if whole:
            yield first, np.asarray(jax.lax.dynamic_slice_in_dim(table, first, count))
        else:
            yield first, np.asarray(_rows_of_all(table, stored_ids(stack, jnp.arange(first, first + count))))


@functools.cache
def _gathering(everywhere: NamedSharding) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return jax.jit(lambda table, ids: table[ids], out_shardings=everywhere)


def _rows_of_all(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a table that lies on several devices, on each of them."""
    assert isinstance(table.sharding, NamedSharding)
    return _gathering(NamedSharding(table.sharding.mesh, PartitionSpec()))(table, ids)
