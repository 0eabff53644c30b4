import dataclasses
import errno
import json
import os
import pathlib

import numpy as np
import pytest

from tests.sequential.tiny_sequences import random_sequences, write
from tests.tiny import write_store
from wukong_jax.data.store import open_store
from wukong_jax.errors import DataError
from wukong_jax.sequential.store import open_sequence_store


@pytest.mark.parametrize("times", [True, False])
def test_what_is_written_is_read_again(tmp_path, times):
    sequences = random_sequences(times=times)
    write(tmp_path / "store", sequences)
    found = open_sequence_store(tmp_path / "store").sequences
    for name in ("items", "offsets", "times", "user_names", "item_names"):
        ours, theirs = getattr(sequences, name), getattr(found, name)
        assert (ours is None and theirs is None) or np.array_equal(ours, theirs)


def test_the_digest_is_that_of_the_content(tmp_path):
    same = [write(tmp_path / name, random_sequences()) for name in ("a", "b")]
    other = write(tmp_path / "c", random_sequences(seed=1))
    assert same[0].digest == same[1].digest != other.digest
    assert same[0].encoding_digest == other.encoding_digest, "the numbering of items is the same"


def test_a_new_store_replaces_the_old_one(tmp_path):
    write(tmp_path / "store", random_sequences())
    other = write(tmp_path / "store", random_sequences(seed=1))
    assert open_sequence_store(tmp_path / "store").digest == other.digest
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_store_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch, failing):
    old = write(tmp_path / "store", random_sequences())
    renames, rename = [], pathlib.Path.rename

    def fail(self, target):
        renames.append(target)
        if len(renames) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", fail)
        with pytest.raises(DataError, match="cannot be written: No space left"):
            write(tmp_path / "store", random_sequences(seed=1))
    assert open_sequence_store(tmp_path / "store").digest == old.digest
    assert len(list(tmp_path.iterdir())) == 1
    other = write(tmp_path / "store", random_sequences(seed=1))
    assert open_sequence_store(tmp_path / "store").digest == other.digest != old.digest
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_folder_that_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(DataError, match="is not a store"):
        write(tmp_path, random_sequences())
    assert (tmp_path / "precious").read_text() == "x"


def cut(path):
    content = (path / "items.i32").read_bytes()
    (path / "items.i32").write_bytes(content[:-4])


def flip(path):
    content = bytearray((path / "times.i64").read_bytes())
    content[3] ^= 1
    (path / "times.i64").write_bytes(bytes(content))


def edit(path):
    manifest = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps(manifest | {"users": 3}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "items.i32 has .* bytes, expected"),
        (flip, "times.i64 was altered"),
        (edit, "store.json is damaged .its checksum differs"),
        (lambda path: (path / "offsets.i64").unlink(), "offsets.i64 is missing"),
        (lambda path: (path / "store.json").unlink(), "it has no store.json"),
        (lambda path: (path / "store.json").write_text("{"), "store.json is damaged"),
        (lambda path: (path / "store.json").write_text("[]"), "store.json is damaged .it holds no object"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    write(tmp_path / "store", random_sequences())
    damage(tmp_path / "store")
    with pytest.raises(DataError, match=message):
        open_sequence_store(tmp_path / "store")


def test_a_store_of_examples_is_no_store_of_sequences(tmp_path):
    write_store(tmp_path / "store")
    with pytest.raises(DataError, match="holds examples with labels, expected sequences"):
        open_sequence_store(tmp_path / "store")


def test_times_that_cannot_be_seconds_are_refused(tmp_path):
    sequences = random_sequences()
    with pytest.raises(DataError, match="give times in seconds"):
        write(tmp_path / "store", dataclasses.replace(sequences, times=sequences.times * 10**6))
    assert not (tmp_path / "store").exists()


def test_times_that_fall_within_a_user_are_refused():
    sequences = random_sequences()
    with pytest.raises(DataError, match="times fall within a user"):
        dataclasses.replace(sequences, times=-sequences.times)


def test_a_store_of_sequences_is_no_store_of_examples(tmp_path):
    write(tmp_path / "store", random_sequences())
    with pytest.raises(DataError, match="holds sequences, expected examples with labels"):
        open_store(tmp_path / "store")


def test_there_is_no_store(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_sequence_store(tmp_path / "nowhere")
