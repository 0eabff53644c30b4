"""What a specification leads to: the schema, encoding, report and vocabulary files of its store."""

import dataclasses
import io
import pathlib
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

from wukong_jax.config.codec import to_plain
from wukong_jax.data import numeric
from wukong_jax.data.numeric import NumericStatistics
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.data.spec import IngestSpec
from wukong_jax.data.splitting import check_rule, expected_splits
from wukong_jax.data.store import StoreWriter
from wukong_jax.errors import ConfigError, DataError

Facts = dict[str, int | float]


def check_spec(spec: IngestSpec) -> None:
    """Raise `ConfigError` for a specification that cannot be followed."""
    check_rule(spec.split, spec.time, spec.group)
    for column in spec.id_columns:
        if column.hash_buckets is not None and column.hash_buckets < 1:
            raise ConfigError(f"column {column.name!r}: hash_buckets={column.hash_buckets}; expected at least 1")
        if column.min_count < 1:
            raise ConfigError(f"column {column.name!r}: min_count={column.min_count}; expected at least 1")
    schema = schema_of(spec, {column.name: 1 for column in spec.id_columns})
    if not schema.feature_names:
        raise ConfigError(
            "no feature column is named; name at least one categorical, multi-hot, numeric or vector column"
        )


def schema_of(spec: IngestSpec, sizes: dict[str, int]) -> DatasetSchema:
    """The schema that this specification leads to, given the vocabulary sizes."""
    return DatasetSchema(
        categorical=tuple(CategoricalFeature(column.name, sizes[column.name]) for column in spec.categorical),
        multi_hot=tuple(
            MultiHotFeature(column.name, sizes[column.name], column.max_length, column.combiner)
            for column in spec.multi_hot
        ),
        numeric=tuple(NumericFeature(name) for column in spec.numeric for name in numeric.feature_names(column)),
        vectors=tuple(VectorFeature(column.name, column.width) for column in spec.vectors),
        labels=spec.labels,
        group=spec.group,
        weight=spec.weight,
        time=spec.time,
    )


def vocabulary_file(feature: str) -> str:
    """File of a feature's vocabulary inside the store; characters that a file name cannot hold are percent-encoded."""
    return f"vocabularies/{urllib.parse.quote(feature, safe='')}.parquet"


def vocabulary_bytes(table: pl.DataFrame) -> bytes:
    """The content of a vocabulary's file."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def filled_splits(spec: IngestSpec, rows: Mapping[str, int]) -> dict[str, int]:
    """Rows of the splits that have some; raises `DataError` where one that the rule asks for has none."""
    empty = [name for name in expected_splits(spec.split) if not rows[name]]
    if empty:
        raise DataError(
            f"the split {empty[0]!r} is empty (rows: {dict(rows)}); change the split rule {spec.split}, "
            "or give more rows"
        )
    return {name: count for name, count in rows.items() if count}


def report_of(vocabularies: Mapping[str, Facts], rows: dict[str, int], bad: int, cut: Counter[str]) -> dict[str, Any]:
    """What was kept and left out; `cut` counts the values of multi-hot columns beyond their maximum length."""
    features = {name: dict(facts) for name, facts in vocabularies.items()}
    for name, values in cut.items():
        features[name]["cut"] = values
    return {"rows": rows, "bad_rows": bad, "features": features}


def store_writer(
    out: pathlib.Path,
    spec: IngestSpec,
    sizes: dict[str, int],
    statistics: Mapping[str, NumericStatistics],
    report: dict[str, Any],
    origin: dict[str, Any] | None,
) -> StoreWriter:
    """A writer of the store, given the vocabulary sizes."""
    numbers = {name: dataclasses.asdict(value) for name, value in statistics.items()}
    encoding = {"spec": to_plain(spec), "numeric": numbers, "report": report}
    encoding |= {} if origin is None else {"origin": origin}
    return StoreWriter(out, schema_of(spec, sizes), encoding)
