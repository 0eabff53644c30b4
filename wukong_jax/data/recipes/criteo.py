"""What both Criteo recipes share: 13 numeric and 26 categorical columns, hashed so that the schema needs no data.

Numeric: sign(x) ln(1 + |x|), and a missing-value indicator each. Categorical: a stable 64-bit hash into a fixed number
of buckets: 4 times the distinct values that the field is known to have, but at most a cap. So the table sizes, and with
them a configuration, are the same for a sample of 10,000 rows and for the whole log; what collides is reported by
ingest. For vocabularies by frequency with a minimum count, as BARS has them, write an `IngestSpec` of your own.
"""

from collections.abc import Sequence

from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, NumericFeature
from wukong_jax.data.spec import CategoricalColumn, IngestSpec, NumericColumn, SplitRule

BUCKETS_PER_VALUE = 4
NUMERIC = tuple(f"I{i}" for i in range(1, 14))
CATEGORICAL = tuple(f"C{i}" for i in range(1, 27))


def bucket_counts(distinct_values: Sequence[int], cap: int) -> dict[str, int]:
    """Hash buckets of each categorical column."""
    return {
        name: min(cap, BUCKETS_PER_VALUE * values) for name, values in zip(CATEGORICAL, distinct_values, strict=True)
    }


def ingest_spec(buckets: dict[str, int], split: SplitRule) -> IngestSpec:
    """How the 40 columns become features."""
    return IngestSpec(
        categorical=tuple(CategoricalColumn(name, hash_buckets=count) for name, count in buckets.items()),
        numeric=tuple(NumericColumn(name, "signed_log1p", missing_indicator=True) for name in NUMERIC),
        split=split,
    )


def schema(buckets: dict[str, int]) -> DatasetSchema:
    """The schema that `ingest_spec` leads to, whatever the data."""
    numeric = (name for column in NUMERIC for name in (column, f"{column}_missing"))
    return DatasetSchema(
        categorical=tuple(CategoricalFeature(name, count) for name, count in buckets.items()),
        numeric=tuple(NumericFeature(name) for name in numeric),
    )
