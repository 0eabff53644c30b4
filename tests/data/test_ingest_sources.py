"""The formats: what is read, in which order, across block borders, packed or not."""

import datetime
import gzip
import math
import pathlib
import re

import numpy as np
import polars as pl
import pytest

from wukong_jax.data.ingest import encode_frames, ingest, vocabulary_file
from wukong_jax.data.readers import blocks
from wukong_jax.data.sources import (
    CRITEO_CATEGORICAL,
    CRITEO_NUMERIC,
    Chunk,
    Source,
    criteo_source,
    csv_source,
    libfm_source,
    parquet_source,
)
from wukong_jax.data.spec import (
    CategoricalColumn,
    FileSplit,
    FractionSplit,
    IngestSpec,
    MultiHotColumn,
    NumericColumn,
    VectorColumn,
)
from wukong_jax.errors import DataError

NO_SPLIT = FractionSplit(0.0, 0.0)
TEXT = 'name,note\nanna,"a, ""b"""\nbert,"two\r\nlines"\nül,\ncarl,""\n"dora",x\n'.encode()
ROWS = [("anna", 'a, "b"'), ("bert", "two\r\nlines"), ("ül", ""), ("carl", ""), ("dora", "x")]


def read(source: Source) -> list[Chunk]:
    return list(source())


def rows_of(source: Source) -> list[tuple[object, ...]]:
    return [row for chunk in source() for row in chunk.frame.rows()]


