import itertools
import json
import subprocess
import sys

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from wukong_jax.data.pipeline import (
    check_own_part,
    evaluation_batches,
    put,
    steps_per_epoch,
    to_device,
    training_batches,
)
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.data.store import Split, StoreWriter, open_store
from wukong_jax.errors import ConfigError, DataError

ROWS = 103
SCHEMA = DatasetSchema(
    categorical=(CategoricalFeature("row", 1000),),
    multi_hot=(MultiHotFeature("tags", 10, max_length=2),),
    numeric=(NumericFeature("number"),),
    vectors=(VectorFeature("vector", 3),),
    weight="weight",
)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    """Rows whose every value tells the row's number: id = row, number = row / 2, weight = 1 + row / 1000, ..."""
    row = np.arange(ROWS)
    path = tmp_path_factory.mktemp("pipeline") / "store"
    with StoreWriter(path, SCHEMA) as writer:
        columns = {
            "ids": np.stack([row, row % 10, np.where(row % 3 == 0, -1, row % 7)], 1).astype(np.int32),
            "numeric": (row[:, None] / 2).astype(np.float32),
            "vectors": (row[:, None] * [1, 10, 100]).astype(np.float32),
            "labels": (row[:, None] % 2).astype(np.float32),
            "weights": (1 + row / 1000).astype(np.float32),
        }
        writer.append("train", columns)
    return open_store(path).split("train")


def sharding() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def read(split: Split, count: int | None = None, **settings) -> list:
    settings = {"batch_size": 10, "seed": 0, "epochs": 3} | settings
    iterator = iter(training_batches(split, **settings))
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def rows_of(batches: list) -> np.ndarray:
    return np.concatenate([np.asarray(batch.ids)[:, 0] for batch in batches])


def assert_is_row(batch, rows: np.ndarray) -> None:
    np.testing.assert_array_equal(batch.ids[:, 0], rows)
    np.testing.assert_array_equal(batch.ids[:, 1], rows % 10)
    np.testing.assert_array_equal(batch.ids[:, 2], np.where(rows % 3 == 0, -1, rows % 7))
    np.testing.assert_array_equal(batch.numeric, rows[:, None] / 2)
    np.testing.assert_array_equal(batch.vectors, rows[:, None] * [1, 10, 100])
    np.testing.assert_array_equal(batch.labels, rows[:, None] % 2)
    np.testing.assert_array_equal(batch.weights, (1 + rows / 1000).astype(np.float32))


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_each_epoch_has_every_row_once_but_for_a_remainder(split, threads):
    batches = read(split, threads=threads)
    assert len(batches) == 30
    assert steps_per_epoch(split, 10) == 10
    for epoch in range(3):
        rows = rows_of(batches[10 * epoch : 10 * epoch + 10])
        assert len(np.unique(rows)) == 100
        assert rows.min() >= 0
        assert rows.max() < ROWS


def test_the_remainder_is_another_one_each_epoch(split):
    batches = read(split, epochs=20)
    left_out = [frozenset(range(ROWS)) - set(rows_of(batches[10 * e : 10 * e + 10]).tolist()) for e in range(20)]
    assert all(len(rows) == 3 for rows in left_out)
    assert len(set(left_out)) > 15


def test_a_batch_holds_all_columns_of_its_rows(split):
    for batch in read(split):
        assert_is_row(batch, batch.ids[:, 0])
        assert all(type(array) is np.ndarray for array in batch)


def test_the_order_changes_with_the_epoch_and_with_the_seed_only(split):
    first = rows_of(read(split))
    np.testing.assert_array_equal(first, rows_of(read(split, threads=0)))
    assert (first[:100] == first[100:200]).sum() < 10
    assert (first == rows_of(read(split, seed=1))).sum() < 25


def test_another_batch_size_keeps_the_order(split):
    np.testing.assert_array_equal(rows_of(read(split, epochs=1)), rows_of(read(split, epochs=1, batch_size=20)))


