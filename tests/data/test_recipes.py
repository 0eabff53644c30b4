"""Recipes: cheap to import, schemas true to the prepared stores, bad sources refused."""

import dataclasses
import gzip
import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from wukong_jax.data.ingest import schema_of
from wukong_jax.data.recipes import RECIPES, criteo, criteo_kaggle, criteo_terabyte, frappe, load_recipe
from wukong_jax.data.store import open_store
from wukong_jax.errors import DataError


@pytest.fixture(scope="module")
def frappe_store(tmp_path_factory, shared_data):
    out = tmp_path_factory.mktemp("frappe") / "store"
    return frappe.prepare(out, source=shared_data / "frappe", cache=out.parent)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_keeps_the_contract(name):
    recipe = load_recipe(name)
    assert name == recipe.NAME
    assert len(recipe.TERMS) > 10
    assert recipe.SCHEMA.feature_names
    assert callable(recipe.prepare)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(DataError, match=r"'movielens_100'; did you mean 'movielens_100k'\?"):
        load_recipe("movielens_100")
    with pytest.raises(DataError, match="unknown recipe 'xyz'; the recipes are movielens_100k, "):
        load_recipe("xyz")


def test_recipes_import_neither_jax_nor_polars():
    program = (
        "import sys; from wukong_jax.data.recipes import RECIPES, load_recipe\n"
        "for name in RECIPES: load_recipe(name)\n"
        "print([name for name in ('jax', 'polars', 'pyarrow', 'grain') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["frappe", "criteo_kaggle", "criteo_terabyte"])
def test_data_that_is_not_downloaded_says_what_to_put_where(tmp_path, name):
    recipe = load_recipe(name)
    with pytest.raises(DataError, match=f"recipe {name}: this data is not downloaded for you; give as the source"):
        recipe.prepare(tmp_path / "store", source=None, cache=tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist"):
        recipe.prepare(tmp_path / "store", source=tmp_path / "nowhere", cache=tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path}.*(lacks|holds 0 files)"):
        recipe.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    assert not (tmp_path / "store").exists()


def test_frappe_has_its_schema_rows_and_label_rates(frappe_store):
    assert frappe_store.schema == frappe.SCHEMA
    rows = {name: split.rows for name, split in frappe_store.splits.items()}
    assert rows == {"train": 202_027, "valid": 57_722, "test": 28_860}
    positives = {name: int(split.columns["labels"].sum()) for name, split in frappe_store.splits.items()}
    assert positives == {"train": 67_604, "valid": 19_063, "test": 9_536}


def test_frappe_says_which_train_file_it_was(frappe_store):
    assert open_store(frappe_store.path).encoding["origin"]["train_file"] == "rebuilt train negatives"


def to_csv(libfm: bytes) -> bytes:
    lines = ["label,user,item,daytime,weekday,isweekend,homework,cost,weather,country,city"]
    for line in libfm.decode().splitlines():
        label, *pairs = line.split()
        lines.append(",".join(["1" if label == "1" else "0", *(pair.split(":")[0] for pair in pairs)]))
    return "\r\n".join([*lines, ""]).encode()


def test_frappe_x1_csv_gives_the_same_store_as_libfm(tmp_path, shared_data, frappe_store):
    names = {"train.rebuilt": "train", "validation": "valid", "test": "test"}
    for theirs, ours in names.items():
        content = gzip.decompress((shared_data / "frappe" / f"frappe.{theirs}.libfm.gz").read_bytes())
        (tmp_path / f"{ours}.csv").write_bytes(to_csv(content))
    store = frappe.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    files = [json.loads((path / "store.json").read_text())["files"] for path in (store.path, frappe_store.path)]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["validation", "train.rebuilt"])
def test_an_altered_frappe_file_is_refused(tmp_path, shared_data, name):
    for path in (shared_data / "frappe").glob("*.libfm.gz"):
        shutil.copyfile(path, tmp_path / path.name)
    changed = tmp_path / f"frappe.{name}.libfm.gz"
    content = gzip.decompress(changed.read_bytes())
    changed.write_bytes(gzip.compress(content.replace(b" 5041:1 ", b" 5042:1 ", 1), 1))
    with pytest.raises(DataError, match=rf"{changed.name}: MD5 as Frappe_x1 CSV .*expected.*"):
        frappe.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    assert not (tmp_path / "store").exists()


def test_the_criteo_sample_has_the_schema_of_the_whole_log(tmp_path, shared_data):
    store = criteo_kaggle.prepare(tmp_path / "store", source=shared_data / "criteo", cache=tmp_path)
    assert store.schema == criteo_kaggle.SCHEMA
    rows = {name: split.rows for name, split in store.splits.items()}
    assert sum(rows.values()) == 10_000
    for name, share in {"train": 0.72, "valid": 0.18, "test": 0.1}.items():
        assert rows[name] == pytest.approx(10_000 * share, abs=4 * np.sqrt(10_000 * share * (1 - share)))
    positives = sum(int(split.columns["labels"].sum()) for split in store.splits.values())
    assert positives == 2_182


@pytest.mark.parametrize("module", [criteo_kaggle, criteo_terabyte])
def test_criteo_schemas_follow_from_their_specifications(module):
    sizes = {column.name: column.hash_buckets for column in module.SPEC.categorical}
    assert schema_of(module.SPEC, sizes) == module.SCHEMA
    assert len(module.SCHEMA.categorical) == 26
    assert [feature.name for feature in module.SCHEMA.numeric[:3]] == ["I1", "I1_missing", "I2"]


def test_buckets_are_four_times_the_values_up_to_a_cap():
    buckets = criteo.bucket_counts([3, 100, 10_000] + [7] * 23, cap=1_000)
    assert (buckets["C1"], buckets["C2"], buckets["C3"], buckets["C26"]) == (12, 400, 1_000, 28)


def write_days(folder, days):
    line = "\t".join(["1", *map(str, range(13)), *(f"{i:08x}" for i in range(26))]) + "\n"
    for day in days:
        (folder / f"day_{day}.gz").write_bytes(gzip.compress((line * (day + 1)).encode()))


def test_terabyte_days_are_taken_in_order_and_the_last_two_held_out(tmp_path):
    write_days(tmp_path, range(8, 12))
    files = criteo_terabyte.day_files(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in files.items()} == {
        "train": ["day_8.gz", "day_9.gz"],
        "valid": ["day_10.gz"],
        "test": ["day_11.gz"],
    }


def test_terabyte_days_become_a_store_with_the_schema(tmp_path):
    write_days(tmp_path, range(3))
    store = criteo_terabyte.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    assert store.schema == criteo_terabyte.SCHEMA
    assert {name: split.rows for name, split in store.splits.items()} == {"train": 1, "valid": 2, "test": 3}
    numeric = store.split("test").columns["numeric"][0]
    np.testing.assert_allclose(numeric[::2], np.log1p(np.arange(13)), rtol=1e-6)
    assert not numeric[1::2].any()


@pytest.mark.parametrize(
    ("days", "message"),
    [([0, 1], "holds 2 files.*at least 3"), ([0, 1, 2, 4, 5], "lacks day_3 between day_0 and day_5")],
)
def test_missing_terabyte_days_are_named(tmp_path, days, message):
    write_days(tmp_path, days)
    with pytest.raises(DataError, match=message):
        criteo_terabyte.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)


@pytest.mark.parametrize("name", ["synthetic", "planted"])
def test_recipes_of_made_data_refuse_a_source(tmp_path, monkeypatch, name):
    recipe = importlib.import_module(RECIPES[name])
    with pytest.raises(DataError, match=f"recipe {name}: .*leave the source out"):
        recipe.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    monkeypatch.setattr(recipe, "CONFIG", dataclasses.replace(recipe.CONFIG, train=2_000, valid=100, test=100))
    assert recipe.prepare(tmp_path / "store", source=None, cache=tmp_path).schema == recipe.SCHEMA


def test_vocabularies_hold_the_raw_values(frappe_store):
    table = pl.read_parquet(frappe_store.path / "vocabularies" / "weekday.parquet")
    assert sorted(table["value"].to_list()) == [str(value) for value in range(5046, 5053)]
