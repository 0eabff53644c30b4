"""Blocks of delimited text to frames of strings; rows of the wrong form are found with their exact line."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from wukong_jax.data.readers.blocks import Block, Span, read_blocks
from wukong_jax.data.readers.chunk import BadRow, Chunk
from wukong_jax.errors import DataError


class Dialect(NamedTuple):
    """How rows are written: one-character separator, and the quote that may enclose a field (None: no quoting)."""

    separator: str = ","
    quote: str | None = '"'

    @property
    def quote_byte(self) -> bytes | None:
        """The quote as a byte."""
        return None if self.quote is None else self.quote.encode()


def read_delimited(
    path: pathlib.Path,
    split: str | None,
    dialect: Dialect,
    columns: Sequence[str] | None,
    *,
    span: Span | None = None,
) -> Iterator[Chunk]:
    """Chunks of string columns; `columns` None takes the names from the file's first line. Raises `DataError`."""
    names = None if columns is None else list(columns)
    if names is None and span is not None and span.start:
        names, _ = _header(path, next(read_blocks(path, quote=dialect.quote_byte)), dialect)
    rows = 0
    for block in read_blocks(path, quote=dialect.quote_byte, span=span):
        if names is None:
            names, block = _header(path, block, dialect)
            if not block.data:
                continue
        chunk = _parse(path, split, dialect, names, block)
        rows += chunk.frame.height + len(chunk.bad)
        yield chunk
    if not rows and span is None:
        raise DataError(f"{path} has a header but no rows")


def first_fields(path: pathlib.Path, dialect: Dialect) -> int:
    """Number of fields on the first line."""
    block = next(iter(read_blocks(path, quote=dialect.quote_byte)))
    return _fields(block.data.split(b"\n", 1)[0], dialect)


