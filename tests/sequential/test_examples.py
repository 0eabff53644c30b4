import dataclasses
import itertools

import numpy as np
import pytest

from tests.sequential.tiny_sequences import ITEMS, config, random_sequences, write
from wukong_jax.config.sequences import SequencesConfig, TrainingPart
from wukong_jax.config.sequential import SASRecConfig
from wukong_jax.data.pipeline import evaluation_batches, training_batches
from wukong_jax.errors import DataError
from wukong_jax.sequential.examples import all_users, as_examples, training_part
from wukong_jax.sequential.schema import SequenceSchema
from wukong_jax.sequential.sequences import from_lists

LENGTH = 5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sequences") / "store", random_sequences())


def expected(sequences, left_out):
    """Row by row, by slicing lists."""
    rows = []
    for user in range(sequences.num_users):
        kept = sequences.of(user).tolist()
        times = sequences.times[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
        stop = len(kept) - left_out
        if stop < 2:
            continue
        start = max(stop - LENGTH - 1, 0)
        items, clock = kept[start:stop], times[start:stop]
        pad = [-1] * (LENGTH + 1 - len(items))
        rows.append(items + pad + [time - clock[0] for time in clock] + pad)
    return np.array(rows)


@pytest.mark.parametrize(
    ("holdout", "left_out"),
    [("last_two", {"train": 2, "valid": 1, "test": 0}), ("last", {"train": 1, "test": 0})],
)
def test_each_user_is_a_row_of_its_last_items_and_their_times(store, holdout, left_out):
    protocol = SequencesConfig(holdout, cutoffs=(2,))
    splits = as_examples(store, config(store.path, sequences=protocol)).splits
    assert list(splits) == list(left_out)
    for name, count in left_out.items():
        rows = expected(store.sequences, count)
        assert splits[name].rows == len(rows)
        np.testing.assert_array_equal(splits[name].take(slice(0, 1000)).ids, rows)
        chosen = np.array([3, 0, 3])
        np.testing.assert_array_equal(splits[name].take(chosen).ids, rows[chosen])


@pytest.mark.parametrize("part", [TrainingPart(0.5), TrainingPart(last=3), TrainingPart(0.25, 4, 3)])
def test_a_part_of_the_training_sequences_changes_training_alone(store, part):
    whole = as_examples(store, config(store.path)).splits
    splits = as_examples(store, config(store.path, sequences=SequencesConfig(cutoffs=(2,), training=part))).splits
    for name in ("valid", "test"):
        np.testing.assert_array_equal(splits[name].take(slice(0, 1000)).ids, whole[name].take(slice(0, 1000)).ids)
    rows = splits["train"].take(slice(0, 1000)).ids
    one, expected_rows = rows[: len(rows) // part.copies], set()
    np.testing.assert_array_equal(rows, np.tile(one, (part.copies, 1)))
    for user in range(store.sequences.num_users):
        items = store.sequences.of(user)[:-2][-min(part.last or 10**6, LENGTH + 1) :].tolist()
        expected_rows.add(tuple(items + [-1] * (LENGTH + 1 - len(items))))
    assert {tuple(row) for row in one[:, : LENGTH + 1].tolist()} <= expected_rows
    assert 0 < len(one) <= np.ceil(part.users * store.sequences.num_users)
    assert part.users < 1 or len(one) == whole["train"].rows


def test_fewer_users_lie_within_more(store):
    shares = (0.1, 0.3, 0.7, 1.0)
    chosen = [set(training_part(store.sequences, TrainingPart(share)).user_names) for share in shares]
    assert [len(users) for users in chosen] == [np.ceil(share * store.sequences.num_users) for share in shares]
    assert all(fewer < more for fewer, more in itertools.pairwise(chosen))


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_parts_of_several_processes_have_the_width_of_their_batch(tmp_path, shuffle):
    store = write(tmp_path / "store", random_sequences(users=600))
    protocol = SequencesConfig(cutoffs=(2,), lengths=(3, 6))
    cut = config(store.path, SASRecConfig(width=8, max_length=11), sequences=protocol)
    split = as_examples(store, cut).split("train")
    options = {"batch_size": 8, "seed": 1, "epochs": 1, "threads": 0, "shuffle": shuffle}
    whole = training_batches(split, **options)
    parts = [training_batches(split, **options, process_index=i, process_count=4) for i in range(4)]
    narrower = 0
    for batch, *of_processes in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.ids for part in of_processes]), batch.ids)
        width = batch.ids.shape[1] // 2
        narrower += width > 4 and any((part.ids[:, 4:width] < 0).all() for part in of_processes)
    assert narrower, "some processes alone would have cut their part"


def test_without_times_a_batch_holds_items_only(tmp_path):
    store = write(tmp_path / "store", random_sequences(times=False))
    split = as_examples(store, config(store.path, times=False)).split("test")
    ids = split.take(slice(0, 4)).ids
    assert ids.shape == (4, LENGTH + 1)
    np.testing.assert_array_equal(ids, expected(random_sequences(), 0)[:4, : LENGTH + 1])


