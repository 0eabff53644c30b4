"""MovieLens 100K as a click-through task: 100,000 ratings of 943 users, label 1 for a rating of 4 or 5.

Per-user chronological split 80/10/10: a split at one moment for all would leave most test rows to users never seen.
Features are described in `wukong_jax.data.recipes.movielens`.
"""

import pathlib
from typing import TYPE_CHECKING

from wukong_jax.data.obtain import (
    SourceUnavailable,
    download,
    download_wheel,
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
    from wukong_jax.data.recipes.movielens import Tables
    from wukong_jax.data.store import Store

NAME = "movielens_100k"
TERMS = (
    "MovieLens 100K (GroupLens Research, University of Minnesota): for research only; acknowledge the use in "
    "publications; no redistribution without separate permission; no commercial use without permission. "
    "F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015, doi 10.1145/2827872."
)
URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
WHEEL = "recbole==1.2.1"
WHEEL_FILE = "recbole-1.2.1-py3-none-any.whl"
GROUPLENS = {
    "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    "u.user": "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
    "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
}
RECBOLE = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
SCHEMA = DatasetSchema(
    categorical=(
        CategoricalFeature("user_id", 944),
        CategoricalFeature("age", 8),
        CategoricalFeature("gender", 3),
        CategoricalFeature("occupation", 22),
        CategoricalFeature("zip_prefix", 383),
        CategoricalFeature("item_id", 1618),
        CategoricalFeature("year", 73),
        CategoricalFeature("hour", 25),
        CategoricalFeature("weekday", 8),
    ),
    multi_hot=(MultiHotFeature("genres", 20, 6, "mean"),),
    group="user_id",
    time="timestamp",
)


def prepare(out: pathlib.Path, *, source: pathlib.Path | None, cache: pathlib.Path) -> "Store":
    """Obtain the data and write the store; `DataError` if no source delivers or a file is not the published one."""
    from wukong_jax.data.ingest import ingest
    from wukong_jax.data.recipes.movielens import SPEC, TableSource, canonical

    show_terms(NAME, TERMS, cache)
    origin, tables = obtain(source, cache)
    kept = origin_of(NAME, source, source=origin, terms=TERMS)
    return ingest(TableSource(canonical(tables), origin), SPEC, out, origin=kept)


def obtain(source: pathlib.Path | None, cache: pathlib.Path) -> tuple[str, "Tables"]:
    """Where the tables come from, and the tables: a local folder or zip, the cache, GroupLens, or a wheel of RecBole.

    `source` is the unpacked archive (`u.data`, `u.user`, `u.item`, also gzipped) or `ml-100k.zip`.
    """
    from wukong_jax.data.recipes.movielens import parse_100k, parse_recbole

    if source is not None:
        return str(source), parse_100k(_read_local(source))
    archive, wheel = cache / "ml-100k.zip", cache / WHEEL_FILE
    if archive.is_file():
        return str(archive), parse_100k(_read_zip(archive))
    if wheel.is_file():
        return str(wheel), parse_recbole(_read_wheel(wheel))
    try:
        return URL, parse_100k(read_fresh(download(URL, archive), _read_zip))
    except SourceUnavailable as error:
        print(f"GroupLens' archive cannot be had ({error}); taking the tables inside the wheel {WHEEL} instead")
        reasons = [str(error)]
    try:
        return WHEEL, parse_recbole(read_fresh(download_wheel(WHEEL, cache), _read_wheel))
    except SourceUnavailable as error:
        reasons.append(str(error))
    raise DataError(
        f"MovieLens 100K: no source could be reached ({'; '.join(reasons)}); download {URL} elsewhere and give the "
        "zip or its unpacked folder as the source"
    )


def _read_local(source: pathlib.Path) -> dict[str, bytes]:
    if source.is_file():
        return _read_zip(source)
    folder = source / "ml-100k" if (source / "ml-100k").is_dir() else source
    found = {}
    for name, sha256 in GROUPLENS.items():
        path = find_file(folder, [name])
        found[name] = verify(str(path), read_file(path), sha256)
    return found


def _read_zip(archive: pathlib.Path) -> dict[str, bytes]:
    return read_archive(archive, {f"ml-100k/{name}": sha256 for name, sha256 in GROUPLENS.items()})


def _read_wheel(wheel: pathlib.Path) -> dict[str, bytes]:
    return read_archive(wheel, {f"recbole/dataset_example/ml-100k/{name}": sha256 for name, sha256 in RECBOLE.items()})
