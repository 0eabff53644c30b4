"""Columns of raw rows as integers: text, numbers of any type, dates and times."""

from typing import Any

import polars as pl


def integer_expression(name: str, dtype: Any) -> pl.Expr:
    """Int64 of a column; null where the value is missing or no integer, such as 3.5 or NaN.

    Floats and decimals that are whole count as integers; Parquet dates and times are seconds since 1970.
    """
    column = pl.col(name)
    if isinstance(dtype, pl.Date | pl.Datetime):
        return column.dt.epoch("s").cast(pl.Int64)
    if isinstance(dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    integer = column.cast(pl.Int64, strict=False)
    if dtype.is_float() or dtype.is_decimal():
        return pl.when(integer == column).then(integer).alias(name)  # the cast cuts fractions off
    return integer