def _header(path: pathlib.Path, block: Block, dialect: Dialect) -> tuple[list[str], Block]:
    line, _, rest = block.data.partition(b"\n")
    try:
        text = line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line 1: the header is not UTF-8 ({error.reason} at byte {error.start})") from error
    names = text.split(dialect.separator)
    if dialect.quote:
        names = [name.strip().strip(dialect.quote) for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        problem = f"the column names {twice} occur more than once" if twice else "a column has no name"
        raise DataError(f"{path}, line 1: {problem}; expected a header of distinct names, received {text[:200]!r}")
    return names, Block(rest, block.first_line + 1)


def _parse(path: pathlib.Path, split: str | None, dialect: Dialect, names: list[str], block: Block) -> Chunk:
    frame = _read(block.data, names, dialect)
    if frame is not None and _well_formed(block.data, frame.height, len(names), dialect):
        lines = None
        if dialect.quote_byte is not None and frame.height != _line_ends(block.data):
            records = _records(block, dialect)
            lines = np.array([line for line, _ in records], np.int64)
        return Chunk(frame, split, str(path), block.first_line, lines, (), _Raw(block, dialect))
    return _parse_slowly(path, split, dialect, names, block)


def _read(data: bytes, names: list[str], dialect: Dialect) -> pl.DataFrame | None:
    """All columns as strings, "" where a field is empty; None where Polars finds the block malformed."""
    if data.strip(b"\r\n") == b"" and len(names) > 1:
        return None
    try:
        return pl.read_csv(
            data,
            has_header=False,
            schema=dict.fromkeys(names, pl.String),
            separator=dialect.separator,
            quote_char=dialect.quote,
            empty_string_is_null=False,
        )
    except pl.exceptions.PolarsError:
        return None


def _well_formed(data: bytes, rows: int, fields: int, dialect: Dialect) -> bool:
    """Whether there are as many separators and lines as so many whole rows have (Polars pads short rows silently).

    Polars refuses rows that are too long, so a right total means that none is too short.
    """
    separator, quote = dialect.separator.encode(), dialect.quote_byte
    values = np.frombuffer(data, np.uint8)
    if quote is None or quote not in data:
        return int(np.count_nonzero(values == separator[0])) == rows * (fields - 1) and _line_ends(data) == rows
    outside = np.bitwise_xor.accumulate(values == quote[0]) == 0
    ends = int(np.count_nonzero(outside & (values == ord("\n")))) + (not data.endswith(b"\n"))
    return int(np.count_nonzero(outside & (values == separator[0]))) == rows * (fields - 1) and ends == rows


def _line_ends(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n"))


def _records(block: Block, dialect: Dialect) -> list[tuple[int, bytes]]:
    """(line, bytes) of every record; one goes over several lines while a quote is open."""
    lines = block.data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    records, start, quotes = [], 0, 0
    for i, line in enumerate(lines):
        quotes += line.count(dialect.quote_byte) if dialect.quote_byte else 0
        if quotes % 2 == 0 or i == len(lines) - 1:
            records.append((block.first_line + start, b"\n".join(lines[start : i + 1]).removesuffix(b"\r")))
            start, quotes = i + 1, 0
    return records


def _parse_slowly(path: pathlib.Path, split: str | None, dialect: Dialect, names: list[str], block: Block) -> Chunk:
    """Look at every record, set aside those of the wrong form, and parse the others."""
    bad, good = [], []
    for line, record in _records(block, dialect):
        reason = _fault(record, len(names), dialect)
        if reason is None:
            good.append((line, record))
        else:
            bad.append(BadRow(str(path), line, reason, record.decode(errors="backslashreplace")))
    frames, good, faults = _salvage(str(path), names, dialect, good)
    frame = pl.concat([_empty(names), *frames])
    bad = sorted([*bad, *faults], key=lambda row: row.line)
    lines = np.array([line for line, _ in good], np.int64)
    texts = [record for _, record in good]
    return Chunk(
        frame, split, str(path), block.first_line, lines, tuple(bad), lambda row: texts[row].decode(errors="replace")
    )


def _salvage(
    file: str, names: list[str], dialect: Dialect, records: list[tuple[int, bytes]]
) -> tuple[list[pl.DataFrame], list[tuple[int, bytes]], list[BadRow]]:
    """Parse records, halving them where Polars refuses: that finds the few whose quotes are out of place."""
    if not records:
        return [], [], []
    frame = _read(b"".join(record + b"\n" for _, record in records), names, dialect)
    if frame is not None and frame.height == len(records):
        return [frame], records, []
    if len(records) == 1:
        line, record = records[0]
        reason = f"quotes ({dialect.quote}) are out of place; a field with quotes is enclosed and doubles them"
        return [], [], [BadRow(file, line, reason, record.decode())]
    middle = len(records) // 2
    first, second = (_salvage(file, names, dialect, part) for part in (records[:middle], records[middle:]))
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def _fault(record: bytes, fields: int, dialect: Dialect) -> str | None:
    try:
        record.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 ({error.reason} at byte {error.start + 1} of the row)"
    if dialect.quote_byte and record.count(dialect.quote_byte) % 2:
        return f"a quote ({dialect.quote}) is opened and never closed"
    found = _fields(record, dialect)
    if found != fields:
        return f"{found} columns, expected {fields} (separator {dialect.separator!r})"
    return None


def _fields(record: bytes, dialect: Dialect) -> int:
    """Number of fields, by the separators outside quotes."""
    parts = record.split(dialect.quote_byte)[::2] if dialect.quote_byte else [record]
    return 1 + sum(part.count(dialect.separator.encode()) for part in parts)


def _empty(names: list[str]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(names, pl.String))


class _Raw:
    """Text of the rows of a block, split only when it is asked for."""

    def __init__(self, block: Block, dialect: Dialect):
        self._block, self._dialect = block, dialect

    def __call__(self, row: int) -> str:
        return _records(self._block, self._dialect)[row][1].decode()
