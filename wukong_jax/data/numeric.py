"""Numeric columns: transforms, and their statistics over the training split in one pass."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from wukong_jax.data.spec import NumericColumn


@dataclasses.dataclass(frozen=True)
class NumericStatistics:
    """Moments and range of a column after its element-wise part, over the values that are present."""

    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = 0.0
    maximum: float = 0.0

    @property
    def deviation(self) -> float:
        """Population standard deviation; 1 where it would be 0."""
        return float(np.sqrt(self.squares / self.count)) or 1.0 if self.count else 1.0

    @property
    def spread(self) -> float:
        """Maximum minus minimum; 1 where it would be 0."""
        return (self.maximum - self.minimum) or 1.0

    @classmethod
    def of(cls, values: Float[np.ndarray, "rows"]) -> "NumericStatistics":
        """Statistics of some values (NaN: missing)."""
        present = values[~np.isnan(values)]
        missing = len(values) - len(present)
        if not len(present):
            return cls(missing=missing)
        mean = float(present.mean())
        squares = float(np.square(present - mean).sum())
        return cls(len(present), missing, mean, squares, float(present.min()), float(present.max()))

    def merged(self, more: "NumericStatistics") -> "NumericStatistics":
        """Statistics of both sets of values, merged as Chan et al. do, so that nothing cancels.

        Another order of merging may change the last bit.
        """
        missing = self.missing + more.missing
        if not more.count:
            return dataclasses.replace(self, missing=missing)
        total, shift = self.count + more.count, more.mean - self.mean
        return NumericStatistics(
            count=total,
            missing=missing,
            mean=self.mean + shift * more.count / total,
            squares=self.squares + more.squares + shift**2 * self.count * more.count / total,
            minimum=min(self.minimum, more.minimum) if self.count else more.minimum,
            maximum=max(self.maximum, more.maximum) if self.count else more.maximum,
        )


def needs_statistics(column: NumericColumn) -> bool:
    """Whether the transform depends on the training split."""
    return column.transform.endswith(("standardise", "min_max"))


def elementwise(column: NumericColumn, values: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """The part of the transform that needs no statistics: sign(x) ln(1 + |x|), or nothing."""
    if column.transform.startswith("signed_log1p"):
        return np.sign(values) * np.log1p(np.abs(values))
    return values


def transform(
    column: NumericColumn, values: Float[np.ndarray, "rows"], statistics: NumericStatistics
) -> Float[np.ndarray, "rows columns"]:
    """float32 feature column, followed by the indicator of missing values (NaN) where the column asks for it."""
    missing = np.isnan(values)
    values = elementwise(column, values)
    if column.transform.endswith("standardise"):
        values = (values - statistics.mean) / statistics.deviation
    elif column.transform == "min_max":
        values = (values - statistics.minimum) / statistics.spread
    columns = (
        [np.where(missing, 0.0, values), missing] if column.missing_indicator else [np.where(missing, 0.0, values)]
    )
    return np.stack(columns, axis=1).astype(np.float32)


def feature_names(column: NumericColumn) -> list[str]:
    """Names of the features that a numeric column becomes."""
    return [column.name, f"{column.name}_missing"] if column.missing_indicator else [column.name]


def statistics_from_plain(plain: dict[str, Any]) -> NumericStatistics:
    """Statistics as they lie in a store's encoding."""
    return NumericStatistics(**{field.name: plain[field.name] for field in dataclasses.fields(NumericStatistics)})
