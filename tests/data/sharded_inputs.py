"""Inputs, specifications and an engine that the tests of sharded preparation share."""

import gzip
import hashlib
import pathlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import polars as pl
import pytest

from wukong_jax.data import shards, spill
from wukong_jax.data.readers import blocks
from wukong_jax.data.sources import FileSource, criteo_source, csv_source, libfm_source, parquet_source
from wukong_jax.data.spec import (
    CategoricalColumn,
    FileSplit,
    FractionSplit,
    GroupTimeSplit,
    IngestSpec,
    MultiHotColumn,
    NumericColumn,
    SplitRule,
    TimeSplit,
    VectorColumn,
)

T = TypeVar("T")
R = TypeVar("R")
ROWS = 600


class InTurn:
    """An engine in this process: calls in turn, with everything pickled as on its way to another one."""

    def __init__(self, workers: int = 2, calls: int = 1):
        self.workers, self.calls = workers, calls

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Each call is made `calls` times, as where a process died after its work was done."""
        for item in items:
            for _ in range(self.calls):
                result = pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item)))
            yield pickle.loads(pickle.dumps(result))


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of some blocks, and blocks of rows that reach over the borders of shards."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(spill, "BLOCK_ROWS", 64)
    monkeypatch.setattr(shards, "SMALLEST_SHARD", 4000)
    monkeypatch.setattr(shards, "LARGEST_SHARD", 30_000)


def frame(rows: int = ROWS, seed: int = 1) -> pl.DataFrame:
    """Rows with every kind of column, quotes and line ends inside fields, and missing values."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(rows):
        made.append(
            {
                "label": str(int(rng.random() < 0.3)),
                "user": f"u{int(rng.zipf(1.5)) % 60}",
                "city": ["", "Zürich", 'say "hi", he said', "東京", "two\nlines", "\\N"][int(rng.integers(6))],
                "clicks": ["", "-3", "0", "2", "3", "17", "100000"][int(rng.integers(7))],
                "shop": f"s{int(rng.integers(400))}",
                "genres": "|".join(f"g{g}" for g in rng.integers(0, 40, int(rng.integers(0, 5)))),
                "price": "" if rng.random() < 0.2 else str(round(float(rng.normal(3, 50)), 2)),
                "age": str(float(rng.normal(40, 11))),
                "embedding": ";".join(f"{x:.3f}" for x in rng.normal(size=3)),
                "time": str(5000 - i // 3),
                "weight": str(float(rng.integers(1, 4))),
            }
        )
    return pl.DataFrame(made)


def spec(split: SplitRule) -> IngestSpec:
    return IngestSpec(
        categorical=(
            CategoricalColumn("user", min_count=3),
            CategoricalColumn("city"),
            CategoricalColumn("clicks", bucketing="log2_square"),
            CategoricalColumn("shop", hash_buckets=50),
        ),
        multi_hot=(MultiHotColumn("genres", 3, combiner="mean", min_count=2),),
        numeric=(
            NumericColumn("price", "signed_log1p_standardise", missing_indicator=True),
            NumericColumn("age", "standardise"),
            NumericColumn("time", "min_max"),
        ),
        vectors=(VectorColumn("embedding", 3),),
        group="user",
        weight="weight",
        time="time",
        split=split,
    )


def _csv(folder: pathlib.Path, name: str, table: pl.DataFrame) -> pathlib.Path:
    table.write_csv(folder / name, quote_style="necessary")
    return folder / name


def one_file(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    return csv_source({"all": [_csv(folder, "rows.csv", frame())]}), spec(FractionSplit(0.2, 0.1, seed=7))


def several_files(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    """Small, packed and large, of other seeds, so with values that only one has."""
    paths = [_csv(folder, f"rows{i}.csv", frame(rows, i)) for i, rows in enumerate((3, 150, 1, 70, 300, 9))]
    packed = folder / "rows3.csv.gz"
    packed.write_bytes(gzip.compress(paths[3].read_bytes()))
    return csv_source({"all": [*paths[:3], packed, *paths[4:]]}), spec(FractionSplit(0.2, 0.1, seed=3))


def by_group_and_time(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    return csv_source({"all": [_csv(folder, "rows.csv", frame())]}), spec(GroupTimeSplit(0.1, 0.2))


def by_time(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    """The later times come first: one process meets test rows alone, then validation, then training rows."""
    return csv_source({"all": [_csv(folder, "rows.csv", frame())]}), spec(TimeSplit(4870, 4930))


def splits_in_one_block(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    """The first shard holds test rows only, but the first block of rows also training rows of the next."""
    late = pl.when(pl.int_range(pl.len()) < 20).then(9000).when(pl.int_range(pl.len()) < 100).then(0).otherwise(5000)
    table = frame(400).with_columns(late.alias("time"))
    paths = [_csv(folder, "a.csv", table[:20]), _csv(folder, "b.csv", table[20:])]
    return csv_source({"all": paths}), spec(TimeSplit(4000, 8000))


def files_by_split(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    paths = [_csv(folder, f"rows{i}.csv", frame(rows, i)) for i, rows in enumerate((300, 40, 100))]
    return csv_source({"train": paths[:1], "valid": paths[1:2], "test": paths[2:]}), spec(FileSplit())


def numbers_only(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    columns = IngestSpec(numeric=(NumericColumn("age", "standardise"),), split=FractionSplit(0.2, 0.0))
    return csv_source({"all": [_csv(folder, "rows.csv", frame())]}), columns


def criteo(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    rng = np.random.default_rng(2)
    lines = []
    for _ in range(120):
        counts, values = rng.integers(0, 9, 13).tolist(), rng.integers(0, 50, 26).tolist()
        lines.append("\t".join([str(rng.integers(2)), *map(str, counts), *(f"{v:08x}" for v in values)]))
    (folder / "day_0").write_text("\n".join(lines))
    columns = tuple(CategoricalColumn(f"C{i}", min_count=2) for i in range(1, 27))
    numbers = tuple(NumericColumn(f"I{i}", "min_max") for i in range(1, 14))
    return criteo_source({"all": [folder / "day_0"]}), IngestSpec(categorical=columns, numeric=numbers)


def libfm(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    lines = [f"{1 if i % 3 else -1} {i * i % 37}:1 {40 + i % 9}:1" for i in range(3000)]
    (folder / "rows.libfm").write_text("\n".join(lines) + "\n")
    columns = (CategoricalColumn("user"), CategoricalColumn("item"))
    return libfm_source({"all": [folder / "rows.libfm"]}, fields=("user", "item")), IngestSpec(categorical=columns)


def parquet(folder: pathlib.Path) -> tuple[FileSource, IngestSpec]:
    paths = []
    for i, rows in enumerate((100, 150, 20)):
        numbers = (pl.col(name).cast(pl.Float64) for name in ("age", "weight"))
        frame(rows, i).with_columns(*numbers, pl.col("genres").str.split("|")).write_parquet(folder / f"{i}.parquet")
        paths.append(folder / f"{i}.parquet")
    return parquet_source({"all": paths}), spec(FractionSplit(0.2, 0.1))


INPUTS = (
    one_file,
    several_files,
    by_group_and_time,
    by_time,
    splits_in_one_block,
    files_by_split,
    numbers_only,
    criteo,
    libfm,
    parquet,
)


def digest(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
