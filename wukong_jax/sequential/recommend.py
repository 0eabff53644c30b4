"""The best next items for every user of a store of sequences, from a trained run."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wukong_jax.data.batch import Batch
from wukong_jax.data.pipeline import fill_batch
from wukong_jax.sequential.examples import SequenceSplit
from wukong_jax.sequential.losses import score_vectors
from wukong_jax.sequential.schema import ITEM_TABLE
from wukong_jax.training.program import Program
from wukong_jax.training.state import TrainState


def recommend(
    program: Program, state: TrainState, split: SequenceSplit, top: int
) -> Iterator[tuple[Int[np.ndarray, "users"], Int[np.ndarray, "users top"], Float[np.ndarray, "users top"]]]:
    """Users, their `top` items, the best first, and the scores; batch by batch.

    A user's history is all that the store has of him, up to the model's length. Where the run's protocol removes the
    history from the ranking, its items are not recommended, and places that then stay empty hold -1 and -inf.
    """
    protocol = program.config.sequences
    assert protocol is not None, "a config of sequences has a protocol"
    stack, offset, rows = program.plan.table_rows(ITEM_TABLE)
    model: Any = program.config.model

    @jax.jit
    def best(table: jax.Array, outputs: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        length = outputs.shape[1]
        last = jnp.maximum((ids[:, :length] >= 0).sum(axis=1) - 1, 0)
        users = jnp.take_along_axis(outputs, last[:, None, None], axis=1)[:, 0]
        history = ids[:, :length] if protocol.remove_history else None
        return best_items(*score_vectors(model.loss, users, table), min(top, rows), history)

    size = program.config.train.eval_batch_size
    table = state.tables[stack.name][offset : offset + rows]
    for start in range(0, split.rows, size):
        batch = _without_target(split, slice(start, start + size))
        count = len(batch.weights)
        batch = fill_batch(batch, size)
        _, outputs = program.eval_step(state, (), batch)
        items, scores = best(table, outputs, batch.ids)
        yield split.users[start : start + count], np.asarray(items)[:count], np.asarray(scores)[:count]


def best_items(
    users: Float[Array, "batch width"],
    items: Float[Array, "num_items width"],
    top: int,
    history: Int[Array, "batch length"] | None = None,
    *,
    item_chunk: int = 16_384,
) -> tuple[Int[Array, "batch top"], Float[Array, "batch top"]]:
    """The `top` items of highest <u, v> for each user, best first and of equals the lower number, and their scores.

    `item_chunk` items are scored at a time, so that memory does not grow with their number. Items of the history, whose
    padding is below 0, are left out; a place without an item holds -1 and -inf. `top` is at most num_items.
    """
    size = min(item_chunk, items.shape[0])
    first = jnp.arange(0, items.shape[0], size)
    # the last chunk begins early enough to be full; what it shares with the one before is taken once
    starts = jnp.minimum(first, items.shape[0] - size)
    columns, rows = jnp.arange(size), jnp.arange(users.shape[0])[:, None]

    def step(
        best: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        start, fresh = chunk
        scores = users @ jax.lax.dynamic_slice_in_dim(items, start, size).T
        scores = jnp.where(columns >= fresh - start, scores, -jnp.inf)
        if history is not None:
            inside = (history >= start) & (history < start + size)
            scores = scores.at[rows, jnp.where(inside, history - start, size)].set(-jnp.inf, mode="drop")
        found, places = jax.lax.top_k(jnp.concatenate([best[1], scores], axis=1), top)
        ids = jnp.concatenate([best[0], jnp.broadcast_to(start + columns, scores.shape)], axis=1)
        return (jnp.take_along_axis(ids, places, axis=1), found), None

    nothing = jnp.full((users.shape[0], top), -1), jnp.full((users.shape[0], top), -jnp.inf, users.dtype)
    chosen, found = jax.lax.scan(step, nothing, (starts, first))[0]
    return jnp.where(jnp.isneginf(found), -1, chosen), found


def _without_target(split: SequenceSplit, rows: slice) -> Batch:
    """Rows of the last L items, and nothing where training rows have the item after them; its time is the last one."""
    batch = split.take(rows)
    width = split.lengths[-1] + 1
    ids = np.full_like(batch.ids, -1)
    sizes = split.sizes[rows]
    kept = np.minimum(sizes, width - 1)
    places = np.arange(width - 1)
    used = places < kept[:, None]
    taken = np.where(used, places + (sizes - kept)[:, None], 0)
    for first in range(0, ids.shape[1], width):
        values = np.take_along_axis(batch.ids[:, first : first + width], taken, axis=1)
        ids[:, first : first + width - 1] = np.where(used, values, -1)
    if ids.shape[1] > width:
        last = np.take_along_axis(ids[:, width:], kept[:, None] - 1, axis=1)
        np.put_along_axis(ids[:, width:], kept[:, None], last, axis=1)
    return batch._replace(ids=ids)
