"""What both MovieLens recipes share: parsers of each source and one canonical table of strings.

Every rating becomes a click-through example: label 1 for a rating of 4 or 5. Columns of the canonical table:

    label user_id age gender occupation zip_prefix item_id year genres hour weekday timestamp

age is the lower end of MovieLens 1M's brackets (1, 18, 25, 35, 45, 50, 56), so that both data sets mean the same by it;
zip_prefix its first 3 characters (US sectional centre, Canadian sortation area); year is taken from the title;
genres are joined with |; hour (0-23) and weekday (1 Monday - 7 Sunday) are those of the timestamp in UTC.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import polars as pl

from wukong_jax.data.sources import Chunk
from wukong_jax.data.spec import CategoricalColumn, GroupTimeSplit, IngestSpec, MultiHotColumn
from wukong_jax.errors import DataError

GENRES_100K = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
).split()
YEAR = re.compile(r"\((\d{4})\)")
AGE_BRACKETS = (18, 25, 35, 45, 50, 56)
CATEGORICAL = ("user_id", "age", "gender", "occupation", "zip_prefix", "item_id", "year", "hour", "weekday")
SPEC = IngestSpec(
    categorical=tuple(CategoricalColumn(name) for name in CATEGORICAL),
    multi_hot=(MultiHotColumn("genres", max_length=6, combiner="mean"),),
    group="user_id",
    time="timestamp",
    split=GroupTimeSplit(valid=0.1, test=0.1),
)


class Tables(NamedTuple):
    """Raw tables of one source, as strings.

    ratings: user_id, item_id, rating, timestamp. users: user_id, age, gender, occupation, zip. items: item_id, year,
    genres (sorted, joined with |).
    """

    ratings: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame


RATING_COLUMNS = ["user_id", "item_id", "rating", "timestamp"]
USER_COLUMNS = ["user_id", "age", "gender", "occupation", "zip"]


def parse_100k(files: dict[str, bytes]) -> Tables:
    """Tables of GroupLens' `u.data`, `u.user` and `u.item` (Latin-1)."""
    ratings = _table("u.data", files["u.data"], "\t", RATING_COLUMNS)
    users = _table("u.user", files["u.user"], "|", USER_COLUMNS)
    rows = []
    for cells in _cells("u.item", files["u.item"].decode("latin-1"), "|", 24):
        genres = [genre for genre, flag in zip(GENRES_100K, cells[5:], strict=True) if flag == "1"]
        rows.append((cells[0], _year(cells[1]), "|".join(sorted(genres))))
    return Tables(ratings, users, _items(rows))


def parse_recbole(files: dict[str, bytes]) -> Tables:
    """Tables of RecBole's atomic files `ml-100k.inter`, `.user`, `.item`: tab-separated, types in the header.

    The year stands in a column of its own there, cut out of the title's last parentheses; where those held
    something else ("(1995) (V)"), it is still in the title.
    """
    ratings = _table("ml-100k.inter", files["ml-100k.inter"].partition(b"\n")[2], "\t", RATING_COLUMNS)
    users = _table("ml-100k.user", files["ml-100k.user"].partition(b"\n")[2], "\t", USER_COLUMNS)
    rows = []
    for cells in _cells("ml-100k.item", files["ml-100k.item"].decode("utf-8").partition("\n")[2], "\t", 4):
        year = cells[2] if cells[2].isdigit() else _year(cells[1])
        rows.append((cells[0], year, "|".join(sorted(cells[3].split(" ")))))
    return Tables(ratings, users, _items(rows))


