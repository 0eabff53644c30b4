"""How raw columns become features: the specification that `prepare` follows."""

import dataclasses
from typing import Literal

MISSING_VALUES = ("", "\\N")
Transform = Literal["none", "signed_log1p", "standardise", "signed_log1p_standardise", "min_max"]


@dataclasses.dataclass(frozen=True)
class CategoricalColumn:
    """A column of one value per row, encoded by frequency or hashed.

    By frequency: id 0 is out-of-vocabulary, ids 1.. are the values seen at least `min_count` times in the
    training split, most frequent first, ties by value. A missing value is the value "". With `hash_buckets`, ids
    0..buckets-1 come from a stable 64-bit hash and no vocabulary is kept.
    `bucketing="log2_square"` first maps an integer v > 2 to floor(ln(v)^2) (Criteo's usual bucketing), others to
    themselves.
    """

    name: str
    min_count: int = 1
    hash_buckets: int | None = None
    bucketing: Literal["none", "log2_square"] = "none"


@dataclasses.dataclass(frozen=True)
class MultiHotColumn:
    """A column of several values per row, split at `separator`, cut after `max_length`, pooled by `combiner`."""

    name: str
    max_length: int
    separator: str = "|"
    combiner: Literal["sum", "mean"] = "sum"
    min_count: int = 1
    hash_buckets: int | None = None


@dataclasses.dataclass(frozen=True)
class NumericColumn:
    """A numeric column; statistics of `standardise` and `min_max` are those of the training split.

    signed_log1p: sign(x) ln(1 + |x|). A missing value becomes 0 after the transform; with `missing_indicator`
    the feature `<name>_missing` (0 or 1) is added.
    """

    name: str
    transform: Transform = "none"
    missing_indicator: bool = False


@dataclasses.dataclass(frozen=True)
class VectorColumn:
    """A column of `width` numbers per row: a Parquet list, or text split at `separator`."""

    name: str
    width: int
    separator: str = ";"


@dataclasses.dataclass(frozen=True)
class FileSplit:
    """The split is given file by file: `prepare` receives one list of files for each split."""


@dataclasses.dataclass(frozen=True)
class FractionSplit:
    """Each row falls by a seeded draw on its number into train, valid or test."""

    valid: float = 0.1
    test: float = 0.1
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class TimeSplit:
    """Rows before `valid_from` train, before `test_from` validate, the others test (values of the time column)."""

    valid_from: int
    test_from: int


@dataclasses.dataclass(frozen=True)
class GroupTimeSplit:
    """Each group's rows in time order (ties in file order): the last `test`, before them `valid`, the rest train."""

    valid: float = 0.1
    test: float = 0.1


SplitRule = FileSplit | FractionSplit | TimeSplit | GroupTimeSplit


@dataclasses.dataclass(frozen=True)
class IngestSpec:
    """The columns to read, what each becomes, and how rows are split; columns not named are left out."""

    labels: tuple[str, ...] = ("label",)
    categorical: tuple[CategoricalColumn, ...] = ()
    multi_hot: tuple[MultiHotColumn, ...] = ()
    numeric: tuple[NumericColumn, ...] = ()
    vectors: tuple[VectorColumn, ...] = ()
    group: str | None = None
    weight: str | None = None
    time: str | None = None
    split: SplitRule = FractionSplit()

    @property
    def id_columns(self) -> tuple[CategoricalColumn | MultiHotColumn, ...]:
        """The columns that become ids, in the order of the store."""
        return (*self.categorical, *self.multi_hot)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all feature columns."""
        columns: tuple[CategoricalColumn | MultiHotColumn | NumericColumn | VectorColumn, ...]
        columns = (*self.id_columns, *self.numeric, *self.vectors)
        return tuple(column.name for column in columns)