def test_without_shuffling_rows_come_in_store_order(split):
    batches = read(split, shuffle=False, epochs=2)
    np.testing.assert_array_equal(rows_of(batches), np.tile(np.arange(100), 2))
    assert_is_row(batches[1], np.arange(10, 20))


def test_no_number_of_epochs_means_no_end(split):
    endless = rows_of(read(split, epochs=None, count=45))
    np.testing.assert_array_equal(endless, rows_of(read(split, epochs=5, count=45)))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("processes", [2, 4])
def test_the_global_order_does_not_depend_on_the_number_of_processes(split, processes, shuffle):
    settings = {"batch_size": 12, "shuffle": shuffle}
    parts = [read(split, process_index=index, process_count=processes, **settings) for index in range(processes)]
    for whole, *pieces in zip(read(split, **settings), *parts, strict=True):
        assert all(len(piece.weights) == 12 // processes for piece in pieces)
        for expected, *arrays in zip(whole, *pieces, strict=True):
            np.testing.assert_array_equal(expected, np.concatenate(arrays))


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("threads", [0, 2])
def test_resuming_at_any_position_continues_with_the_next_batch(split, threads, on_device):
    dataset = training_batches(split, batch_size=10, seed=4, epochs=2, threads=threads)
    if on_device:
        dataset = to_device(dataset, sharding(), ahead=2)
    whole = [np.asarray(batch.ids) for batch in dataset]
    running = iter(dataset)
    for position in range(21):
        state = json.loads(json.dumps(running.get_state()))
        assert len(json.dumps(state)) < 100
        resumed = iter(dataset)
        resumed.set_state(state)
        rest = [np.asarray(batch.ids) for batch in resumed]
        resumed.close()
        assert len(rest) == 20 - position
        assert all(np.array_equal(a, b) for a, b in zip(rest, whole[position:], strict=True))
        if position < 20:
            next(running)
    running.close()


@pytest.mark.parametrize("taken", [1, 3, 9])
def test_a_running_iterator_can_be_set_back(split, taken):
    iterator = iter(to_device(training_batches(split, batch_size=10, seed=4, epochs=1), sharding()))
    next(iterator)
    state = iterator.get_state()
    first = rows_of(list(itertools.islice(iterator, taken)))
    iterator.set_state(state)
    again = rows_of(list(iterator))
    assert len(again) == 90
    np.testing.assert_array_equal(first, again[: 10 * taken])


def test_the_state_of_a_run_can_be_prolonged(split):
    short = iter(training_batches(split, batch_size=10, seed=0, epochs=1))
    list(short)
    longer = iter(training_batches(split, batch_size=10, seed=0, epochs=3))
    longer.set_state(short.get_state())
    np.testing.assert_array_equal(rows_of(list(longer)), rows_of(read(split))[100:])


def test_orbax_saves_and_restores_the_position(split, tmp_path):
    dataset = to_device(training_batches(split, batch_size=10, seed=0, epochs=2), sharding())
    iterator = iter(dataset)
    taken = list(itertools.islice(iterator, 7))
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(7, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        rest = list(iterator)
        manager.wait_until_finished()
        restored = iter(dataset)
        manager.restore(7, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(restored)))
    np.testing.assert_array_equal(rows_of(list(restored)), rows_of(rest))
    assert len(taken) + len(rest) == 20


def test_batches_on_the_device_equal_those_on_the_host(split):
    placed = list(to_device(training_batches(split, batch_size=10, seed=0, epochs=3), sharding()))
    for on_device, on_host in zip(placed, read(split), strict=True):
        assert all(isinstance(array, jax.Array) for array in on_device)
        for array, expected in zip(on_device, on_host, strict=True):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(("batch_size", "processes"), [(10, 1), (103, 1), (200, 1), (1, 1), (10, 2), (40, 4), (400, 4)])
def test_evaluation_covers_every_row_once_and_fills_up_with_weight_zero(split, batch_size, processes):
    parts = [
        list(evaluation_batches(split, batch_size=batch_size, process_index=index, process_count=processes))
        for index in range(processes)
    ]
    assert {len(part) for part in parts} == {-(-ROWS // batch_size)}
    batches = [piece for pieces in zip(*parts, strict=True) for piece in pieces]
    assert {len(batch.weights) for batch in batches} == {batch_size // processes}
    arrays = [np.concatenate(column) for column in zip(*batches, strict=True)]
    real = type(batches[0])(*(array[:ROWS] for array in arrays))
    filled = type(batches[0])(*(array[ROWS:] for array in arrays))
    assert_is_row(real, np.arange(ROWS))
    assert (filled.ids == -1).all()
    assert all((array == 0).all() for array in filled[1:])
    for array, dtype in zip(arrays, ("int32", "float32", "float32", "float32", "float32"), strict=True):
        assert array.dtype == dtype


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 104}, "received 104, but split 'train' has only 103 rows; choose a batch size of at most 103"),
        ({"batch_size": 10, "process_count": 4}, "received 10, expected a multiple of the 4 processes; choose 8"),
        ({"batch_size": 3, "process_count": 4}, "received 3, expected a multiple of the 4 processes; choose 4"),
        ({"batch_size": 10, "process_count": 2, "process_index": 2}, "process_index: received 2, expected 0 to 1"),
        ({"batch_size": 0}, "batch_size: received 0"),
        ({"batch_size": 10, "epochs": 0}, "epochs: received 0"),
        ({"batch_size": 10, "seed": -1}, "seed: received -1"),
        ({"batch_size": 10, "threads": -1}, "threads: received -1"),
    ],
)
def test_settings_that_cannot_be_run_are_refused_at_once(split, settings, message):
    with pytest.raises(ConfigError, match=message):
        training_batches(split, **({"seed": 0, "epochs": 1} | settings))


