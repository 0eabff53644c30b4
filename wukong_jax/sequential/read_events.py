"""Files of events to sequences: tables of (user, item, time), one user a line, or one event a line in time order.

Events are sorted by user and time; those of a user with one time keep the file's order. A row whose user, item and
time are all those of an earlier row is a duplicate and is dropped: as a target it would ask for the item before it.
Users and items are numbered in rising order of their ids where all ids are integers, else in the order of their first
appearance in the file.
"""

import bisect
import itertools
import pathlib
from collections.abc import Iterable
from typing import Literal, NamedTuple

import polars as pl

from wukong_jax.data.readers.blocks import read_blocks
from wukong_jax.data.readers.chunk import Chunk
from wukong_jax.data.readers.delimited import Dialect, first_fields, read_delimited
from wukong_jax.data.sources import csv_source, parquet_source
from wukong_jax.errors import DataError
from wukong_jax.sequential.arrange import Arranged, arrange, in_order
from wukong_jax.sequential.event_times import parse_times
from wukong_jax.sequential.sequences import Sequences

Format = Literal["csv", "tsv", "parquet", "lists", "pairs"]
SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


class Table(NamedTuple):
    """Columns of a file in its order, and its chunks, which know the lines of their rows."""

    frame: pl.DataFrame
    chunks: list[Chunk]
    ends: list[int]
    """Number of rows up to the end of each chunk."""

    def place(self, row: int) -> str:
        """File and line of a row."""
        at = bisect.bisect_right(self.ends, row)
        chunk = self.chunks[at]
        return f"{chunk.file}, {chunk.unit} {chunk.line(row - (self.ends[at - 1] if at else 0))}"


def read_events(
    path: pathlib.Path, user: str = "user", item: str = "item", time: str = "time", format: Format | None = None
) -> Arranged:
    """Sequences of a table with these columns, or of a file of lists or pairs; raises `DataError`.

    csv and tsv (with a header) and parquet; lists: `user item item ...`, one user a line; pairs: `user item`, one
    event a line, each user's in time order. Text may be gzipped (.gz) or Zstandard (.zst). By default the format is
    that of the file's name. Times are integers, decimals, or dates as ISO 8601, which become seconds since 1970, UTC.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder, expected a file' if path.is_dir() else 'no such file'}")
    format = format or format_of(path)
    if format == "lists":
        return Arranged(read_lists(path))
    if format == "pairs":
        return Arranged(read_pairs(path))
    names = {"user": user, "item": item, "time": time}
    if len(set(names.values())) < 3:
        raise DataError(f"columns: received {', '.join(names.values())} for user, item and time, expected three")
    files = {"all": [path]}
    if format == "parquet":
        table = _table(parquet_source(files)(), names)
    else:
        separator, quote = (",", '"') if format == "csv" else ("\t", None)
        table = _table(csv_source(files, separator=separator, quote=quote)(), names)
    frame = table.frame
    times = parse_times(frame["time"])
    for row in times.keys.is_null().arg_true()[:1]:
        raise DataError(
            f"{table.place(row)}: column {time!r} (the time) is {frame['time'][row]!r}; expected an integer, a decimal "
            "below 9e9 or a date such as 2024-05-01 12:30:00, of one kind in the whole column"
        )
    return arrange(frame["user"], frame["item"], times, str(path))


def format_of(path: pathlib.Path) -> Format:
    """The format by the file's name; raises `DataError` where that does not tell."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    if not suffixes or suffixes[-1] not in SUFFIXES:
        raise DataError(
            f"{path}: the name does not tell the format; expected .csv, .tsv or .parquet (text also .gz or .zst), or "
            "give the format: csv, tsv, parquet, lists (`user item item ...` a line) or pairs (`user item` a line)"
        )
    return SUFFIXES[suffixes[-1]]


def read_lists(path: pathlib.Path) -> Sequences:
    """Lines `user item item ...` in time order; a line with a user alone is a user without items."""
    lines: dict[str, int] = {}
    lengths, items = [], []
    for block in read_blocks(path):
        for number, line in enumerate(block.data.split(b"\n"), block.first_line):
            try:
                user, *own = line.decode().split() or ("",)
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error
            if user in lines:
                raise DataError(f"{path}, line {number}: user {user} is also on line {lines[user]}; expected one line")
            if user:
                lines[user] = number
                lengths.append(len(own))
                items.extend(own)
    if not items:
        raise DataError(f"{path}: no line has an item; expected lines `user item item ...`")
    users = list(lines)
    owners = list(itertools.chain.from_iterable(map(itertools.repeat, users, lengths)))
    return in_order(pl.Series(owners), pl.Series(items), str(path), pl.Series(users))


def read_pairs(path: pathlib.Path) -> Sequences:
    """Lines `user item`, separated by a tab or a space, each user's in time order."""
    tab = first_fields(path, Dialect("\t", None)) > 1
    table = _table(read_delimited(path, None, Dialect("\t" if tab else " ", None), ("user", "item")), PAIR)
    return in_order(table.frame["user"], table.frame["item"], str(path))


PAIR = {"user": "user", "item": "item"}


def _table(chunks: Iterable[Chunk], names: dict[str, str]) -> Table:
    """The columns by their roles; `DataError` for a malformed row, an unknown column and an empty cell."""
    frames, places, ends = [], [], [0]
    for chunk in chunks:
        for bad in chunk.bad[:1]:
            raise DataError(f"{bad.file}, {chunk.unit} {bad.line}: {bad.reason}; received {bad.text[:100]!r}")
        for role, name in names.items():
            if name not in chunk.frame.columns:
                raise DataError(
                    f"{chunk.file}: no column {name!r} (the {role}); its columns are {', '.join(chunk.frame.columns)}"
                )
        frames.append(chunk.frame.select(**{role: pl.col(name) for role, name in names.items()}))
        places.append(chunk._replace(frame=chunk.frame.clear(), raw=None))
        ends.append(ends[-1] + chunk.frame.height)
    table = Table(pl.concat(frames), places, ends[1:])
    for role in ("user", "item"):
        table = table._replace(frame=table.frame.with_columns(_ids(table.frame[role], table, names[role])))
    for role, name in names.items():
        column = table.frame[role]
        blank = column.is_null()
        if column.dtype == pl.String:
            blank |= column.str.strip_chars() == ""
        for row in blank.arg_true()[:1]:
            raise DataError(f"{table.place(row)}: column {name!r} (the {role}) is empty; fill in or remove the row")
    return table


def _ids(column: pl.Series, table: Table, name: str) -> pl.Series:
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if column.dtype != pl.String and not column.dtype.is_integer():
        raise DataError(f"{table.chunks[0].file}: column {name!r} holds {column.dtype}, expected integers or text")
    return column
