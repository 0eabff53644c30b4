"""The store: what goes in comes out; a damaged one is refused with the file's name."""

import json
import pathlib

import numpy as np
import pytest

from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.data.store import StoreWriter, open_store
from wukong_jax.errors import DataError

SCHEMA = DatasetSchema(
    categorical=(CategoricalFeature("user", 7),),
    multi_hot=(MultiHotFeature("tags", 5, 2),),
    numeric=(NumericFeature("price"),),
    vectors=(VectorFeature("image", 3),),
    labels=("click", "buy"),
    group="user",
    weight="weight",
    time="when",
)


def columns(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "ids": np.stack([rng.integers(0, 7, rows), *rng.integers(-1, 5, (2, rows))], axis=1).astype(np.int32),
        "numeric": rng.normal(size=(rows, 1)).astype(np.float32),
        "vectors": rng.normal(size=(rows, 3)).astype(np.float32),
        "labels": rng.integers(0, 2, (rows, 2)).astype(np.float32),
        "weights": rng.random(rows).astype(np.float32),
        "group": rng.integers(-9, 9, rows),
        "time": rng.integers(0, 99, rows),
    }


def write(path: pathlib.Path, parts: list[dict[str, np.ndarray]]) -> None:
    with StoreWriter(path, SCHEMA) as writer:
        for part in parts:
            writer.append("train", part)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    with StoreWriter(tmp_path / "store", SCHEMA, {"note": [1, 2]}) as writer:
        writer.append("train", columns(10))
        writer.append("test", columns(4, seed=1))
        writer.append("train", columns(5, seed=2))
        writer.add_file("vocabularies/user.parquet", b"content")
    return tmp_path / "store"


def test_what_goes_in_comes_out(path: pathlib.Path) -> None:
    store = open_store(path)
    assert store.schema == SCHEMA
    assert store.encoding == {"note": [1, 2]}
    assert {name: split.rows for name, split in store.splits.items()} == {"train": 15, "test": 4}
    first, second = columns(10), columns(5, seed=2)
    for kind, values in store.split("train").columns.items():
        np.testing.assert_array_equal(values, np.concatenate([first[kind], second[kind]]))


@pytest.mark.parametrize("rows", [slice(3, 8), np.array([14, 0, 3, 3])], ids=["slice", "places"])
def test_take_gathers_rows_in_the_order_given(path: pathlib.Path, rows: slice | np.ndarray) -> None:
    split = open_store(path).split("train")
    batch = split.take(rows)
    for name in ("ids", "numeric", "vectors", "labels", "weights"):
        np.testing.assert_array_equal(getattr(batch, name), np.array(split.columns[name])[rows])


def test_absent_kinds_are_empty_and_weights_one(tmp_path: pathlib.Path) -> None:
    with StoreWriter(tmp_path / "store", DatasetSchema(numeric=(NumericFeature("x"),))) as writer:
        writer.append("train", {"numeric": np.ones((3, 1), np.float32), "labels": np.ones((3, 1), np.float32)})
    batch = open_store(tmp_path / "store").split("train").take(slice(0, 2))
    assert batch.ids.shape == (2, 0)
    assert batch.vectors.shape == (2, 0)
    assert batch.weights.tolist() == [1.0, 1.0]


def test_an_unknown_split_lists_the_known_ones(path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"no split 'valid'; it has \['test', 'train'\]"):
        open_store(path).split("valid")


FILES = [f"train/{name}" for name in ("ids.i32", "numeric.f32", "vectors.f32", "labels.f32", "weights.f32", "time.i64")]
FILES += ["test/group.i64", "vocabularies/user.parquet"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_truncated_or_altered_file_is_named(path: pathlib.Path, name: str) -> None:
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[:-1])
    with pytest.raises(DataError, match=f"{name} has {len(whole) - 1} bytes, expected {len(whole)}; prepare"):
        open_store(path, verify=False)
    (path / name).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(DataError, match=f"{name} was altered"):
        open_store(path)
    (path / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        open_store(path, verify=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "store.json is damaged"),
        (lambda text: "[]", "store.json is damaged"),
        (lambda text: "{}", "store.json is damaged"),
        (lambda text: json.dumps({"format_version": 1}), "store.json is damaged"),
        (lambda text: text.replace('"vocabulary_size": 7', '"vocabulary_size": 0'), "store.json is damaged"),
        (lambda text: text.replace('"train": 15', '"train": 14'), "store.json is damaged .its checksum differs"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 99'), "format version 99, expected 1"),
    ],
)
def test_a_damaged_manifest(path: pathlib.Path, damage: object, message: str) -> None:
    manifest = path / "store.json"
    manifest.write_text(damage(manifest.read_text()))
    with pytest.raises(DataError, match=message):
        open_store(path)


def test_a_folder_without_a_manifest_is_not_a_store(path: pathlib.Path) -> None:
    (path / "store.json").unlink()
    with pytest.raises(DataError, match=r"it has no store.json, so it is not a whole store"):
        open_store(path)
    with pytest.raises(DataError, match="no such folder; make it with `python -m wukong_jax prepare`"):
        open_store(path.parent / "other")


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (2, 0, 7, r"split 'train', row 5: feature 'user' has id 7, expected 0 to 6"),
        (0, 0, -1, r"split 'train', row 3: feature 'user' has id -1, expected 0 to 6"),
        (1, 2, 5, r"split 'train', row 4: feature 'tags' has id 5, expected 0 to 4"),
        (1, 1, -2, r"split 'train', row 4: feature 'tags' has id -2, expected 0 to 4"),
    ],
)
def test_ids_outside_their_table(tmp_path: pathlib.Path, row: int, column: int, value: int, message: str) -> None:
    bad = columns(4)
    bad["ids"][row, column] = value
    with pytest.raises(DataError, match=message):
        write(tmp_path / "store", [columns(3), bad])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.pop("time"), "received the matrices"),
        (lambda made: made.update(labels=made["labels"][:, :1]), r"labels has shape \(4, 1\), expected \(4, 2\)"),
        (lambda made: made.update(weights=made["weights"][:3]), r"weights has shape \(3,\), expected \(4,\)"),
    ],
)
def test_matrices_of_another_shape(tmp_path: pathlib.Path, change: object, message: str) -> None:
    made = columns(4)
    change(made)
    with pytest.raises(DataError, match=message):
        write(tmp_path / "store", [made])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_store(path: pathlib.Path) -> None:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(DataError, match="received the matrices"), StoreWriter(path, SCHEMA) as writer:
        writer.append("train", {})
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]


def test_a_store_moved_aside_by_a_crash_is_found_and_put_back(path: pathlib.Path) -> None:
    path.rename(path.with_name("store.replaced"))
    assert open_store(path).split("train").rows == 15
    with pytest.raises(RuntimeError, match="stop"), StoreWriter(path, SCHEMA):
        raise RuntimeError("stop")
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]
    assert open_store(path).split("train").rows == 15


def test_a_new_store_replaces_the_old_one_wholly(path: pathlib.Path) -> None:
    with StoreWriter(path, DatasetSchema(numeric=(NumericFeature("x"),))) as writer:
        writer.append("train", {"numeric": np.ones((3, 1), np.float32), "labels": np.ones((3, 1), np.float32)})
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == [
        "store.json",
        "train/labels.f32",
        "train/numeric.f32",
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]
