"""MovieLens 1M as a click-through task: 1,000,209 ratings of 6,040 users, label 1 for a rating of 4 or 5.

Features, label and split (per user, chronological, 80/10/10) as in `movielens_100k`. Every size is certain from
users.dat and movies.dat but one: which of the 3,706 rated movies occur in the training split depends on the ratings'
times, so movie ids are hashed into 65,536 buckets (about 100 pairs of movies share one).
"""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from wukong_jax.data.obtain import (
    SourceUnavailable,
    download,
    find_file,
    origin_of,
    read_archive,
    read_file,
    read_fresh,
    show_terms,
    verify,
)
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature
from wukong_jax.errors import DataError

if TYPE_CHECKING:
    from wukong_jax.data.store import Store

NAME = "movielens_1m"
TERMS = (
    "MovieLens 1M (GroupLens Research, University of Minnesota): for research only; acknowledge the use in "
    "publications; no redistribution without separate permission; no commercial use without permission. "
    "F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015, doi 10.1145/2827872."
)
URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
ARCHIVE = "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"
USERS_AND_MOVIES = {
    "users.dat": "1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3",
    "movies.dat": "0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9",
}
RATINGS = 1_000_209
ITEM_BUCKETS = 65_536
SCHEMA = DatasetSchema(
    categorical=(
        CategoricalFeature("user_id", 6_041),
        CategoricalFeature("age", 8),
        CategoricalFeature("gender", 3),
        CategoricalFeature("occupation", 22),
        CategoricalFeature("zip_prefix", 679),
        CategoricalFeature("item_id", ITEM_BUCKETS),
        CategoricalFeature("year", 82),
        CategoricalFeature("hour", 25),
        CategoricalFeature("weekday", 8),
    ),
    multi_hot=(MultiHotFeature("genres", 19, 6, "mean"),),
    group="user_id",
    time="timestamp",
)


def prepare(out: pathlib.Path, *, source: pathlib.Path | None, cache: pathlib.Path) -> "Store":
    """Obtain the data and write the store; `DataError` if it cannot be had or a file is not the published one.

    `source` is the unpacked archive (`ratings.dat`, `users.dat`, `movies.dat`, also gzipped) or `ml-1m.zip`.
    """
    from wukong_jax.data.ingest import ingest
    from wukong_jax.data.recipes.movielens import SPEC, TableSource, canonical, parse_1m

    show_terms(NAME, TERMS, cache)
    origin, files = obtain(source, cache)
    tables = parse_1m(files)
    if tables.ratings.height != RATINGS:
        raise DataError(f"MovieLens 1M: ratings.dat of {origin} has {tables.ratings.height} rows, expected {RATINGS}")
    hashed = tuple(
        dataclasses.replace(column, hash_buckets=ITEM_BUCKETS) if column.name == "item_id" else column
        for column in SPEC.categorical
    )
    spec = dataclasses.replace(SPEC, categorical=hashed)
    kept = origin_of(NAME, source, source=origin, terms=TERMS)
    return ingest(TableSource(canonical(tables), origin), spec, out, origin=kept)


def obtain(source: pathlib.Path | None, cache: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """Where the three files come from, and their bytes: a local folder or zip, the cache, or GroupLens."""
    if source is not None and source.is_dir():
        folder = source / "ml-1m" if (source / "ml-1m").is_dir() else source
        paths = {name: find_file(folder, [name]) for name in ("ratings.dat", *USERS_AND_MOVIES)}
        files = {name: read_file(path) for name, path in paths.items()}
        for name, sha256 in USERS_AND_MOVIES.items():
            verify(str(paths[name]), files[name], sha256)
        return str(source), files
    archive = cache / "ml-1m.zip" if source is None else source
    if not archive.is_file() and source is None:
        try:
            return URL, read_fresh(download(URL, archive), _read_zip)
        except SourceUnavailable as error:
            raise DataError(
                f"MovieLens 1M: {error}; download {URL} elsewhere and give the zip or its unpacked folder as the source"
            ) from error
    return str(archive), _read_zip(archive)


def _read_zip(archive: pathlib.Path) -> dict[str, bytes]:
    if not archive.is_file():
        raise DataError(f"{archive}: no such file; expected ml-1m.zip or its unpacked folder")
    verify(str(archive), archive.read_bytes(), ARCHIVE)
    return read_archive(archive, {f"ml-1m/{name}": None for name in ("ratings.dat", *USERS_AND_MOVIES)})