def test_evaluation_refuses_a_batch_that_the_processes_cannot_share(split):
    with pytest.raises(ConfigError, match="received 10, expected a multiple of the 4 processes"):
        evaluation_batches(split, batch_size=10, process_count=4)


def test_an_empty_split_is_refused(split):
    empty = Split("valid", 0, SCHEMA, {kind: array[:0] for kind, array in split.columns.items()})
    for make in (
        lambda: training_batches(empty, batch_size=1, seed=0, epochs=1),
        lambda: steps_per_epoch(empty, 1),
        lambda: evaluation_batches(empty, batch_size=1),
    ):
        with pytest.raises(DataError, match="split 'valid' has no rows"):
            make()


PROGRAM = """
import sys
import jax
from wukong_jax.data.pipeline import to_device, training_batches
from wukong_jax.data.store import open_store
split = open_store(sys.argv[1]).split("train")
dataset = training_batches(split, batch_size=10, seed=0, epochs=None)
iterator = iter(to_device(dataset, jax.sharding.SingleDeviceSharding(jax.devices()[0]), ahead=2))
next(iterator)
print("done")
"""


def test_a_program_that_leaves_the_iterator_open_ends_quietly(split, tmp_path):
    with StoreWriter(tmp_path / "store", SCHEMA) as writer:
        writer.append("train", split.columns)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "store")], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("held", [[slice(4, 8)], [slice(6, 8), slice(4, 6)], [slice(4, 8), slice(4, 8)]])
def test_devices_that_hold_what_their_process_reads_are_accepted(held):
    check_own_part(held, 12, 1, 3)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([slice(0, 4)], "hold 4 rows from 0 to 3 of a batch of 12, expected the 4 rows from 4 to 7"),
        ([slice(4, 6)], "hold 2 rows from 4 to 5"),
        ([slice(None)], "hold 12 rows from 0 to 11"),
        ([slice(4, 6), slice(7, 9)], "hold 4 rows from 4 to 8"),
        ([], "hold no rows"),
    ],
)
def test_devices_that_hold_other_rows_than_their_process_reads_are_refused(held, message):
    with pytest.raises(ConfigError, match=message):
        check_own_part(held, 12, 1, 3)


def test_a_value_of_all_processes_is_put_whole_on_every_device():
    found = put(np.arange(3), sharding(), np.float32)
    assert (found.dtype, found.sharding) == (np.float32, sharding())
    np.testing.assert_array_equal(found, [0, 1, 2])
