"""Sources of raw rows: CSV and TSV, Criteo, libFM, Parquet; each call reads the files anew, in the same chunks."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl

from wukong_jax.data.readers.blocks import Files, Span, resolve_files
from wukong_jax.data.readers.chunk import BadRow, Chunk, Source
from wukong_jax.data.readers.delimited import Dialect, first_fields, read_delimited
from wukong_jax.errors import DataError

__all__ = [
    "BadRow",
    "Chunk",
    "FileSource",
    "Files",
    "Source",
    "criteo_source",
    "csv_source",
    "libfm_source",
    "parquet_source",
]

CRITEO_NUMERIC = tuple(f"I{i}" for i in range(1, 14))
CRITEO_CATEGORICAL = tuple(f"C{i}" for i in range(1, 27))
CRITEO_COLUMNS = ("label", *CRITEO_NUMERIC, *CRITEO_CATEGORICAL)
CRITEO_DIALECT, LIBFM_DIALECT = Dialect("\t", None), Dialect(" ", None)
PARQUET_ROWS = 65_536


Reader = Callable[..., Iterator[Chunk]]
"""Called with a path, the split or None, and `span`, a part of the file or None."""


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Raw files of one form; a call reads them all, one after the other. It can be sent to another process."""

    files: tuple[tuple[str | None, pathlib.Path], ...]
    """(split, path) in reading order; split None where one list of files is given."""
    reader: Reader
    dialect: Dialect | None
    """How rows of text are written; None for Parquet, whose files are not cut into spans."""

    def __call__(self) -> Iterator[Chunk]:
        """Chunks of all files."""
        for split, path in self.files:
            yield from self.reader(path, split, span=None)


def csv_source(
    files: Files, *, separator: str = ",", columns: Sequence[str] | None = None, quote: str | None = '"'
) -> FileSource:
    """Delimited text; the first line of each file names the columns unless `columns` does. Raises `DataError`.

    `files` maps "all", or "train", "valid" and "test", to paths or globs; `.gz` and `.zst` are unpacked on the way.
    """
    if len(separator.encode()) != 1 or (quote is not None and len(quote.encode()) != 1):
        raise DataError(f"separator {separator!r} and quote {quote!r} must each be one ASCII character")
    dialect = Dialect(separator, quote)
    reader = functools.partial(read_delimited, dialect=dialect, columns=columns)
    return FileSource(tuple(resolve_files(files)), reader, dialect)


def criteo_source(files: Files) -> FileSource:
    """Criteo's TSV without header (Kaggle and Terabyte): label, I1 to I13, C1 to C26; test files lack the label."""
    return FileSource(tuple(resolve_files(files)), _read_criteo, CRITEO_DIALECT)


def libfm_source(files: Files, *, fields: Sequence[str], label: str = "label") -> FileSource:
    """Lines `label id:1 id:1 ...`, one pair for each of `fields` by position; label -1 is read as 0 (libFM)."""
    reader = functools.partial(_read_libfm, fields=list(fields), label=label)
    return FileSource(tuple(resolve_files(files)), reader, LIBFM_DIALECT)


def parquet_source(files: Files) -> FileSource:
    """Parquet files with their own types; lines in messages are row numbers, from 1."""
    return FileSource(tuple(resolve_files(files)), _read_parquet, None)


def _read_criteo(path: pathlib.Path, split: str | None, *, span: Span | None) -> Iterator[Chunk]:
    unlabelled = first_fields(path, CRITEO_DIALECT) == len(CRITEO_COLUMNS) - 1
    columns = CRITEO_COLUMNS[1:] if unlabelled else CRITEO_COLUMNS
    yield from read_delimited(path, split, CRITEO_DIALECT, columns, span=span)


def _read_libfm(
    path: pathlib.Path, split: str | None, *, span: Span | None, fields: list[str], label: str
) -> Iterator[Chunk]:
    for chunk in read_delimited(path, split, LIBFM_DIALECT, (label, *fields), span=span):
        yield _libfm_chunk(chunk, label, fields)


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


def _read_parquet(path: pathlib.Path, split: str | None, *, span: None) -> Iterator[Chunk]:
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
