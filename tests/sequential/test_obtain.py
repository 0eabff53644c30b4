"""The sequences of a run: opened, or prepared, and those of another source or recipe refused."""

import dataclasses

import pytest

from tests.tiny import memory_console, printed
from wukong_jax.config.run import DataConfig
from wukong_jax.errors import DataError
from wukong_jax.sequential import datasets
from wukong_jax.sequential.obtain import obtain_sequences, sequence_store_path
from wukong_jax.sequential.read_events import read_lists
from wukong_jax.sequential.schema import SequenceSchema

SCHEMA = SequenceSchema(3, False)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run on the lists of a file."""
    monkeypatch.setitem(datasets.LOADERS, "movielens_100k", lambda source, cache: read_lists(source))
    (tmp_path / "a.txt").write_text("1 4 30 100\n2 4\n")
    return DataConfig(recipe="movielens_100k", root=str(tmp_path / "data"), source=str(tmp_path / "a.txt"))


def test_sequences_are_prepared_once(config):
    console = memory_console()
    store = obtain_sequences(config, SCHEMA, console)
    assert store.path == sequence_store_path(config, SCHEMA)
    assert "4 events of 2 users" in printed(console)
    for again in (config, dataclasses.replace(config, source=None)):
        assert obtain_sequences(again, SCHEMA, console).digest == store.digest
    assert printed(console).count("events of") == 1


def test_sequences_of_another_source_are_not_taken_for_this_one(config, tmp_path):
    obtain_sequences(config, SCHEMA, memory_console())
    (tmp_path / "b.txt").write_text("1 4 30 100\n")
    with pytest.raises(DataError, match=r"was prepared from .*a.txt.* holds .*b.txt.*another --data.root"):
        obtain_sequences(dataclasses.replace(config, source=str(tmp_path / "b.txt")), SCHEMA, memory_console())
    with pytest.raises(DataError, match=r"data.source: .*c.txt does not exist"):
        obtain_sequences(dataclasses.replace(config, source=str(tmp_path / "c.txt")), SCHEMA, memory_console())


def test_sequences_of_another_recipe_are_refused(config):
    store = obtain_sequences(config, SCHEMA, memory_console())
    other = dataclasses.replace(config, recipe="lastfm", store=str(store.path))
    with pytest.raises(DataError, match=r"by the recipe 'movielens_100k', but data.recipe is 'lastfm'"):
        obtain_sequences(other, SCHEMA, memory_console())
