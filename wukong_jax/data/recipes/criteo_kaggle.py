"""Criteo Kaggle 2014 (45.8M rows, 7 days) in the manner of BARS' Criteo_x1; also any sample in the same form.

As in Criteo_x1: 13 numeric and 26 categorical features, a random split 72/18/10 (33,003,326 / 8,250,124 / 4,587,167
rows there; each row's split is drawn anew here, so they are not the same rows). Unlike it: categorical values are
hashed (see `wukong_jax.data.recipes.criteo`), 2.3 million buckets in all, where Criteo_x1 has 2.1 million values.
"""

import pathlib
from typing import TYPE_CHECKING

from wukong_jax.data.obtain import need_source, origin_of, show_terms
from wukong_jax.data.recipes.criteo import bucket_counts, ingest_spec, schema
from wukong_jax.data.spec import FractionSplit
from wukong_jax.errors import DataError

if TYPE_CHECKING:
    from wukong_jax.data.store import Store

NAME = "criteo_kaggle"
TERMS = (
    "Criteo Display Advertising Challenge 2014: the terms of Criteo and Kaggle hold (treat it as non-commercial and do "
    "not redistribute); get it from them yourself."
)
# Distinct values of C1 to C26 in train.txt, as DLRM counts them.
DISTINCT_VALUES = (
    1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194,
    27, 14_992, 5_461_306, 10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572,
)  # fmt: skip
BUCKETS = bucket_counts(DISTINCT_VALUES, cap=262_144)
SPEC = ingest_spec(BUCKETS, FractionSplit(valid=0.18, test=0.1, seed=2014))
SCHEMA = schema(BUCKETS)
FILES = ("train.txt", "train.txt.gz", "train_examples.txt", "train_examples.txt.gz")


def prepare(out: pathlib.Path, *, source: pathlib.Path | None, cache: pathlib.Path) -> "Store":
    """Prepare `train.txt` (a file, or a folder that holds it); raises `DataError` if it is not there."""
    from wukong_jax.data.ingest import ingest
    from wukong_jax.data.sources import criteo_source

    given = need_source(NAME, source, "Criteo's train.txt (tab-separated, 40 columns, no header), also gzipped")
    path = given
    if given.is_dir():
        found = [path / name for name in FILES if (path / name).is_file()]
        if not found:
            raise DataError(f"recipe {NAME}: {path} lacks the file {' or '.join(FILES)}")
        path = found[0]
    show_terms(NAME, TERMS, cache)
    return ingest(criteo_source({"all": [path]}), SPEC, out, origin=origin_of(NAME, given, terms=TERMS))
