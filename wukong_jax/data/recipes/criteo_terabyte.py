"""Criteo Terabyte click logs (4.4 billion rows, 24 days): all days but two train, then one validates, the last tests.

Numerics and hashing as in `wukong_jax.data.recipes.criteo`, with at most 10 million buckets a field, the cap of DLRM's
`--max-ind-range=10000000`. DLRM and MLPerf validate and test on the halves of the last day; here they are whole days.
"""

import pathlib
import re
from typing import TYPE_CHECKING

from wukong_jax.data.obtain import need_source, origin_of, show_terms
from wukong_jax.data.recipes.criteo import bucket_counts, ingest_spec, schema
from wukong_jax.data.spec import FileSplit
from wukong_jax.errors import DataError

if TYPE_CHECKING:
    from wukong_jax.data.store import Store

NAME = "criteo_terabyte"
TERMS = (
    "Criteo 1TB Click Logs: CC BY-NC-SA 4.0 (attribution, no commercial use, share alike); get it from Criteo yourself."
)
# Sizes of C1 to C26 in MLPerf's DLRM (values above 40 million folded).
DISTINCT_VALUES = (
    40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10,
    2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36,
)  # fmt: skip
BUCKETS = bucket_counts(DISTINCT_VALUES, cap=10_000_000)
SPEC = ingest_spec(BUCKETS, FileSplit())
SCHEMA = schema(BUCKETS)
DAY = re.compile(r"day_(\d+)(\.gz|\.zst)?")


def prepare(out: pathlib.Path, *, source: pathlib.Path | None, cache: pathlib.Path) -> "Store":
    """Prepare the days `day_<n>` of a folder, at least 3; raises `DataError` if there are fewer or one is missing."""
    from wukong_jax.data.ingest import ingest
    from wukong_jax.data.sources import criteo_source

    folder = need_source(NAME, source, "the folder with Criteo's files day_0 to day_23 (plain, .gz or .zst)")
    show_terms(NAME, TERMS, cache)
    return ingest(criteo_source(day_files(folder)), SPEC, out, origin=origin_of(NAME, folder, terms=TERMS))


def day_files(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Files of each split, in the order of the days."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    days = {int(match[1]): path for path in paths if (match := DAY.fullmatch(path.name))}
    if len(days) < 3:
        raise DataError(
            f"recipe {NAME}: {folder} holds {len(days)} files named day_<n> (plain, .gz or .zst), expected at least 3 "
            "(day_0 to day_23): the last one tests, the one before it validates"
        )
    gaps = sorted(set(range(min(days), max(days) + 1)) - set(days))
    if gaps:
        raise DataError(f"recipe {NAME}: {folder} lacks day_{gaps[0]} between day_{min(days)} and day_{max(days)}")
    *train, valid, test = (days[day] for day in sorted(days))
    return {"train": train, "valid": [valid], "test": [test]}
