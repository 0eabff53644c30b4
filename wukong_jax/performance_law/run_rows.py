"""One run of a table or of records: its numbers, read from text or JSON and checked."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from wukong_jax.errors import DataError
from wukong_jax.performance_law.runs import ONE_PANEL

DIVERGED = ("nan", "inf", "-inf", "diverged", "exploded")
LARGEST_WHOLE = 2.0**53
"""Above it a float is not every whole number."""


class Columns(NamedTuple):
    """Where each number is: columns of a table, or dotted paths in a record. D' is `data` x `quality`."""

    layers: str
    dim: str
    panel: tuple[str, ...]
    data: str | None
    quality: str | None
    seed: str | None


class Row(NamedTuple):
    """One run; its metric is NaN where it diverged."""

    where: str
    layers: float
    dim: float
    y: float
    panel: str
    data: float
    seed: int
    reason: str


def run_row(where: str, metric: str, columns: Columns, values: Mapping[str, Any], failed: str | None = None) -> Row:
    """The run of these cells or values; raises `DataError` naming the place and the column that cannot be used."""
    panel = " ".join(_text(where, name, values.get(name)) for name in columns.panel) or ONE_PANEL
    value = values.get(metric)
    diverged = failed is not None or (isinstance(value, str) and value.lower() in DIVERGED)
    return Row(
        where,
        _positive(where, columns.layers, values.get(columns.layers)),
        _positive(where, columns.dim, values.get(columns.dim)),
        math.nan if diverged else _number(where, metric, value, "; write nan for a run that diverged"),
        panel,
        _data(where, columns, values),
        _whole(where, columns.seed, values.get(columns.seed)) if columns.seed else 0,
        failed or f"{metric} is {value!r}",
    )


def _data(where: str, columns: Columns, values: Mapping[str, Any]) -> float:
    """D'; NaN without a column of it."""
    factors = [_positive(where, name, values.get(name)) for name in (columns.data, columns.quality) if name]
    return math.prod(factors) if factors else math.nan


def _text(where: str, column: str, value: object) -> str:
    if value is None or value == "":
        raise DataError(f"runs {where}: {column} is missing, expected a name")
    return str(value)


def _number(where: str, column: str, value: object, if_empty: str = "") -> float:
    mend = if_empty if value == "" else ""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DataError(f"runs {where}: {column} is {value!r}, expected a number{mend}")
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"runs {where}: {column} is {value!r}, expected a number{mend}")
    return found


def _positive(where: str, column: str, value: object) -> float:
    found = _number(where, column, value)
    if found <= 0:
        raise DataError(f"runs {where}: {column} is {value!r}, expected a number above 0, as laws take logarithms")
    return found


def _whole(where: str, column: str, value: object) -> int:
    found = _number(where, column, value)
    if found != int(found) or abs(found) > LARGEST_WHOLE:
        raise DataError(f"runs {where}: {column} is {value!r}, expected a whole number")
    return int(found)
