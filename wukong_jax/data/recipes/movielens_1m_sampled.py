"""MovieLens 1M with sampled negatives: has the user rated this film? 1,000,209 positives and 1,989,679 negatives.

Positives are all ratings, whatever their value, in time order per user, ties in file order. Two negatives follow each:
the same user, and films drawn per user uniformly without replacement from those of the 3,706 rated films that the user
has not rated. 16 users have rated more than a third of them, so that fewer are left than they need; those are spread
evenly over their positives. Split 80/10/10 per user on the positives; negatives go with theirs.

The draw ranks each user's films by SplitMix64 of (`SEED`, user, film), this package's own 64-bit arithmetic: the same
on every platform and with every version of any library. Which films are drawn does not depend on the ratings' order.

Two sources: GroupLens' archive, whose timestamps give the order, and its rows in time order without timestamps
(`train.csv`, and each user's last in `test.csv`). One order gives one store. They can only differ in how they order a
user's ratings of the same second, and with it in what falls at the borders of the splits and in which positive a
negative goes with.
"""

import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from wukong_jax.data.obtain import find_file, origin_of, read_file, show_terms, verify
from wukong_jax.data.recipes import movielens_1m
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature
from wukong_jax.data.spec import CategoricalColumn, FileSplit, GroupTimeSplit, IngestSpec, MultiHotColumn
from wukong_jax.errors import DataError

if TYPE_CHECKING:
    from wukong_jax.data.readers.chunk import Chunk
    from wukong_jax.data.recipes.movielens import Tables
    from wukong_jax.data.store import Store

NAME = "movielens_1m_sampled"
TERMS = movielens_1m.TERMS
SEED = 240302545
NEGATIVES = 2
ORDERED = {
    "train.csv": "6a0801c23ba38fba49e676ca1fda90af69344eb88e5fe8d1978d90c4a7ef2e39",
    "test.csv": "20a99719622b990cc1735f7cc4f643c109a9df0042ecbaff74389c50b730e934",
}
# Certain: users.dat and movies.dat are pinned, every user has training rows, and so has every rated film, if only as
# hundreds of negatives.
SIZES = {
    "user_id": 6_041, "age": 8, "gender": 3, "occupation": 22, "zip_prefix": 679, "item_id": 3_707, "year": 82,
}  # fmt: skip
SPEC = IngestSpec(
    categorical=tuple(CategoricalColumn(name) for name in SIZES),
    multi_hot=(MultiHotColumn("genres", max_length=6, combiner="mean"),),
    group="user_id",
    time="position",
    split=FileSplit(),
)
SCHEMA = DatasetSchema(
    categorical=tuple(CategoricalFeature(name, size) for name, size in SIZES.items()),
    multi_hot=(MultiHotFeature("genres", 19, 6, "mean"),),
    group="user_id",
    time="position",
)
SPLIT = GroupTimeSplit(valid=0.1, test=0.1)
CHUNK_ROWS = 65_536


class Examples(NamedTuple):
    """Positives, user after user in time order, each followed by its negatives; users and items as row numbers."""

    user: Int[np.ndarray, "rows"]
    item: Int[np.ndarray, "rows"]
    label: Bool[np.ndarray, "rows"]
    position: Int[np.ndarray, "rows"]
    """Number of the positive among its user's, from 0: the store's time."""
    split: UInt8[np.ndarray, "rows"]


def prepare(out: pathlib.Path, *, source: pathlib.Path | None, cache: pathlib.Path) -> "Store":
    """Obtain the data and write the store; `DataError` if it cannot be had or a file is not the published one.

    `source` is a folder with `users.dat` and `movies.dat` and either `ratings.dat` or `train.csv` and `test.csv`, all
    plain or gzipped; or `ml-1m.zip`.
    """
    from wukong_jax.data.ingest import ingest
    from wukong_jax.data.recipes.movielens import parse_1m

    show_terms(NAME, TERMS, cache)
    origin, files = obtain(source, cache)
    rows = SampledSource(parse_1m(files), origin)
    return ingest(rows, SPEC, out, origin=origin_of(NAME, source, source=origin, seed=SEED, terms=TERMS))


