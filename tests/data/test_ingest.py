"""Ingest against plain-Python oracles: vocabularies, hashing, transforms, splits, multi-hot, vectors."""

import collections
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from wukong_jax.data import spill
from wukong_jax.data.ingest import encode_frames, ingest, vocabulary_file
from wukong_jax.data.numeric import NumericStatistics
from wukong_jax.data.readers import blocks
from wukong_jax.data.sources import csv_source
from wukong_jax.data.spec import (
    CategoricalColumn,
    FileSplit,
    FractionSplit,
    GroupTimeSplit,
    IngestSpec,
    MultiHotColumn,
    NumericColumn,
    TimeSplit,
    VectorColumn,
)
from wukong_jax.data.splitting import draw, split_by_group_time
from wukong_jax.data.store import Store
from wukong_jax.data.synthetic import SyntheticConfig, write_synthetic
from wukong_jax.data.vocabulary import bucket_ids, stable_hash64
from wukong_jax.errors import ConfigError, DataError

ROWS = 1000
PINNED = ["0x0", "0xd97664f8664084b8", "0xa51dc6611e6a96ce"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, so that what crosses their borders is tested."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    monkeypatch.setattr(spill, "BLOCK_ROWS", 64)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    rng = np.random.default_rng(1)
    made = []
    for i in range(ROWS):
        price = "" if rng.random() < 0.2 else str(round(float(rng.normal(3, 50)), 2))
        made.append(
            {
                "label": str(int(rng.random() < 0.3)),
                "user": f"u{int(rng.zipf(1.5)) % 60}",
                "city": ["", "Zürich", 'say "hi", he said', "東京", "two\nlines", "\\N"][int(rng.integers(6))],
                "clicks": ["", "-3", "0", "2", "3", "17", "100000"][int(rng.integers(7))],
                "genres": "|".join(f"g{g}" for g in rng.integers(0, 9, int(rng.integers(0, 5)))),
                "price": price,
                "age": str(int(rng.integers(18, 80))),
                "embedding": ";".join(f"{x:.3f}" for x in rng.normal(size=3)),
                "time": str(1000 + i // 3),
                "weight": str(float(rng.integers(1, 4))),
            }
        )
    return made


@pytest.fixture(scope="module")
def csv_file(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("raw") / "rows.csv"
    pl.DataFrame(rows).write_csv(path, quote_style="necessary")
    return path


FULL = IngestSpec(
    categorical=(
        CategoricalColumn("user", min_count=3),
        CategoricalColumn("city"),
        CategoricalColumn("clicks", bucketing="log2_square"),
    ),
    multi_hot=(MultiHotColumn("genres", 3, combiner="mean", min_count=2),),
    numeric=(NumericColumn("price", "signed_log1p", missing_indicator=True), NumericColumn("age", "standardise")),
    vectors=(VectorColumn("embedding", 3),),
    group="user",
    weight="weight",
    time="time",
    split=FractionSplit(0.2, 0.1, seed=7),
)


@pytest.fixture
def store(csv_file: pathlib.Path, tmp_path: pathlib.Path) -> Store:
    return ingest(csv_source({"all": [csv_file]}), FULL, tmp_path / "store")


def split_names(rule: FractionSplit) -> list[str]:
    """The documented draw, in plain Python integers."""
    mask = 2**64 - 1

    def mix(state: int) -> int:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        return state ^ (state >> 31)

    names = []
    for row in range(ROWS):
        u = (mix((mix(rule.seed) + (row + 1) * 0x9E3779B97F4A7C15) & mask) >> 11) / 2**53
        names.append("test" if u < rule.test else "valid" if u < rule.test + rule.valid else "train")
    return names


def by_frequency(values: list[str], min_count: int) -> dict[str, int]:
    counted = sorted(collections.Counter(values).items(), key=lambda item: (-item[1], item[0].encode()))
    return {value: i + 1 for i, (value, count) in enumerate(item for item in counted if item[1] >= min_count)}


def key(value: str) -> str:
    return "" if value == "\\N" else value


def bucket(value: str) -> str:
    if value == "":
        return ""
    return str(math.floor(math.log(int(value)) ** 2)) if int(value) > 2 else value


def test_ids_are_ranks_by_frequency_in_the_training_split(store: Store, rows: list[dict[str, str]]) -> None:
    names = split_names(FULL.split)
    train = [row for row, name in zip(rows, names, strict=True) if name == "train"]
    maps = [
        by_frequency([row["user"] for row in train], 3),
        by_frequency([key(row["city"]) for row in train], 1),
        by_frequency([bucket(row["clicks"]) for row in train], 1),
    ]
    genres = by_frequency([g for row in train for g in row["genres"].split("|")[:3] if g], 2)
    for split in ("train", "valid", "test"):
        chosen = [row for row, name in zip(rows, names, strict=True) if name == split]
        expected = []
        for row in chosen:
            keys = (row["user"], key(row["city"]), bucket(row["clicks"]))
            hot = [genres.get(g, 0) for g in row["genres"].split("|") if g][:3]
            expected.append([m.get(k, 0) for m, k in zip(maps, keys, strict=True)] + hot + [-1] * (3 - len(hot)))
        np.testing.assert_array_equal(store.split(split).columns["ids"], np.array(expected))
    assert [f.vocabulary_size for f in store.schema.id_features] == [len(m) + 1 for m in (*maps, genres)]
    assert (store.split("train").columns["ids"][:, 0] == 0).any()


def test_the_vocabulary_file_lists_values_in_id_order(store: Store, rows: list[dict[str, str]]) -> None:
    names = split_names(FULL.split)
    users = [row["user"] for row, name in zip(rows, names, strict=True) if name == "train"]
    table = pl.read_parquet(store.path / vocabulary_file("user"))
    assert table["value"].to_list() == list(by_frequency(users, 3))
    assert table["count"].to_list() == [users.count(user) for user in table["value"]]


def test_numbers_are_transformed_with_training_statistics(store: Store, rows: list[dict[str, str]]) -> None:
    names = split_names(FULL.split)
    ages = np.array([float(row["age"]) for row, name in zip(rows, names, strict=True) if name == "train"])
    for split in ("train", "valid", "test"):
        chosen = [row for row, name in zip(rows, names, strict=True) if name == split]
        prices = [float(row["price"] or 0) for row in chosen]
        expected = np.stack(
            [
                [math.copysign(math.log1p(abs(price)), price) for price in prices],
                [float(row["price"] == "") for row in chosen],
                [(float(row["age"]) - ages.mean()) / ages.std() for row in chosen],
            ],
            axis=1,
        )
        np.testing.assert_allclose(store.split(split).columns["numeric"], expected, rtol=1e-6, atol=1e-6)
    assert [feature.name for feature in store.schema.numeric] == ["price", "price_missing", "age"]


def test_labels_weights_vectors_time_and_group_stay_in_source_order(store: Store, rows: list[dict[str, str]]) -> None:
    chosen = [row for row, name in zip(rows, split_names(FULL.split), strict=True) if name == "valid"]
    columns = store.split("valid").columns
    np.testing.assert_array_equal(columns["labels"][:, 0], [float(row["label"]) for row in chosen])
    np.testing.assert_array_equal(columns["weights"], [float(row["weight"]) for row in chosen])
    np.testing.assert_array_equal(columns["time"], [int(row["time"]) for row in chosen])
    vectors = [[float(x) for x in row["embedding"].split(";")] for row in chosen]
    np.testing.assert_allclose(columns["vectors"], vectors, rtol=1e-6)
    users, groups = [row["user"] for row in chosen], columns["group"].tolist()
    assert len(set(zip(users, groups, strict=True))) == len(set(users)) == len(set(groups))


def test_the_report_says_what_was_left_out(store: Store, rows: list[dict[str, str]]) -> None:
    report = store.encoding["report"]
    ids = store.split("train").columns["ids"]
    assert report["rows"] == dict(collections.Counter(split_names(FULL.split)))
    assert report["features"]["user"]["out_of_vocabulary"] == pytest.approx(float((ids[:, 0] == 0).mean()))
    cut = sum(max(0, row["genres"].count("|") - 2) for row in rows if row["genres"])
    assert report["features"]["genres"]["cut"] == cut > 0


def test_an_integer_group_stands_for_itself(csv_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    spec = IngestSpec(categorical=(CategoricalColumn("user"),), group="age", split=FractionSplit(0.0, 0.0))
    made = ingest(csv_source({"all": [csv_file]}), spec, tmp_path / "store")
    assert set(made.split("train").columns["group"].tolist()) <= set(range(18, 80))


@pytest.mark.parametrize("transform", ["none", "signed_log1p_standardise", "min_max"])
def test_further_transforms(
    csv_file: pathlib.Path, tmp_path: pathlib.Path, rows: list[dict[str, str]], transform: str
) -> None:
    spec = IngestSpec(numeric=(NumericColumn("age", transform),), split=FractionSplit(0.0, 0.0))
    made = ingest(csv_source({"all": [csv_file]}), spec, tmp_path / "store")
    ages = np.array([float(row["age"]) for row in rows])
    logs = np.log1p(ages)
    expected = {
        "none": ages,
        "signed_log1p_standardise": (logs - logs.mean()) / logs.std(),
        "min_max": (ages - ages.min()) / (ages.max() - ages.min()),
    }[transform]
    np.testing.assert_allclose(made.split("train").columns["numeric"][:, 0], expected, rtol=1e-5, atol=1e-6)


def test_statistics_do_not_cancel_for_large_means() -> None:
    values = 1.7e9 + np.random.default_rng(0).normal(size=10_000)
    merged = NumericStatistics()
    for part in np.array_split(values, 37):
        merged = merged.merged(NumericStatistics.of(part))
    assert merged.deviation == pytest.approx(float(np.std(values - 1.7e9)), rel=1e-6)
    assert merged.mean == pytest.approx(float(values.mean()), rel=1e-15)


def reference_hash(text: str) -> int:
    """The documented hash in plain Python integers."""
    mask = 2**64 - 1
    data = text.encode()
    state = len(data) * 0x165667B19E3779F9 & mask
    for start in range(0, len(data), 8):
        word = int.from_bytes(data[start : start + 8].ljust(8, b"\0"), "little")
        state = (state ^ (word * 0x9E3779B185EBCA87 & mask)) * 0xC2B2AE3D27D4EB4F & mask
        state = (state << 31 | state >> 33) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_the_hash_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    texts = ["", "a", "a\0", "Zürich", "12345678", "123456789", "x" * 100]
    texts += ["".join(chr(int(c)) for c in rng.integers(32, 900, int(rng.integers(0, 40)))) for _ in range(200)]
    assert stable_hash64(pl.Series(texts)).tolist() == [reference_hash(text) for text in texts]


def test_the_hash_never_changes() -> None:
    assert [hex(h) for h in stable_hash64(pl.Series(["", "a", "68fd1e64"])).tolist()] == PINNED


def test_the_hash_spreads_evenly() -> None:
    counts = np.bincount(bucket_ids(pl.Series([f"{i:08x}" for i in range(100_000)]), 1000), minlength=1000)
    chi_square = float(((counts - 100) ** 2 / 100).sum())
    assert 1000 - 5 * 45 < chi_square < 1000 + 5 * 45


def test_hashed_features_report_collisions(
    csv_file: pathlib.Path, tmp_path: pathlib.Path, rows: list[dict[str, str]]
) -> None:
    spec = IngestSpec(categorical=(CategoricalColumn("user", hash_buckets=16),), split=FractionSplit(0.0, 0.0))
    made = ingest(csv_source({"all": [csv_file]}), spec, tmp_path / "store")
    expected = [reference_hash(row["user"]) % 16 for row in rows]
    assert made.split("train").columns["ids"][:, 0].tolist() == expected
    users = {row["user"] for row in rows}
    facts = made.encoding["report"]["features"]["user"]
    assert facts == {"values": len(users), "buckets": 16, "occupied": len(set(expected))}
    assert made.schema.categorical[0].vocabulary_size == 16


def test_draws_depend_on_the_row_number_only() -> None:
    whole = draw(3, 0, 1000)
    np.testing.assert_array_equal(np.concatenate([draw(3, 0, 17), draw(3, 17, 983)]), whole)
    assert abs(float(draw(0, 0, 100_000).mean()) - 0.5) < 0.005
    assert not np.array_equal(draw(4, 0, 1000), whole)


def test_a_time_split_puts_borders_into_the_later_split(csv_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    spec = IngestSpec(categorical=(CategoricalColumn("user"),), time="time", split=TimeSplit(1100, 1200))
    made = ingest(csv_source({"all": [csv_file]}), spec, tmp_path / "store")
    assert {name: split.rows for name, split in made.splits.items()} == {"train": 300, "valid": 300, "test": 400}
    assert made.split("valid").columns["time"].min() == 1100
    assert made.split("test").columns["time"].min() == 1200


def test_group_time_split_against_a_loop() -> None:
    rng = np.random.default_rng(5)
    group, time = rng.integers(-5, 20, 700), rng.integers(0, 30, 700)
    rule = GroupTimeSplit(0.1, 0.25)
    expected = np.zeros(700, np.uint8)
    for g in set(group.tolist()):
        rows_of = sorted(np.flatnonzero(group == g).tolist(), key=lambda row: (time[row], row))
        test, valid = math.floor(len(rows_of) * 0.25 + 1e-9), math.floor(len(rows_of) * 0.1 + 1e-9)
        for place, row in enumerate(reversed(rows_of)):
            expected[row] = 2 if place < test else 1 if place < test + valid else 0
    np.testing.assert_array_equal(split_by_group_time(rule, group, time), expected)


def test_group_time_split_of_a_file(csv_file: pathlib.Path, tmp_path: pathlib.Path, rows: list[dict[str, str]]) -> None:
    spec = IngestSpec(
        categorical=(CategoricalColumn("user"),), group="user", time="time", split=GroupTimeSplit(0.2, 0.2)
    )
    made = ingest(csv_source({"all": [csv_file]}), spec, tmp_path / "store")
    counts = collections.Counter(row["user"] for row in rows)
    assert made.split("test").rows == sum(math.floor(n * 0.2 + 1e-9) for n in counts.values())
    last = dict(zip(*(made.split("train").columns[k].tolist() for k in ("group", "time")), strict=True))
    for g, t in zip(*(made.split("test").columns[k].tolist() for k in ("group", "time")), strict=True):
        assert t >= last[g]


def test_files_per_split(csv_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    spec = IngestSpec(categorical=(CategoricalColumn("user"),), split=FileSplit())
    made = ingest(csv_source({"train": [csv_file], "test": [csv_file]}), spec, tmp_path / "store")
    assert {name: split.rows for name, split in made.splits.items()} == {"train": ROWS, "test": ROWS}
    with pytest.raises(DataError, match="one list of files, but the split rule is FileSplit"):
        ingest(csv_source({"all": [csv_file]}), spec, tmp_path / "other")


def test_new_rows_are_encoded_as_the_store_was(store: Store, csv_file: pathlib.Path) -> None:
    encoded = list(encode_frames(store, csv_source({"all": [csv_file]})))
    ids = np.concatenate([chunk.ids for chunk in encoded])
    numeric = np.concatenate([chunk.numeric for chunk in encoded])
    names = np.array(split_names(FULL.split))
    for split in store.splits:
        np.testing.assert_array_equal(ids[names == split], store.split(split).columns["ids"])
        np.testing.assert_array_equal(numeric[names == split], store.split(split).columns["numeric"])


def test_unseen_values_and_absent_labels_are_encoded(store: Store, tmp_path: pathlib.Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("user,city,clicks,genres,price,age,embedding\nnobody,Zürich,5,g1|none,,30,1;2;3\n")
    (chunk,) = encode_frames(store, csv_source({"all": [new]}))
    assert chunk.ids[0, 0] == 0
    assert chunk.ids[0, 1] > 0
    assert chunk.ids[0, 3] > 0
    assert chunk.ids[0, 4:].tolist() == [0, -1]
    assert chunk.labels.tolist() == [[0.0]]


@pytest.mark.parametrize("label", ["", "unknown", "2"])
def test_labels_of_rows_to_be_scored_are_not_read(store: Store, tmp_path: pathlib.Path, label: str) -> None:
    new = tmp_path / "new.csv"
    new.write_text(f"label,user,city,clicks,genres,price,age,embedding\n{label},u1,Zürich,5,g1,,30,1;2;3\n")
    (chunk,) = encode_frames(store, csv_source({"all": [new]}))
    assert chunk.labels.tolist() == [[0.0]]
    assert chunk.ids[0, 1] > 0


def test_a_store_of_made_data_cannot_encode_raw_rows(csv_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    made = write_synthetic(SyntheticConfig(train=20, valid=10, test=10), tmp_path / "made")
    with pytest.raises(DataError, match=rf"store {made.path} .*raw rows.*--split"):
        next(encode_frames(made, csv_source({"all": [csv_file]})))


def test_hashed_features_are_encoded_alike(csv_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    spec = IngestSpec(categorical=(CategoricalColumn("user", hash_buckets=9),), split=FractionSplit(0.0, 0.0))
    made = ingest(csv_source({"all": [csv_file]}), spec, tmp_path / "store")
    ids = np.concatenate([chunk.ids for chunk in encode_frames(made, csv_source({"all": [csv_file]}))])
    np.testing.assert_array_equal(ids, made.split("train").columns["ids"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (IngestSpec(), "no feature column is named"),
        (IngestSpec(categorical=(CategoricalColumn("user", hash_buckets=0),)), "hash_buckets=0"),
        (IngestSpec(categorical=(CategoricalColumn("user", min_count=0),)), "min_count=0"),
        (IngestSpec(categorical=(CategoricalColumn("user"),), split=FractionSplit(0.5, 0.5)), "add up to less than 1"),
        (IngestSpec(categorical=(CategoricalColumn("user"),), split=TimeSplit(1, 2)), "needs the time column"),
        (IngestSpec(categorical=(CategoricalColumn("user"),), time="time", split=TimeSplit(2, 1)), "exchange them"),
        (IngestSpec(categorical=(CategoricalColumn("user"),), time="time", split=GroupTimeSplit()), "group column"),
        (IngestSpec(categorical=(CategoricalColumn("user"),), numeric=(NumericColumn("user"),)), "used more than once"),
    ],
)
def test_specifications_that_cannot_be_followed(
    spec: IngestSpec, message: str, csv_file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        ingest(csv_source({"all": [csv_file]}), spec, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


MEASURED = """
import resource, sys
from wukong_jax.data.ingest import ingest
from wukong_jax.data.readers import blocks
from wukong_jax.data.sources import csv_source
from wukong_jax.data.spec import CategoricalColumn, IngestSpec, NumericColumn
blocks.BLOCK_BYTES = 1 << 20  # many blocks also in the smaller file
spec = IngestSpec(categorical=tuple(CategoricalColumn(f"c{i}") for i in range(10)), numeric=(NumericColumn("x"),))
ingest(csv_source({"all": [sys.argv[1]]}), spec, sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: pathlib.Path) -> None:
    """Same values, four times the rows: the peak of resident memory stays, up to the allocator's noise."""
    ids = np.arange(250_000)
    frame = pl.DataFrame({"label": ids % 2, "x": ids % 1000} | {f"c{i}": (ids * (i + 3)) % 5000 for i in range(10)})
    peaks = []
    for repeats in (3, 12):
        path = tmp_path / "rows.csv"
        pl.concat([frame] * repeats).write_csv(path)
        command = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "store")]
        environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[2])}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        peaks.append(int(done.stdout))
        mebibytes = path.stat().st_size / 2**20
    assert mebibytes > 120
    assert peaks[1] - peaks[0] < 40, peaks
