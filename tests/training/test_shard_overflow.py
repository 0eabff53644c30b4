"""Rows that do not fit one round of exchange are counted, whatever updates the table."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from tests.tiny import plain_config, table_rule
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.embeddings.exchange import SMALLEST_ROOM
from wukong_jax.training.program import build_program
from wukong_jax.training.state import blank_batch

pytestmark = pytest.mark.usefixtures("compile_quickly")
DEVICES, ROWS, BATCH = 2, 400, 64


@pytest.mark.parametrize(("update", "optimizer"), [("row_sparse", "rowwise_adagrad"), ("dense", "adam")])
def test_rows_for_which_there_was_no_room_are_counted(update: str, optimizer: str, rng: np.random.Generator):
    schema = DatasetSchema((CategoricalFeature("item", ROWS),))
    config = plain_config(pathlib.Path("none"), schema, batch_size=BATCH, eval_batch_size=BATCH)
    mesh = MeshConfig(DEVICES, placements=(PlacementRule(".*", "rows"),), exchange_capacity=0.01)
    program = build_program(dataclasses.replace(config, tables=table_rule(update, optimizer), mesh=mesh), 2)
    state, expected = program.init(), 0
    for _ in range(2):
        ids = rng.integers(0, ROWS, (BATCH, 1)).astype(np.int32)
        batch = blank_batch(program.config, BATCH)._replace(ids=ids)
        state = program.train_step(state, jax.device_put(batch, program.batch_shardings))
        for own in np.split(ids[:, 0], DEVICES):
            asked = np.bincount(np.unique(own) // (ROWS // DEVICES), minlength=DEVICES)
            expected += np.maximum(asked - SMALLEST_ROOM, 0).sum()
    assert expected > 0
    (stack,) = program.plan.stacks
    assert {name: int(count) for name, count in state.exchange.items()} == {stack.name: expected}
