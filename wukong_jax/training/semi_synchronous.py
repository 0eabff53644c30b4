"""The next batch's rows, looked up while the model works on this one: what a step leaves for the one after it.

A step of such a run takes the batch after the one it trains, as TorchRec's semi-synchronous pipeline does:

    rows(t + 1) = tables(t)[ids(t + 1)]                     beside, and not waiting for,
    gradients(t) of the loss at params(t), rows(t)
    tables(t + 1), params(t + 1) = updates of tables(t), params(t) by gradients(t)

Rows that two batches in a row share miss one update when they are read; every gradient still arrives, in order. The
batch at hand and its rows are a part of the state and so of every checkpoint: a resumed run goes on as if never ended.
"""

from typing import Any

import jax
import jax.numpy as jnp

from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.embeddings.table_ops import TableOps
from wukong_jax.errors import ConfigError
from wukong_jax.training.micro_batch import joined, split, split_array
from wukong_jax.training.objective import Objective
from wukong_jax.training.state import TrainState, blank_batch, key_of_step, look_up

Ahead = dict[str, dict[str, jax.Array]]
"""`batch`: arrays by name, without empty ones, which no checkpoint can hold. `rows`: [batch, slots, width] by stack."""


def check_semi_synchronous(config: RunConfig) -> None:
    """Raise `ConfigError` where there is nothing to look up ahead, or batches differ in shape."""
    if not config.train.semi_synchronous:
        return
    if config.mesh.lookup_ahead:
        raise ConfigError(
            "mesh.lookup_ahead: received True and train.semi_synchronous=True, which looks all rows of a batch up "
            "before its step; leave one of them out"
        )
    if config.sequences is not None and config.sequences.lengths:
        raise ConfigError(
            f"train.semi_synchronous: received True and sequences.lengths={config.sequences.lengths}, but batches must "
            "have one shape; leave the lengths out"
        )


def blank_ahead(plan: EmbeddingPlan, config: RunConfig) -> Ahead:
    """Zeros in the place of the first batch, until it is there."""
    batch = blank_batch(config, config.train.batch_size)
    rows = {stack.name: jnp.zeros((config.train.batch_size, stack.slots, stack.width)) for stack in plan.stacks}
    return _ahead(batch, rows)


def look_ahead(
    objective: Objective, state: TrainState, batch: Batch, step: jax.Array, parts: int, operations: TableOps
) -> Ahead:
    """The batch of a step to come, with what is drawn for it, and its rows as the state's tables have them."""
    prepared = objective.prepare(split(batch, parts), key_of_step(state, step))
    whole = Batch(*(joined(array) for array in prepared))
    return _ahead(whole, look_up(objective.training_plan(whole.ids), state.tables, whole.ids, operations))


def at_hand(ahead: Ahead, parts: int) -> tuple[Batch, dict[str, jax.Array]]:
    """The batch that a step trains and its rows, both in parts [parts, examples of a part, ...]."""
    kept = ahead["batch"]
    weights = kept["weights"]
    empty = {
        name: jnp.zeros((len(weights), 0), jnp.int32 if name == "ids" else weights.dtype)
        for name in Batch._fields
        if name not in kept
    }
    rows = {name: split_array(array, parts) for name, array in ahead["rows"].items()}
    return split(Batch(**kept, **empty), parts), rows


def _ahead(batch: Batch, rows: dict[str, Any]) -> Ahead:
    return {"batch": {name: array for name, array in batch._asdict().items() if array.size}, "rows": rows}
