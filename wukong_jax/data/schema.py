"""What one example holds: features with their sizes, labels, group, weight and time."""

import dataclasses
from typing import Literal

from wukong_jax.config.codec import stable_hash
from wukong_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class CategoricalFeature:
    """One id per example out of `vocabulary_size` ids; id 0 is "out of vocabulary"."""

    name: str
    vocabulary_size: int


@dataclasses.dataclass(frozen=True)
class MultiHotFeature:
    """Up to `max_length` ids per example, pooled by sum or mean; unused places hold -1."""

    name: str
    vocabulary_size: int
    max_length: int
    combiner: Literal["sum", "mean"] = "sum"


@dataclasses.dataclass(frozen=True)
class NumericFeature:
    """One float32 per example, already transformed; a missing-value indicator is one of its own."""

    name: str


@dataclasses.dataclass(frozen=True)
class VectorFeature:
    """A precomputed float32 vector of `width` values per example (a text or image embedding)."""

    name: str
    width: int


@dataclasses.dataclass(frozen=True)
class DatasetSchema:
    """The features in the order in which their columns lie in a store.

    The id columns are the categorical features, then `max_length` columns for each multi-hot one.
    """

    categorical: tuple[CategoricalFeature, ...] = ()
    multi_hot: tuple[MultiHotFeature, ...] = ()
    numeric: tuple[NumericFeature, ...] = ()
    vectors: tuple[VectorFeature, ...] = ()
    labels: tuple[str, ...] = ("label",)
    group: str | None = None
    weight: str | None = None
    time: str | None = None

    def __post_init__(self) -> None:
        """Check sizes and that every name is used once; raises `ConfigError`."""
        for feature in self.id_features:
            if feature.vocabulary_size < 1:
                raise ConfigError(
                    f"schema: feature {feature.name!r} has vocabulary_size={feature.vocabulary_size}; "
                    "expected at least 1 (id 0 is the out-of-vocabulary row)"
                )
        for hot in self.multi_hot:
            if hot.max_length < 1:
                raise ConfigError(f"schema: feature {hot.name!r} has max_length={hot.max_length}; expected at least 1")
        for vector in self.vectors:
            if vector.width < 1:
                raise ConfigError(f"schema: feature {vector.name!r} has width={vector.width}; expected at least 1")
        if not self.labels:
            raise ConfigError("schema: no label; name at least one label column")
        names = [*self.feature_names, *self.labels]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"schema: the names {twice} are used more than once; rename the columns")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """All features: categorical, multi-hot, numeric, vectors."""
        features: tuple[CategoricalFeature | MultiHotFeature | NumericFeature | VectorFeature, ...]
        features = (*self.id_features, *self.numeric, *self.vectors)
        return tuple(feature.name for feature in features)

    @property
    def id_features(self) -> tuple[CategoricalFeature | MultiHotFeature, ...]:
        """The features that are looked up in tables, in column order."""
        return (*self.categorical, *self.multi_hot)

    @property
    def id_columns(self) -> int:
        """Width of the id matrix of a store."""
        return len(self.categorical) + sum(feature.max_length for feature in self.multi_hot)

    @property
    def vector_columns(self) -> int:
        """Width of the vector matrix of a store."""
        return sum(feature.width for feature in self.vectors)

    def id_slices(self) -> dict[str, slice]:
        """Columns of the id matrix that each categorical and multi-hot feature fills."""
        slices, start = {}, 0
        for feature in self.id_features:
            length = feature.max_length if isinstance(feature, MultiHotFeature) else 1
            slices[feature.name] = slice(start, start + length)
            start += length
        return slices

    def vector_slices(self) -> dict[str, slice]:
        """Columns of the vector matrix that each vector feature fills."""
        slices, start = {}, 0
        for feature in self.vectors:
            slices[feature.name] = slice(start, start + feature.width)
            start += feature.width
        return slices

    def hash(self) -> str:
        """Stable hash of the whole schema; a store, a config and a checkpoint must agree on it."""
        return stable_hash(self)
