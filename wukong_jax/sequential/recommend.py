"""The best next items for every user of a store of sequences, from a trained run."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

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
        users, items = score_vectors(model.loss, users, table)
        scores = users @ items.T
        if protocol.remove_history:
            history = jnp.where(ids[:, :length] >= 0, ids[:, :length], rows)
            scores = scores.at[jnp.arange(len(ids))[:, None], history].set(-jnp.inf, mode="drop")
        found, chosen = jax.lax.top_k(scores, min(top, rows))
        return jnp.where(jnp.isneginf(found), -1, chosen), found

    size = program.config.train.eval_batch_size
    table = state.tables[stack.name][offset : offset + rows]
    for start in range(0, split.rows, size):
        batch = _without_target(split, slice(start, start + size))
        count = len(batch.weights)
        batch = fill_batch(batch, size)
        _, outputs = program.eval_step(state, (), batch)
        items, scores = best(table, outputs, batch.ids)
        yield split.users[start : start + count], np.asarray(items)[:count], np.asarray(scores)[:count]


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
