"""The store of a run: opened, or prepared by its recipe."""

import concurrent.futures
import dataclasses
import json
import threading
import time

import pytest

from tests.tiny import SCHEMA, memory_console, printed, write_store
from wukong_jax.config.codec import stable_hash
from wukong_jax.config.run import DataConfig
from wukong_jax.data import obtain_store as module
from wukong_jax.data.obtain import source_files
from wukong_jax.data.obtain_store import obtain_store, store_path
from wukong_jax.data.recipes import load_recipe
from wukong_jax.data.schema import CategoricalFeature
from wukong_jax.data.store import open_store
from wukong_jax.errors import DataError


class Recipe:
    """Stands for a recipe; remembers how it was called."""

    def __init__(self):
        self.calls = []

    def prepare(self, out, *, source, cache):
        self.calls.append((out, source, cache))
        return write_store(out)


@pytest.fixture
def recipe(monkeypatch):
    recipe = Recipe()
    monkeypatch.setattr(module, "load_recipe", lambda name: {"made_up": recipe}[name])
    return recipe


def test_a_store_that_is_there_is_opened(tiny_store):
    console = memory_console()
    store = obtain_store(DataConfig(store=str(tiny_store)), SCHEMA, console)
    assert store.path == tiny_store
    assert printed(console) == ""


def test_a_missing_store_without_a_recipe_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder.*wukong_jax prepare"):
        obtain_store(DataConfig(store=str(tmp_path / "nowhere")), SCHEMA, memory_console())


def test_a_recipe_prepares_once(tmp_path, recipe):
    (tmp_path / "raw").mkdir()
    config = DataConfig(recipe="made_up", root=str(tmp_path / "data"), source=str(tmp_path / "raw"))
    console = memory_console()
    store = obtain_store(config, SCHEMA, console)
    path = tmp_path / "data" / f"made_up-{SCHEMA.hash()}"
    assert store.path == path == store_path(config, SCHEMA)
    assert recipe.calls == [(path, tmp_path / "raw", tmp_path / "data" / "downloads")]
    assert "70 train, 25 valid, 30 test" in printed(console)
    again = memory_console()
    assert obtain_store(config, SCHEMA, again).digest == store.digest
    assert len(recipe.calls) == 1
    assert printed(again) == ""


def test_two_that_ask_at_once_prepare_once(tmp_path, recipe, monkeypatch):
    config = DataConfig(recipe="made_up", root=str(tmp_path))
    begun, prepare = threading.Event(), recipe.prepare

    def slow(*arguments, **options):
        begun.set()
        time.sleep(0.3)  # the other one has time to ask
        return prepare(*arguments, **options)

    monkeypatch.setattr(recipe, "prepare", slow)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(obtain_store, config, SCHEMA, memory_console())
        assert begun.wait(10)
        second = pool.submit(obtain_store, config, SCHEMA, memory_console())
        assert first.result().digest == second.result().digest
    assert len(recipe.calls) == 1


def test_a_source_that_does_not_exist_is_named_even_if_the_store_is_there(tmp_path, recipe):
    obtain_store(DataConfig(recipe="made_up", root=str(tmp_path)), SCHEMA, memory_console())
    config = DataConfig(recipe="made_up", root=str(tmp_path), source=str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"data.source: .*nothing does not exist"):
        obtain_store(config, SCHEMA, memory_console())


def test_a_store_of_another_source_is_not_taken_for_this_one(tmp_path):
    rows = "\t".join(["1", *["3"] * 13, *["ab"] * 26]) + "\n"
    (tmp_path / "small.txt").write_text(rows * 200)
    (tmp_path / "large.txt").write_text(rows * 300)
    schema = load_recipe("criteo_kaggle").SCHEMA
    config = DataConfig(recipe="criteo_kaggle", root=str(tmp_path / "data"), source=str(tmp_path / "small.txt"))
    first = obtain_store(config, schema, memory_console())
    assert obtain_store(config, schema, memory_console()).digest == first.digest
    with pytest.raises(DataError, match=r"was prepared from .*small.txt.* holds .*large.txt"):
        obtain_store(dataclasses.replace(config, source=str(tmp_path / "large.txt")), schema, memory_console())