def test_the_model_s_length_decides_what_is_cut(store):
    longer = config(store.path, SASRecConfig(width=8, max_length=50))
    split = as_examples(store, longer).split("test")
    sizes = (split.take(slice(0, 100)).ids[:, :51] >= 0).sum(axis=1)
    np.testing.assert_array_equal(sizes, store.sequences.lengths[store.sequences.lengths >= 2])


def test_users_of_like_length_share_batches_that_are_cut(tmp_path):
    store = write(tmp_path / "store", random_sequences(users=600))
    cut = config(
        store.path, SASRecConfig(width=8, max_length=11), sequences=SequencesConfig(cutoffs=(2,), lengths=(3, 6))
    )
    split = as_examples(store, cut).split("train")
    options = {"batch_size": 16, "seed": 1, "epochs": 2, "threads": 0}
    batches = list(training_batches(split, **options))
    again = list(training_batches(split, **options))
    widths = {batch.ids.shape[1] // 2 for batch in batches}
    assert widths == {4, 7, 12}
    for batch, same in zip(batches, again, strict=True):
        np.testing.assert_array_equal(batch.ids, same.ids)
        sizes = (batch.ids[:, : batch.ids.shape[1] // 2] >= 0).sum(axis=1)
        assert sizes.max() == 12 or sizes.max() <= batch.ids.shape[1] // 2
    steps = split.rows // 16
    shown = [np.concatenate([padded(batch.ids) for batch in part]) for part in (batches[:steps], batches[steps:])]
    for rows in shown:  # each row once: what an epoch shows is what the users hold, but for the remainder
        assert len(rows) == steps * 16
        held = {tuple(row): count for row, count in counted(padded(split.take(slice(0, split.rows)).ids)).items()}
        assert all(count <= held[row] for row, count in counted(rows).items())
    assert not np.array_equal(*shown), "each epoch has an order of its own"
    shares = [list(training_batches(split, **options, process_index=i, process_count=2)) for i in (0, 1)]
    for whole, left, right in zip(batches, *shares, strict=True):
        joined = np.concatenate([padded(left.ids), padded(right.ids)])
        np.testing.assert_array_equal(joined, padded(whole.ids))


def padded(ids):
    """Items only, at full width."""
    items = ids[:, : ids.shape[1] // 2]
    return np.pad(items, ((0, 0), (0, 12 - items.shape[1])), constant_values=-1)


def counted(rows):
    found = {}
    for row in map(tuple, rows.tolist()):
        found[row] = found.get(row, 0) + 1
    return found


def test_the_last_batch_of_an_evaluation_is_filled_up(store):
    split = as_examples(store, config(store.path)).split("test")
    batches = list(evaluation_batches(split, batch_size=20))
    assert [batch.ids.shape for batch in batches] == [(20, 2 * (LENGTH + 1))] * len(batches)
    assert split.rows % 20
    assert sum(batch.weights.sum() for batch in batches) == split.rows
    assert (batches[-1].ids[split.rows % 20 :] == -1).all()


def test_a_store_of_other_items_or_without_times_is_refused(store, tmp_path):
    timeless = write(tmp_path / "store", random_sequences(times=False))
    for held, schema in ((store, SequenceSchema(ITEMS + 1, True)), (timeless, SequenceSchema(ITEMS, True))):
        other = dataclasses.replace(config(held.path), schema=schema)
        with pytest.raises(DataError, match="does not have the schema of the config"):
            as_examples(held, other)


def test_times_that_the_config_does_not_ask_for_are_left_aside(store):
    split = as_examples(store, config(store.path, times=False)).split("test")
    assert split.take(slice(0, 2)).ids.shape == (2, LENGTH + 1)


def test_all_users_with_an_item_are_rows_of_their_own(store):
    split = all_users(as_examples(store, config(store.path)).split("test"))
    np.testing.assert_array_equal(split.users, np.arange(store.sequences.num_users))
    sizes = (split.take(slice(0, 100)).ids[:, : LENGTH + 1] >= 0).sum(axis=1)
    np.testing.assert_array_equal(sizes, np.minimum(store.sequences.lengths, LENGTH + 1))


@pytest.mark.parametrize(
    ("lists", "sequences", "message"),
    [
        ([[0, 1, 2], [3], []], SequencesConfig(cutoffs=(2,)), "no user has the 4 events that the split 'train' takes"),
        (
            [[0], [1], [2], []],
            SequencesConfig("last", cutoffs=(2,)),
            "no user has the 3 events that the split 'train' takes",
        ),
    ],
)
def test_histories_too_short_for_the_protocol_are_named(tmp_path, lists, sequences, message):
    store = write(tmp_path / "store", from_lists(lists))
    run = config(store.path, times=False, sequences=sequences)
    run = dataclasses.replace(run, schema=store.schema)
    with pytest.raises(DataError, match=message):
        as_examples(store, run)