def parse_1m(files: dict[str, bytes]) -> Tables:
    """Tables of `ratings.dat`, `users.dat` and `movies.dat` (Latin-1), whose cells are separated by `::`."""
    ratings = _table("ratings.dat", files["ratings.dat"].replace(b"::", b"\t"), "\t", RATING_COLUMNS)
    _integers("ratings.dat", ratings, "rating", 1, 5)
    _integers("ratings.dat", ratings, "timestamp", 0, 2**31 - 1)
    users = _table(
        "users.dat", files["users.dat"].replace(b"::", b"\t"), "\t", ["user_id", "gender", "age", "occupation", "zip"]
    )
    rows = []
    for cells in _cells("movies.dat", files["movies.dat"].decode("latin-1"), "::", 3):
        rows.append((cells[0], _year(cells[1]), "|".join(sorted(cells[2].split("|")))))
    return Tables(ratings, users.select(USER_COLUMNS), _items(rows))


def canonical(tables: Tables) -> pl.DataFrame:
    """The canonical table, in the order of the ratings; raises `DataError` for a user or item that has no row."""
    for name, known in (("user_id", tables.users), ("item_id", tables.items)):
        strange = tables.ratings.join(known, on=name, how="anti")
        if strange.height:
            raise DataError(f"MovieLens: ratings name {name} {strange[name][0]!r}, which its own table lacks")
    moment = pl.from_epoch(pl.col("timestamp").cast(pl.Int64), time_unit="s")
    age = pl.col("age").cast(pl.Int64)
    bracket = pl.lit("1")
    for lower in AGE_BRACKETS:
        bracket = pl.when(age >= lower).then(pl.lit(str(lower))).otherwise(bracket)
    joined = tables.ratings.join(tables.users, on="user_id", how="left", maintain_order="left")
    joined = joined.join(tables.items, on="item_id", how="left", maintain_order="left")
    return joined.select(
        (pl.col("rating").cast(pl.Int64) >= 4).cast(pl.Int8).cast(pl.String).alias("label"),
        "user_id",
        bracket.alias("age"),
        "gender",
        "occupation",
        pl.col("zip").str.slice(0, 3).alias("zip_prefix"),
        "item_id",
        "year",
        "genres",
        moment.dt.hour().cast(pl.String).alias("hour"),
        moment.dt.weekday().cast(pl.String).alias("weekday"),
        "timestamp",
    )


class TableSource:
    """The canonical table as what `ingest` reads: one chunk, again on every pass."""

    def __init__(self, table: pl.DataFrame, file: str):
        self.table = table
        self.file = file

    def __call__(self) -> Iterator[Chunk]:
        """One pass."""
        yield Chunk(self.table, None, self.file, 1, unit="rating")


def _table(name: str, content: bytes, separator: str, columns: list[str]) -> pl.DataFrame:
    schema = dict.fromkeys(columns, pl.String)
    expected = f"expected {', '.join(columns)}"
    try:
        table = pl.read_csv(content, separator=separator, has_header=False, schema=schema, quote_char=None)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"MovieLens {name}: {str(error).splitlines()[0]}; {expected}") from error
    _refuse(name, table, pl.any_horizontal(pl.all().is_null()), lambda row: f"a cell is missing; {expected}")
    return table


def _integers(name: str, table: pl.DataFrame, column: str, lowest: int, highest: int) -> None:
    sound = pl.col(column).cast(pl.Int64, strict=False).is_between(lowest, highest).fill_null(False)
    _refuse(
        name,
        table,
        ~sound,
        lambda row: f"{column} is {table[column][row]!r}, expected a {column} of {lowest} to {highest}",
    )


def _refuse(name: str, table: pl.DataFrame, wrong: pl.Expr, reason: Callable[[int], str]) -> None:
    rows = table.select(wrong.alias("wrong"))["wrong"].arg_true()
    if len(rows):
        raise DataError(f"MovieLens {name}, row {rows[0] + 1}: {reason(rows[0])}")


def _cells(name: str, text: str, separator: str, count: int) -> Iterator[list[str]]:
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        cells = line.removesuffix("\r").split(separator)
        if len(cells) != count:
            raise DataError(f"MovieLens {name}, line {number}: {len(cells)} columns, expected {count}")
        yield cells


def _year(title: str) -> str:
    found = YEAR.findall(title)
    return found[-1] if found else ""


def _items(rows: list[tuple[str, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["item_id", "year", "genres"], orient="row")