def obtain(source: pathlib.Path | None, cache: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """Where the files come from, and the bytes of `ratings.dat`, `users.dat` and `movies.dat`."""
    if source is None or not source.is_dir() or (source / "ml-1m").is_dir():
        return movielens_1m.obtain(source, cache)
    if find_file(source, ["ratings.dat", "train.csv"]).name.startswith("ratings.dat"):
        return movielens_1m.obtain(source, cache)
    files = {}
    for name, sha256 in (ORDERED | movielens_1m.USERS_AND_MOVIES).items():
        path = find_file(source, [name])
        files[name] = verify(str(path), read_file(path), sha256)
    return str(source), files | {"ratings.dat": as_ratings(files["train.csv"] + files["test.csv"])}


def as_ratings(ordered: bytes) -> bytes:
    """Lines `user-gender-age-occupation,movie-genre` in the form of `ratings.dat`, their number as the timestamp.

    The rating, which is not known, is written as 1; nothing reads it.
    """
    import polars as pl

    names = {"user": pl.String, "movie": pl.String}
    rows = pl.read_csv(ordered, has_header=False, schema=names, quote_char=None)
    first_number = pl.col("user", "movie").str.extract(r"^(\d+)-")
    numbered = rows.select(first_number, rating=pl.lit(1), timestamp=pl.int_range(pl.len()))
    return numbered.write_csv(separator="\t", include_header=False).encode()


class SampledSource:
    """Positives and negatives as what `ingest` reads: chunk by chunk, split by split.

    Raises `DataError` for a wrong number of ratings, for one given twice, and for an unknown user or film.
    """

    def __init__(self, tables: "Tables", file: str):
        import polars as pl

        if tables.ratings.height != movielens_1m.RATINGS:
            raise DataError(
                f"MovieLens 1M: {file} has {tables.ratings.height} ratings, expected {movielens_1m.RATINGS}"
            )
        self.file = file
        self.users = tables.users.with_columns(zip_prefix=pl.col("zip").str.slice(0, 3)).drop("zip")
        self.items = tables.items.join(tables.ratings, on="item_id", how="semi", maintain_order="left")
        rated = tables.ratings.select("user_id", "item_id", pl.col("timestamp").cast(pl.Int64))
        for kind, table in (("user", self.users), ("item", self.items)):
            key = f"{kind}_id"
            rated = rated.join(table.select(key).with_row_index(kind), on=key, how="left", maintain_order="left")
            strange = rated.filter(pl.col(kind).is_null())
            if strange.height:
                raise DataError(f"MovieLens 1M: ratings name {key} {strange[key][0]!r}, which its own table lacks")
        twice = rated.filter(rated.select("user", "item").is_duplicated())
        if twice.height:
            raise DataError(
                f"MovieLens 1M: {file} has two ratings of film {twice['item_id'][0]} by user {twice['user_id'][0]}, "
                "expected one; obtain the file again"
            )
        rated = rated.sort("user", "timestamp", maintain_order=True).cast({"user": pl.Int64, "item": pl.Int64})
        self.examples = sample(rated["user"].to_numpy(), rated["item"].to_numpy(), self.items.height)

    def __call__(self) -> "Iterator[Chunk]":
        """One pass."""
        import polars as pl

        from wukong_jax.data.readers.blocks import SPLITS
        from wukong_jax.data.readers.chunk import Chunk

        for number, split in enumerate(SPLITS):
            rows = np.flatnonzero(self.examples.split == number)
            for first in range(0, len(rows), CHUNK_ROWS):
                user, item, label, position, _ = (column[rows[first : first + CHUNK_ROWS]] for column in self.examples)
                frame = pl.concat([self.users[user], self.items[item]], how="horizontal")
                numbers = frame.with_columns(label=pl.Series(label).cast(pl.Int8), position=pl.Series(position))
                yield Chunk(numbers, split, self.file, first + 1, unit=f"{split} row")


def sample(
    users: Int[np.ndarray, "positives"], items: Int[np.ndarray, "positives"], num_items: int, seed: int = SEED
) -> Examples:
    """Positives and their negatives; `users` ascending, each one's items in time order, items below `num_items`."""
    from wukong_jax.data.splitting import draw, split_by_group_time

    starts = np.flatnonzero(np.diff(users, prepend=-1))
    positives, drawn, counts = np.split(items, starts[1:]), [], []
    for user, rated in zip(users[starts].tolist(), positives, strict=True):
        left = np.ones(num_items, np.bool_)
        left[rated] = False
        order = np.argsort(draw(seed, user * num_items, num_items)[left], kind="stable")
        drawn.append(np.flatnonzero(left)[order[: NEGATIVES * len(rated)]])
        # Number of negatives before each positive, evenly spread where there are too few.
        counts.append(np.diff(np.arange(len(rated) + 1) * len(drawn[-1]) // len(rated)))
    sizes = [len(rated) for rated in positives]
    position = np.arange(len(users)) - np.repeat(starts, sizes)
    split = split_by_group_time(SPLIT, users, position)
    positive = np.repeat(np.arange(len(users)), 1 + np.concatenate(counts))
    label = np.diff(positive, prepend=-1) > 0
    item = np.empty(len(positive), np.int64)
    item[label], item[~label] = items, np.concatenate(drawn)
    return Examples(users[positive], item, label, position[positive], split[positive])
