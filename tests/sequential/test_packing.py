import dataclasses
import functools
import json
import math

import jax
import numpy as np
import pytest

from tests.sequential.tiny_sequences import DENSE, ITEMS, SPARSE, config, random_sequences, write
from tests.tiny import memory_console
from wukong_jax.cli import main
from wukong_jax.config.sequences import SequencesConfig, TrainingPart
from wukong_jax.config.sequential import BCEConfig, FullSoftmaxConfig, HSTUConfig, LlamaConfig, SASRecConfig
from wukong_jax.data.pipeline import fill_batch, training_batches
from wukong_jax.errors import ConfigError
from wukong_jax.scaling.sweep import Sweep, points_of
from wukong_jax.scaling.sweep_plan import plan
from wukong_jax.scaling.sweep_runner import prepare_data
from wukong_jax.sequential.examples import as_examples
from wukong_jax.sequential.packing import pack
from wukong_jax.training.program import build_program
from wukong_jax.training.run import train
from wukong_jax.training.state import make_inputs

pytestmark = pytest.mark.usefixtures("compile_quickly")
LENGTH = 8
SMALL = {"width": 8, "num_layers": 1, "max_length": LENGTH, "dropout": 0.0}
PACKED = SequencesConfig(cutoffs=(2,), packing=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sequences") / "store", random_sequences(users=200))


def in_rows(store, model=None, sequences=PACKED, **options):
    run = config(store.path, model or SASRecConfig(**SMALL), sequences=sequences, **options)
    return run, as_examples(store, run)


@pytest.mark.parametrize("room", [1, 7, 50])
def test_every_history_is_in_one_row_and_rows_are_full(room):
    sizes = np.random.default_rng(room).integers(1, room + 1, 3000)
    packing = pack(sizes, room)
    np.testing.assert_array_equal(np.sort(packing.members), np.arange(3000))
    used = np.add.reduceat(sizes[packing.members], packing.offsets[:-1])
    assert used.max() <= room
    assert len(used) <= 1.02 * math.ceil(sizes.sum() / room)


def test_no_history_makes_no_row():
    assert len(pack(np.zeros(0, np.int64), 5).offsets) == 1


@pytest.mark.parametrize("times", [True, False])
def test_rows_hold_what_rows_of_one_user_hold(store, times):
    one = in_rows(store, sequences=SequencesConfig(cutoffs=(2,)), times=times)[1].split("train").take(slice(0, 1000))
    split = in_rows(store, times=times)[1].split("train")
    rows, width = split.take(slice(0, split.rows)), LENGTH + 1
    items, *clock, segments = np.split(rows.ids, rows.ids.shape[1] // width, axis=1)
    assert len(clock) == times
    assert len(items) < 0.75 * len(one.ids)
    found = []
    for row in range(split.rows):
        numbers = segments[row][segments[row] >= 0]
        assert numbers.tolist() == sorted(numbers)
        assert set(numbers) == set(range(numbers.max() + 1))
        np.testing.assert_array_equal(items[row] >= 0, segments[row] >= 0)
        for number in set(numbers):
            place = segments[row] == number
            found.append(tuple(part[row][place].tolist() for part in (items, *clock)))
    parts = np.split(one.ids, one.ids.shape[1] // width, axis=1)
    expected = [tuple(part[row][parts[0][row] >= 0].tolist() for part in parts) for row in range(len(one.ids))]
    assert sorted(found) == sorted(expected)
    chosen = np.array([4, 0, 4])
    np.testing.assert_array_equal(split.take(chosen).ids, rows.ids[chosen])
    assert split.take(slice(0, 0)).ids.shape == (0, rows.ids.shape[1])


def test_only_training_is_packed_and_parts_of_it_can_be(store):
    part = TrainingPart(users=0.5, last=3)
    _, whole = in_rows(store, sequences=SequencesConfig(cutoffs=(2,), training=part))
    _, packed = in_rows(store, sequences=SequencesConfig(cutoffs=(2,), training=part, packing=True))
    for name in ("valid", "test"):
        np.testing.assert_array_equal(
            packed.split(name).take(slice(0, 99)).ids, whole.split(name).take(slice(0, 99)).ids
        )
    rows = packed.split("train").take(slice(0, packed.split("train").rows)).ids
    assert (rows[:, : LENGTH + 1] >= 0).sum() == (
        whole.split("train").take(slice(0, 999)).ids[:, : LENGTH + 1] >= 0
    ).sum()


@pytest.mark.parametrize("model", [HSTUConfig, SASRecConfig, pytest.param(LlamaConfig, marks=pytest.mark.slow)])
def test_the_loss_is_that_of_one_user_a_row(store, model):
    losses, gradients = [], []
    for protocol in (SequencesConfig(cutoffs=(2,)), PACKED):
        run, examples = in_rows(store, model(**SMALL, loss=FullSoftmaxConfig()), protocol)
        split = examples.split("train")
        run = config(store.path, run.model, sequences=protocol, batch_size=split.rows, micro_batch=None)
        program = build_program(run, 10)
        state = program.train_step(program.init(), split.take(slice(0, split.rows)))
        losses.append(float(state.loss_sum))
        gradients.append(state.opt_state)  # Adam's means
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] > 1
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-5)


def test_training_learns_from_shared_rows_with_negatives_of_the_row(store):
    run = config(store.path, HSTUConfig(**SMALL, loss=BCEConfig(4)), SPARSE, sequences=PACKED, batch_size=32)
    program, split = build_program(run, 60), as_examples(store, run).split("train")
    state, losses = program.init(), []
    for batch in training_batches(split, batch_size=32, seed=0, epochs=60, threads=0):
        before = state.loss_sum + 0
        state = program.train_step(state, batch)
        losses.append(float(state.loss_sum - before))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    rows = as_examples(store, run).split("test")
    assert program.objective.evaluate(lambda m, b: program.eval_step(state, m, b), rows, 16)["hr@2"] > 0.5


def test_an_output_of_an_evaluation_does_not_depend_on_packing(store):
    outputs = []
    for protocol in (SequencesConfig(cutoffs=(2,)), PACKED):
        run, examples = in_rows(store, HSTUConfig(**SMALL), protocol)
        program, rows = build_program(run, 10), examples.split("test").take(slice(0, 16))
        outputs.append(program.eval_step(program.init(), (), fill_batch(rows, 16))[1])
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("tables", [DENSE, SPARSE])
def test_rows_are_read_user_by_user_without_dropout_too(store, tables):
    """As the statistics of activations read them."""
    run, examples = in_rows(store, tables=tables, batch_size=16)
    program = build_program(run, 10)
    split = examples.split("train")
    batch = jax.device_put(split.take(slice(split.rows - 16, split.rows)))  # the last hold the shortest histories
    state, parts = program.init(), program.objective.prepare(batch, jax.random.key(0))
    inputs = make_inputs(program.objective.training_plan(parts.ids), parts, state.tables)
    apply = functools.partial(program.model.apply, {"params": state.params}, inputs)
    np.testing.assert_array_equal(apply(train=False), apply(train=True, rngs={"dropout": jax.random.key(1)}))


def test_a_run_on_shared_rows_leaves_a_record_and_can_be_looked_into(store, tmp_path, capsys):
    record = train(in_rows(store, batch_size=16)[0], tmp_path / "run", memory_console())
    assert set(record["results"]) == {"valid", "test"}
    assert record["information_abundance"]["item"]["rows"] == ITEMS
    assert main(["evaluate", "--run", str(tmp_path / "run"), "--collapse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["information_abundance"] == record["information_abundance"]
    assert main(["evaluate", "--run", str(tmp_path / "run"), "--split", "train"]) == 2
    assert "choose valid or test" in capsys.readouterr().err


@pytest.mark.parametrize("lengths", [(40, 4), (4, 40)])
def test_a_sweep_counts_the_rows_of_each_length(store, lengths):
    runs = [in_rows(store, SASRecConfig(**SMALL | {"max_length": length}), epochs=1)[0] for length in lengths]
    rows = {run.model.max_length: as_examples(store, run).split("train").rows for run in runs}
    assert rows[4] > 3 * rows[40]
    runs = [dataclasses.replace(run, name=f"length{run.model.max_length}") for run in runs]

    def last_at(steps):
        found = [
            dataclasses.replace(run, train=dataclasses.replace(run.train, max_steps=steps[run.model.max_length]))
            for run in runs
        ]
        prepare_data(plan(Sweep("lengths", points_of("ladder", {run.name: run for run in found}))), memory_console())

    last_at({length: count // 8 for length, count in rows.items()})
    with pytest.raises(ConfigError, match=f"of the {rows[40]} training rows"):
        last_at({4: 1, 40: rows[4] // 8})


def test_an_order_of_users_is_refused(store):
    run, _ = in_rows(store)
    with pytest.raises(ConfigError, match=r"data.shuffle: received False and sequences.packing=True"):
        dataclasses.replace(run, data=dataclasses.replace(run.data, shuffle=False))


@pytest.mark.slow
def test_a_run_on_shared_rows_goes_on_where_it_stopped(store, tmp_path):
    run, _ = in_rows(store, checkpoint_every_steps=3, batch_size=16)

    class Stop(Exception):
        pass

    def stop(progress):
        raise Stop

    whole = train(run, tmp_path / "whole", memory_console())
    with pytest.raises(Stop):
        train(run, tmp_path / "cut", memory_console(), on_evaluation=stop)
    console = memory_console()
    again = train(run, tmp_path / "cut", console)
    assert "resuming after step" in console.file.getvalue()
    assert again["results"] == whole["results"]


def test_packing_and_lengths_exclude_each_other():
    with pytest.raises(ConfigError, match=r"sequences.packing: received True and sequences.lengths=\(3,\)"):
        SequencesConfig(packing=True, lengths=(3,))
