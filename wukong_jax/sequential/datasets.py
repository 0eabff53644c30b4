"""Public data sets as sequences: MovieLens obtained as the click-through recipes do, the others from a local file.

amazon_beauty, amazon_sports, amazon_toys and lastfm are the files of S3-Rec (aHuiWang/CIKM2020-S3Rec, commit 49a890d):
5-core, one user a line in time order, without times. Other preparations of the same reviews have other users and items.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.sequential.sequences import Sequences


class S3RecFile(NamedTuple):
    """A file of S3-Rec and the SHA-256 of its unpacked bytes."""

    name: str
    sha256: str


S3REC = {
    "amazon_beauty": S3RecFile("Beauty.txt", "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8"),
    "amazon_sports": S3RecFile(
        "Sports_and_Outdoors.txt", "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2"
    ),
    "amazon_toys": S3RecFile("Toys_and_Games.txt", "176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f"),
    "lastfm": S3RecFile("LastFM.txt", "9ded486adb5b0fe9dc761950afa0a9a05e93ff018992e0c52bf11afec529f802"),
}


def load_sequences(name: str, source: pathlib.Path | None, cache: pathlib.Path) -> Sequences:
    """The named data set, its `origin` saying where it is from; raises `ConfigError` or `DataError`.

    `source` is a local file or folder, `cache` a folder for downloads. MovieLens can do without a source.
    """
    if name in S3REC:
        return _s3rec(name, source)
    if name not in LOADERS:
        raise ConfigError(f"data: received {name!r}, expected one of {', '.join(NAMES)}")
    return LOADERS[name](source, cache)


def _movielens_100k(source: pathlib.Path | None, cache: pathlib.Path) -> Sequences:
    """All 100,000 ratings, whatever their value, by time; ties keep the file's order."""
    from wukong_jax.data.obtain import show_terms
    from wukong_jax.data.recipes import movielens_100k
    from wukong_jax.sequential.arrange import arrange
    from wukong_jax.sequential.event_times import parse_times

    show_terms(movielens_100k.NAME, movielens_100k.TERMS, cache)
    origin, tables = movielens_100k.obtain(source, cache)
    ratings = tables.ratings
    return arrange(ratings["user_id"], ratings["item_id"], parse_times(ratings["timestamp"]), origin).sequences


def _movielens_1m(source: pathlib.Path | None, cache: pathlib.Path) -> Sequences:
    """All 1,000,209 ratings by time; without times where the source is only in time order (train.csv and test.csv)."""
    from wukong_jax.data.obtain import show_terms
    from wukong_jax.data.recipes import movielens_1m, movielens_1m_sampled
    from wukong_jax.data.recipes.movielens import parse_1m
    from wukong_jax.sequential.arrange import arrange, in_order
    from wukong_jax.sequential.event_times import parse_times

    show_terms(movielens_1m.NAME, movielens_1m.TERMS, cache)
    origin, files = movielens_1m_sampled.obtain(source, cache)
    ratings = parse_1m(files).ratings
    if ratings.height != movielens_1m.RATINGS:
        raise DataError(f"MovieLens 1M: {origin} has {ratings.height} ratings, expected {movielens_1m.RATINGS}")
    users, items = ratings["user_id"], ratings["item_id"]
    if "train.csv" in files:
        return in_order(users, items, f"{origin} (in time order, without times)")
    return arrange(users, items, parse_times(ratings["timestamp"]), origin).sequences


def _s3rec(name: str, source: pathlib.Path | None) -> Sequences:
    from wukong_jax.data.obtain import find_file, need_source, read_file, verify
    from wukong_jax.sequential.read_events import read_lists

    file = S3REC[name]
    source = need_source(name, source, f"the file {file.name} of S3-Rec (plain or .gz), or its folder")
    path = find_file(source, [file.name]) if source.is_dir() else source
    verify(str(path), read_file(path), file.sha256)
    return read_lists(path)


LOADERS: dict[str, Callable[[pathlib.Path | None, pathlib.Path], Sequences]] = {
    "movielens_100k": _movielens_100k,
    "movielens_1m": _movielens_1m,
}
NAMES = (*LOADERS, *S3REC)