def pack(path: pathlib.Path, data: bytes) -> pathlib.Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data[:20]) + gzip.compress(data[20:]))
    elif path.suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        compress = zstandard.ZstdCompressor().compress
        path.write_bytes(compress(data[:20]) + compress(data[20:]))
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("block_bytes", [1, 7, 16, 1 << 20])
def test_quoted_csv_in_blocks_of_any_size(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, suffix: str
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(blocks, "MAX_RECORD_BLOCKS", 1000)
    path = pack(tmp_path / f"rows.csv{suffix}", TEXT)
    source = csv_source({"all": [path]})
    assert rows_of(source) == ROWS
    assert rows_of(source) == ROWS  # a second pass reads the same
    places = [chunk.line(row) for chunk in read(source) for row in range(chunk.frame.height)]
    assert places == [2, 3, 5, 6, 7]
    texts = [chunk.text(row) for chunk in read(source) for row in range(chunk.frame.height)]
    assert texts[1] == 'bert,"two\r\nlines"'


@pytest.mark.parametrize(
    "data",
    [b"a\tb\n1\t2\n3\t4\n", b"a\tb\r\n1\t2\r\n3\t4\r\n", b"\xef\xbb\xbfa\tb\n1\t2\n3\t4", b"a\tb\n1\t2\r\n3\t4"],
    ids=["unix", "windows", "byte order mark, no last line end", "mixed"],
)
def test_line_ends_and_byte_order_marks(tmp_path: pathlib.Path, data: bytes) -> None:
    (tmp_path / "rows.tsv").write_bytes(data)
    source = csv_source({"all": [tmp_path / "rows.tsv"]}, separator="\t", quote=None)
    assert {tuple(chunk.frame.columns) for chunk in source()} == {("a", "b")}
    assert rows_of(source) == [("1", "2"), ("3", "4")]


def test_without_quoting_a_quote_is_a_character(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows.tsv").write_text('a\tb\n5" x\t"\n')
    assert rows_of(csv_source({"all": [tmp_path / "rows.tsv"]}, separator="\t", quote=None)) == [('5" x', '"')]


def test_a_glob_reads_files_in_name_order_and_each_has_its_header(tmp_path: pathlib.Path) -> None:
    for name, text in {"b.csv": "y,x\n4,3\n", "a.csv": "x,y\n1,2\n"}.items():
        (tmp_path / name).write_text(text)
    chunks = read(csv_source({"all": [str(tmp_path / "*.csv")]}))
    assert [chunk.frame.select("x", "y").row(0) for chunk in chunks] == [("1", "2"), ("3", "4")]


def test_criteo_sample_against_a_plain_reading(shared_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = shared_data / "criteo" / "train_examples.txt.gz"
    spec = IngestSpec(
        categorical=tuple(CategoricalColumn(name, min_count=2) for name in CRITEO_CATEGORICAL),
        numeric=tuple(NumericColumn(name) for name in CRITEO_NUMERIC),
        split=NO_SPLIT,
    )
    store = ingest(criteo_source({"all": [path]}), spec, tmp_path / "store")
    raw = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    columns = store.split("train").columns
    assert len(raw) == 10_000 == store.split("train").rows
    np.testing.assert_array_equal(columns["labels"][:, 0], [float(row[0]) for row in raw])
    assert columns["labels"].sum() == 2182
    np.testing.assert_array_equal(columns["numeric"], [[float(x or 0) for x in row[1:14]] for row in raw])
    values = [row[16] for row in raw]
    ids = columns["ids"][:, 2].tolist()
    assert all((values.count(value) < 2) == (id_ == 0) for value, id_ in zip(values[:200], ids[:200], strict=True))
    pairs = {(value, id_) for value, id_ in zip(values, ids, strict=True) if id_}
    assert len(pairs) == len({value for value, _ in pairs}) == store.schema.categorical[2].vocabulary_size - 1


def test_a_criteo_file_without_labels_can_only_be_scored(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text("\t".join(["1"] * 13 + ["ab"] * 26) + "\n")
    (chunk,) = read(criteo_source({"all": [path]}))
    assert chunk.frame.columns == [*CRITEO_NUMERIC, *CRITEO_CATEGORICAL]
    spec = IngestSpec(categorical=(CategoricalColumn("C1"),), split=NO_SPLIT)
    with pytest.raises(DataError, match=r"no column 'label'.*only scored with `predict`"):
        ingest(criteo_source({"all": [path]}), spec, tmp_path / "store")


FRAPPE = "user item daytime weekday isweekend homework cost weather country city".split()


def test_libfm_frappe(shared_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = shared_data / "frappe"
    files = {"train": [folder / "frappe.validation.libfm.gz"], "test": [folder / "frappe.test.libfm.gz"]}
    spec = IngestSpec(categorical=tuple(CategoricalColumn(name) for name in FRAPPE), split=FileSplit())
    store = ingest(libfm_source(files, fields=FRAPPE), spec, tmp_path / "store")
    assert {name: split.rows for name, split in store.splits.items()} == {"train": 57_722, "test": 28_860}
    assert store.split("train").columns["labels"].sum() == 19_063
    assert store.split("test").columns["labels"].sum() == 9_536


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 3:1 4:0.5", "line 2: expected `id:1` for each of the 2 fields"),
        ("1 3 4:1", "line 2: expected `id:1`"),
        ("1 3:1", "line 2: 2 columns, expected 3"),
        ("2 3:1 4:1", "line 2: column 'label' holds '2', expected the label 0 or 1"),
    ],
)
def test_libfm_lines_of_another_form(tmp_path: pathlib.Path, line: str, message: str) -> None:
    (tmp_path / "rows.libfm").write_text(f"-1 1:1 2:1\n{line}\n1 1:1.0 2:1\n")
    spec = IngestSpec(categorical=(CategoricalColumn("a"), CategoricalColumn("b")), split=NO_SPLIT)
    source = libfm_source({"all": [tmp_path / "rows.libfm"]}, fields=["a", "b"])
    with pytest.raises(DataError, match=message):
        ingest(source, spec, tmp_path / "store")
    store = ingest(source, spec, tmp_path / "store", on_bad_rows="skip")
    assert store.split("train").columns["labels"][:, 0].tolist() == [0.0, 1.0]
    assert line in (tmp_path / "store.bad_rows.tsv").read_text()


def test_parquet_keeps_types(tmp_path: pathlib.Path) -> None:
    frame = pl.DataFrame(
        {
            "label": [True, False, True],
            "user": [7, None, 7],
            "tags": [["a", "b"], [], None],
            "price": [1.5, None, -2.0],
            "embedding": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            "when": pl.Series([0, 60, 120]).cast(pl.Datetime("ms")),
        }
    ).with_columns(pl.col("when").dt.cast_time_unit("us"))
    frame.write_parquet(tmp_path / "rows.parquet")
    spec = IngestSpec(
        categorical=(CategoricalColumn("user"),),
        multi_hot=(MultiHotColumn("tags", 2),),
        numeric=(NumericColumn("price", missing_indicator=True),),
        vectors=(VectorColumn("embedding", 2),),
        split=NO_SPLIT,
    )
    columns = (
        ingest(parquet_source({"all": [tmp_path / "rows.parquet"]}), spec, tmp_path / "store").split("train").columns
    )
    assert columns["ids"].tolist() == [[1, 1, 2], [2, -1, -1], [1, -1, -1]]
    assert columns["numeric"].tolist() == [[1.5, 0.0], [0.0, 1.0], [-2.0, 0.0]]
    assert columns["vectors"].tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert columns["labels"][:, 0].tolist() == [1.0, 0.0, 1.0]


def test_parquet_times_and_bad_rows(tmp_path: pathlib.Path) -> None:
    when = pl.Series([0, 1_600_000_000, 5]).cast(pl.Int64) * 1_000_000
    frame = pl.DataFrame({"label": [1, 0, 1], "user": [1, 2, 3], "price": [1.0, 2.0, float("inf")]})
    frame = frame.with_columns(when.cast(pl.Datetime("us")).alias("when"))
    frame.write_parquet(tmp_path / "rows.parquet")
    spec = IngestSpec(numeric=(NumericColumn("price"),), time="when", split=NO_SPLIT)
    source = parquet_source({"all": [tmp_path / "rows.parquet"]})
    with pytest.raises(DataError, match=r"rows.parquet, row 3: column 'price' holds inf, expected a finite float32"):
        ingest(source, spec, tmp_path / "store")
    store = ingest(source, spec, tmp_path / "store", on_bad_rows="skip")
    assert store.split("train").columns["time"].tolist() == [0, 1_600_000_000]


COUNTS = [None, -3, 2, 3, 17, 100_000]
DAYS = [None, *(datetime.date(1970, 1, 1) + datetime.timedelta(days) for days in (0, 1, 20, 20_000))]
COUNT_SPEC = IngestSpec(categorical=(CategoricalColumn("count", bucketing="log2_square"),), split=NO_SPLIT)


def log2_square(number: int | None) -> str:
    """Criteo's bucketing as text, "" where the value is missing."""
    return "" if number is None else str(math.floor(math.log(number) ** 2) if number > 2 else number)


@pytest.mark.parametrize(
    ("values", "integers"),
    [
        (pl.Series(COUNTS, dtype=pl.Int32), COUNTS),
        (pl.Series(COUNTS, dtype=pl.Float64), COUNTS),
        (pl.Series(COUNTS, dtype=pl.Float32), COUNTS),
        (pl.Series(COUNTS, dtype=pl.Decimal(12, 2)), COUNTS),
        (pl.Series([n if n is None else str(n) for n in COUNTS], dtype=pl.Categorical), COUNTS),
        (pl.Series(DAYS), [n if n is None else (n - datetime.date(1970, 1, 1)).days * 86_400 for n in DAYS]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pl.Series) else "",
)
def test_parquet_columns_of_integers_are_bucketed_whatever_their_type(
    tmp_path: pathlib.Path, values: pl.Series, integers: list[int | None]
) -> None:
    frame = pl.DataFrame({"label": [0] * len(values), "count": values})
    frame.write_parquet(tmp_path / "rows.parquet")
    source = parquet_source({"all": [tmp_path / "rows.parquet"]})
    store = ingest(source, COUNT_SPEC, tmp_path / "store")
    words = ["", *pl.read_parquet(store.path / vocabulary_file("count"))["value"]]
    ids = store.split("train").columns["ids"][:, 0].tolist()
    assert [words[id_] for id_ in ids] == [log2_square(number) for number in integers]
    assert 0 not in ids
    (scored,) = encode_frames(store, source)
    assert scored.ids[:, 0].tolist() == ids


@pytest.mark.parametrize("value", [3.5, math.nan, math.inf, 1e19])
def test_a_parquet_number_that_is_no_integer_cannot_be_bucketed(tmp_path: pathlib.Path, value: float) -> None:
    pl.DataFrame({"label": [1, 0, 1], "count": [4.0, value, None]}).write_parquet(tmp_path / "rows.parquet")
    source = parquet_source({"all": [tmp_path / "rows.parquet"]})
    message = rf"rows.parquet, row 2: column 'count' holds {re.escape(repr(value))}, expected an integer, as its bucket"
    with pytest.raises(DataError, match=message):
        ingest(source, COUNT_SPEC, tmp_path / "store")
    assert ingest(source, COUNT_SPEC, tmp_path / "store", on_bad_rows="skip").split("train").rows == 2


@pytest.mark.parametrize("bad", [60.5, None, math.nan])
def test_parquet_times_that_are_floats_must_be_whole(tmp_path: pathlib.Path, bad: float | None) -> None:
    frame = pl.DataFrame({"label": [1, 0, 1], "price": [1.0, 2.0, 3.0], "when": [5.0, bad, 1_600_000_000.0]})
    frame.write_parquet(tmp_path / "rows.parquet")
    spec = IngestSpec(numeric=(NumericColumn("price"),), time="when", split=NO_SPLIT)
    source = parquet_source({"all": [tmp_path / "rows.parquet"]})
    with pytest.raises(DataError, match=r"row 2: column 'when' holds .*, expected a time as an integer"):
        ingest(source, spec, tmp_path / "store")
    store = ingest(source, spec, tmp_path / "store", on_bad_rows="skip")
    assert store.split("train").columns["time"].tolist() == [5, 1_600_000_000]


def test_a_damaged_parquet_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"rows.parquet cannot be read as Parquet"):
        read(parquet_source({"all": [tmp_path / "rows.parquet"]}))
