"""Rows of the next batch looked up beside this one's pass: one update old, nothing lost, resumable at any step."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from tests.sequential.tiny_sequences import SPARSE, random_sequences, write
from tests.sequential.tiny_sequences import config as sequential_config
from tests.tiny import (
    STEPS_PER_EPOCH,
    assert_same_state,
    before_step,
    compiled,
    plain_config,
    run_loop,
    send_sigterm,
    table_rule,
    tiny_config,
    without_times,
)
from wukong_jax.config.mesh import MeshConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import SASRecConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.data.store import open_store
from wukong_jax.errors import ConfigError
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.scaling.memory import step_memory
from wukong_jax.sequential.examples import as_examples
from wukong_jax.training.program import build_program
from wukong_jax.training.stopping import StoppedBySignal

ROWS, EXAMPLES, STEPS, TABLE_RATE, DENSE_RATE = 11, 8, 6, 0.5, 0.1
pytestmark = pytest.mark.usefixtures("compile_quickly")


def few_ids() -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids that batches in a row share, and labels."""
    rng = np.random.default_rng(0)
    return [(rng.integers(0, ROWS, EXAMPLES), rng.integers(0, 2, EXAMPLES).astype(float)) for _ in range(STEPS + 1)]


def by_hand(table: np.ndarray, bias: float, *, stale: bool) -> tuple[np.ndarray, float, list[float]]:
    """Logistic regression of one id by SGD in float64: the table, the bias, the losses."""
    table, losses = table.astype(np.float64).copy(), []
    ahead = table[few_ids()[0][0]]
    for (ids, labels), (next_ids, _) in zip(few_ids(), few_ids()[1:], strict=False):
        rows = ahead if stale else table[ids]
        ahead = table[next_ids]
        chance = 1 / (1 + np.exp(-(rows + bias)))
        losses.append(-np.mean(labels * np.log(chance) + (1 - labels) * np.log(1 - chance)))
        slope = (chance - labels) / EXAMPLES
        np.add.at(table, ids, -TABLE_RATE * slope)
        bias -= DENSE_RATE * slope.sum()
    return table, bias, losses


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_step_uses_rows_from_before_the_last_update_and_updates_the_present_ones(micro_batch):
    schema = DatasetSchema((CategoricalFeature("item", ROWS),))
    settings = {"batch_size": EXAMPLES, "eval_batch_size": EXAMPLES, "micro_batch": micro_batch}
    config = plain_config(pathlib.Path("none"), schema, **settings, semi_synchronous=True)
    rule = dataclasses.replace(table_rule("row_sparse", "sgd").rules[0], learning_rate=TABLE_RATE, l2=0.0)
    optimizer = dataclasses.replace(config.optimizer, name="sgd", learning_rate=DENSE_RATE)
    config = dataclasses.replace(config, tables=dataclasses.replace(config.tables, rules=(rule,)), optimizer=optimizer)
    program = build_program(config, STEPS)
    none, one = np.zeros((EXAMPLES, 0), np.float32), np.ones(EXAMPLES, np.float32)
    batches = [
        Batch(ids[:, None].astype(np.int32), none, none, labels[:, None].astype(np.float32), one)
        for ids, labels in few_ids()
    ]
    state = program.init()
    [(name, first)] = [(name, np.asarray(table)[:ROWS, 0]) for name, table in state.tables.items()]
    bias = float(jax.tree.leaves(state.params)[0][0])
    state = program.look_up_first(state, batches[0])
    for batch in batches[1:]:
        state = program.train_step(state, batch)
    table, last_bias, losses = by_hand(first, bias, stale=True)
    assert np.abs(table - by_hand(first, bias, stale=False)[0]).max() > 1e-3
    np.testing.assert_allclose(np.asarray(state.tables[name])[:ROWS, 0], table, atol=1e-6)
    np.testing.assert_allclose(float(jax.tree.leaves(state.params)[0][0]), last_bias, atol=1e-6)
    np.testing.assert_allclose(float(state.loss_sum), sum(losses), rtol=1e-6)


@pytest.mark.parametrize("interrupted_after", [1, STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH - 1])
def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(tiny_store, tmp_path, interrupted_after):
    config = tiny_config(tiny_store, semi_synchronous=True, progressive=True)
    store, program = open_store(tiny_store), compiled(config, 3 * STEPS_PER_EPOCH)
    expected, progress = run_loop(program, store, tmp_path / "undisturbed")
    assert int(expected.step) == 3 * STEPS_PER_EPOCH
    with pytest.raises(StoppedBySignal):
        run_loop(before_step(program, interrupted_after, send_sigterm), store, tmp_path / "interrupted")
    state, resumed = run_loop(program, store, tmp_path / "interrupted")
    assert_same_state(state, expected)
    assert without_times(resumed) == without_times(progress)


def test_it_is_a_part_of_a_runs_identity_and_earlier_runs_keep_theirs(tiny_store):
    config = tiny_config(tiny_store)
    ahead = dataclasses.replace(config, train=dataclasses.replace(config.train, semi_synchronous=True))
    assert config.identity_hash() != ahead.identity_hash()
    assert "semi_synchronous" not in config.identity()["train"]


def test_the_estimate_of_memory_counts_the_next_batchs_rows(tiny_store):
    config = tiny_config(tiny_store)
    ahead = dataclasses.replace(config, train=dataclasses.replace(config.train, semi_synchronous=True))
    cost, rows = describe_cost(config), build_program(ahead, 1).abstract_state().ahead["rows"]
    more = step_memory(ahead, cost).total - step_memory(config, cost).total
    assert more == sum(array.size * array.dtype.itemsize for array in rows.values()) > 0


def test_two_ways_of_looking_ahead_at_once_are_refused(tiny_store):
    config = tiny_config(tiny_store, semi_synchronous=True, micro_batch=8)
    config = dataclasses.replace(config, model=plain_config(tiny_store).model, mesh=MeshConfig(lookup_ahead=True))
    with pytest.raises(ConfigError, match=r"mesh.lookup_ahead: received True and train.semi_synchronous=True"):
        build_program(config, 1)


def test_sequences_draw_the_negatives_of_the_step_that_trains_them(tmp_path):
    store = write(tmp_path / "store", random_sequences())
    model = SASRecConfig(width=8, num_layers=1, max_length=5, dropout=0.0)
    losses = {}
    for ahead in (False, True):
        config = sequential_config(store.path, model, SPARSE, semi_synchronous=ahead)
        program, rows = build_program(config, 10), as_examples(store, config).split("train")
        first, second, third = (rows.take(slice(8 * number, 8 * number + 8)) for number in range(3))
        state = program.init()
        if ahead:
            state, first, second = program.look_up_first(state, first), second, third
        state = program.train_step(state, first)
        losses[ahead] = [float(state.loss_sum), float(program.train_step(state, second).loss_sum)]
    assert losses[True][0] == pytest.approx(losses[False][0], rel=1e-6)
    assert losses[True][1] == pytest.approx(losses[False][1], rel=0.02)
    assert losses[True][1] != losses[False][1]


def test_batches_of_varying_lengths_are_refused(tmp_path):
    cut = SequencesConfig(cutoffs=(2, 5), lengths=(3,))
    config = sequential_config(tmp_path, sequences=cut, semi_synchronous=True)
    with pytest.raises(ConfigError, match=r"train.semi_synchronous: received True and sequences.lengths=\(3,\)"):
        build_program(config, 1)
