"""Sources of raw rows: CSV and TSV, Criteo, libFM, Parquet; each call reads the files anew, in the same chunks."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from wukong_jax.data.readers.blocks import Files, resolve_files
from wukong_jax.data.readers.chunk import BadRow, Chunk, Source
from wukong_jax.data.readers.delimited import Dialect, first_fields, read_delimited
from wukong_jax.errors import DataError

__all__ = ["BadRow", "Chunk", "Files", "Source", "criteo_source", "csv_source", "libfm_source", "parquet_source"]

CRITEO_NUMERIC = tuple(f"I{i}" for i in range(1, 14))
CRITEO_CATEGORICAL = tuple(f"C{i}" for i in range(1, 27))
CRITEO_COLUMNS = ("label", *CRITEO_NUMERIC, *CRITEO_CATEGORICAL)
PARQUET_ROWS = 65_536


def csv_source(
    files: Files, *, separator: str = ",", columns: Sequence[str] | None = None, quote: str | None = '"'
) -> Source:
    """Delimited text; the first line of each file names the columns unless `columns` does. Raises `DataError`.

    `files` maps "all", or "train", "valid" and "test", to paths or globs; `.gz` and `.zst` are unpacked on the way.
    """
    if len(separator.encode()) != 1 or (quote is not None and len(quote.encode()) != 1):
        raise DataError(f"separator {separator!r} and quote {quote!r} must each be one ASCII character")
    paths, dialect = resolve_files(files), Dialect(separator, quote)

    def read() -> Iterator[Chunk]:
        for split, path in paths:
            yield from read_delimited(path, split, dialect, columns)

    return read


def criteo_source(files: Files) -> Source:
    """Criteo's TSV without header (Kaggle and Terabyte): label, I1 to I13, C1 to C26; test files lack the label."""
    paths, dialect = resolve_files(files), Dialect("\t", None)

    def read() -> Iterator[Chunk]:
        for split, path in paths:
            unlabelled = first_fields(path, dialect) == len(CRITEO_COLUMNS) - 1
            yield from read_delimited(path, split, dialect, CRITEO_COLUMNS[1:] if unlabelled else CRITEO_COLUMNS)

    return read


def libfm_source(files: Files, *, fields: Sequence[str], label: str = "label") -> Source:
    """Lines `label id:1 id:1 ...`, one pair for each of `fields` by position; label -1 is read as 0 (libFM)."""
    paths, dialect, columns = resolve_files(files), Dialect(" ", None), (label, *fields)

    def read() -> Iterator[Chunk]:
        for split, path in paths:
            for chunk in read_delimited(path, split, dialect, columns):
                yield _libfm_chunk(chunk, label, list(fields))

    return read


def parquet_source(files: Files) -> Source:
    """Parquet files with their own types; lines in messages are row numbers, from 1."""
    paths = resolve_files(files)

    def read() -> Iterator[Chunk]:
        for split, path in paths:
            yield from _read_parquet(split, path)

    return read


def _libfm_chunk(chunk: Chunk, label: str, fields: list[str]) -> Chunk:
    """Strip `:1` from every pair; rows with another value or without a colon are bad."""
    pairs = pl.col(fields)
    wrong = chunk.frame.select(pl.any_horizontal(~pairs.str.contains(r"^[^:]+:1(\.0*)?$")).alias("bad"))["bad"]
    frame = chunk.frame.with_columns(pairs.str.replace(r":.*$", ""), pl.col(label).replace({"-1": "0"}))
    if not wrong.any():
        return chunk._replace(frame=frame)
    rows, good = wrong.arg_true().to_list(), (~wrong).arg_true().to_numpy()
    reason = f"expected `id:1` for each of the {len(fields)} fields (only one-hot values are supported)"
    bad = [BadRow(chunk.file, chunk.line(row), reason, chunk.text(row)) for row in rows]
    return select_rows(chunk._replace(frame=frame), good, sorted([*chunk.bad, *bad], key=lambda row: row.line))


def select_rows(chunk: Chunk, rows: np.ndarray, bad: Sequence[BadRow]) -> Chunk:
    """The chunk with the given rows only, the others listed in `bad`."""
    lines = np.array([chunk.line(int(row)) for row in rows], np.int64)
    kept = chunk.frame[rows]
    return chunk._replace(frame=kept, lines=lines, bad=tuple(bad), raw=lambda row: chunk.text(int(rows[row])))


def _read_parquet(split: str | None, path: pathlib.Path) -> Iterator[Chunk]:
    first = 1
    try:
        for frame in pl.scan_parquet(path, glob=False).collect_batches(chunk_size=PARQUET_ROWS, maintain_order=True):
            if frame.height:
                yield Chunk(frame, split, str(path), first, unit="row")
            first += frame.height
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    if first == 1:
        raise DataError(f"{path} has no rows")
