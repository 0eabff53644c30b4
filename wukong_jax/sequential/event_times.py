"""Times of events as integers that can be compared: whole numbers as they are, decimals and dates in millionths."""

from typing import NamedTuple

import polars as pl

MILLION = 1_000_000
LARGEST_DECIMAL = 2**53 / MILLION
"""Above it a decimal does not hold a millionth."""


class Times(NamedTuple):
    """Times of all rows."""

    keys: pl.Series
    """Int64, to compare; null where a time could not be read."""
    per_unit: int
    """Steps of `keys` in a unit of the times: 1, or a million."""


def parse_times(column: pl.Series) -> Times:
    """Times of a column of integers, decimals, dates, or text of one of these; seconds since 1970 (UTC) of dates.

    Dates without a zone are taken as UTC. Text is of the kind that most of the cells can be read as.
    """
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return Times(column.cast(pl.Datetime("us")).to_physical(), MILLION)
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        return _none(column)
    if column.dtype.is_integer():
        return Times(column.cast(pl.Int64, strict=False), 1)
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    kinds = [_whole(column), _decimals(column)]
    if column.dtype == pl.String:
        kinds.append(_dates(column))
    return min(kinds, key=lambda times: times.keys.null_count())


def _whole(column: pl.Series) -> Times:
    if column.dtype == pl.String:
        return Times(column.str.replace(r"^(-?\d+)\.0*$", "$1").cast(pl.Int64, strict=False), 1)
    numbers = column.cast(pl.Float64, strict=False)
    whole = pl.select(pl.when(numbers == numbers.floor()).then(numbers)).to_series()
    return Times(whole.cast(pl.Int64, strict=False), 1)


def _decimals(column: pl.Series) -> Times:
    numbers = column.cast(pl.Float64, strict=False)
    inside = (numbers.abs() <= LARGEST_DECIMAL).fill_null(False) & numbers.is_not_nan().fill_null(False)
    kept = pl.select(pl.when(inside).then(numbers)).to_series()
    return Times((kept * MILLION).round().cast(pl.Int64, strict=False), MILLION)


def _dates(column: pl.Series) -> Times:
    try:
        dates = column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    except pl.exceptions.PolarsError:  # no cell that looks like a date
        return _none(column)
    return Times(dates.to_physical(), MILLION)


def _none(column: pl.Series) -> Times:
    return Times(pl.Series([None] * len(column), dtype=pl.Int64), MILLION)