@pytest.mark.parametrize(("recipe", "folder"), [("frappe", "frappe"), ("movielens_100k", "ml-100k")])
def test_recipes_of_files_tell_their_source(tmp_path, shared_data, recipe, folder):
    source, schema = shared_data / folder, load_recipe(recipe).SCHEMA
    config = DataConfig(recipe=recipe, root=str(tmp_path), source=str(source))
    store = obtain_store(config, schema, memory_console())
    sizes = {path.name: path.stat().st_size for path in source.iterdir() if path.is_file()}
    assert store.encoding["origin"]["source_files"] == sizes
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.csv").write_text("")
    with pytest.raises(
        DataError, match=rf"was prepared from .* but data.source {tmp_path / 'other'} holds .*train.csv"
    ):
        obtain_store(dataclasses.replace(config, source=str(tmp_path / "other")), schema, memory_console())
    for same in (config, dataclasses.replace(config, source=None)):
        assert obtain_store(same, schema, memory_console()).digest == store.digest


@pytest.mark.parametrize("origin", [{}, {"recipe": "frappe", "train_file": "original (Frappe_x1)"}])
def test_a_store_that_does_not_know_its_source_is_taken_and_its_digests_tell_nothing_of_it(tmp_path, origin):
    path = write_store(tmp_path / "store").path
    before = open_store(path)
    set_origin(path, origin)
    config = DataConfig(store=str(path), source=str(tmp_path))
    opened = obtain_store(config, SCHEMA, memory_console())
    assert (opened.digest, opened.encoding_digest) == (before.digest, before.encoding_digest)
    set_origin(path, origin | {"source_files": {"other.csv": 3}})
    with pytest.raises(DataError, match=r"was prepared from .*other.csv"):
        obtain_store(config, SCHEMA, memory_console())
    opened = open_store(path)
    assert (opened.digest, opened.encoding_digest) == (before.digest, before.encoding_digest)


def test_the_files_of_a_source_are_those_of_its_folders_where_it_holds_no_others(tmp_path):
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ratings.dat").write_text("12345")
    assert source_files(tmp_path) == {"ml-1m/ratings.dat": 5}
    (tmp_path / "train.csv").write_text("123")
    assert source_files(tmp_path) == source_files(tmp_path / "train.csv") == {"train.csv": 3}


def set_origin(path, origin):
    """Writes another origin into a store's manifest."""
    manifest = json.loads((path / "store.json").read_text())
    manifest["encoding"]["origin"] = origin
    del manifest["checksum"]
    (path / "store.json").write_text(json.dumps(manifest | {"checksum": stable_hash(manifest)}))


def test_a_recipe_prepares_into_the_store_that_is_named(tmp_path, recipe):
    config = DataConfig(recipe="made_up", store=str(tmp_path / "mine"))
    assert obtain_store(config, SCHEMA, memory_console()).path == tmp_path / "mine"


def test_another_schema_is_refused_with_the_differences(tiny_store):
    schema = dataclasses.replace(SCHEMA, categorical=(CategoricalFeature("user", 9), CategoricalFeature("item", 99)))
    with pytest.raises(DataError) as caught:
        obtain_store(DataConfig(store=str(tiny_store)), schema, memory_console())
    message = str(caught.value)
    assert "categorical[1].vocabulary_size: 99 -> 21" in message
    assert "--write-config" in message


@pytest.mark.parametrize("verify", [True, False])
def test_checksums_are_checked_when_asked(tmp_path, verify):
    path = write_store(tmp_path / "store").path
    file = path / "train" / "ids.i32"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(bytes(content))
    config = DataConfig(store=str(path), verify=verify)
    if verify:
        with pytest.raises(DataError, match=r"ids.i32 was altered"):
            obtain_store(config, SCHEMA, memory_console())
    else:
        obtain_store(config, SCHEMA, memory_console())


def test_a_folder_that_is_no_store_is_not_prepared_over(tmp_path, recipe):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(DataError, match=r"it has no store.json"):
        obtain_store(DataConfig(recipe="made_up", store=str(tmp_path / "mine")), SCHEMA, memory_console())
    assert recipe.calls == []
