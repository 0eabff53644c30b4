"""One chunk of raw rows to arrays: every value is checked, bad rows are set aside with their reason."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from wukong_jax.data.integers import integer_expression
from wukong_jax.data.readers.chunk import BadRow, Chunk
from wukong_jax.data.sources import select_rows
from wukong_jax.data.spec import MISSING_VALUES, IngestSpec, MultiHotColumn, VectorColumn
from wukong_jax.data.vocabulary import Dictionary, key_expression, stable_hash64
from wukong_jax.errors import DataError

FLOAT32_MAX = float(np.finfo(np.float32).max)
ROWS_IN_CACHE = 4096
Check = tuple[str, str, pl.Expr]  # column, what is expected, whether the value is wrong


class CleanChunk(NamedTuple):
    """The rows of a chunk that can be used, and those that cannot, in line order."""

    chunk: Chunk
    bad: tuple[BadRow, ...]


def check_columns(chunk: Chunk, spec: IngestSpec, *, labels: bool = True) -> None:
    """Raise `DataError` where the file lacks a column that the specification names."""
    here = set(chunk.frame.columns)
    missing = [name for name in needed_columns(spec, labels=labels) if name not in here]
    if missing:
        labelless = missing == list(spec.labels)
        hint = "rows without labels cannot be prepared, only scored with `predict`" if labelless else "mend the names"
        raise DataError(
            f"{chunk.file}: no column {', '.join(map(repr, missing))}; it has {chunk.frame.columns}; {hint}"
        )


def needed_columns(spec: IngestSpec, *, labels: bool = True) -> list[str]:
    """Every column that the specification reads, once."""
    single = [name for name in (spec.group, spec.weight, spec.time) if name is not None]
    return list(dict.fromkeys([*(spec.labels if labels else ()), *spec.feature_names, *(single if labels else ())]))


def clean(chunk: Chunk, spec: IngestSpec, *, labels: bool = True) -> CleanChunk:
    """Check all values of the columns that the specification names; what was wrong before is kept in `bad`."""
    if not chunk.frame.height:
        return CleanChunk(chunk, chunk.bad)
    checks = _checks(spec, chunk.frame, labels=labels)
    names = [str(i) for i in range(len(checks))]
    faults = chunk.frame.select(wrong.alias(name) for name, (_, _, wrong) in zip(names, checks, strict=True))
    faulty = [i for i, name in enumerate(names) if faults[name].any()]
    if not faulty:
        return CleanChunk(chunk, chunk.bad)
    matrix = faults.select(names[i] for i in faulty).to_numpy()
    wrong_rows = np.flatnonzero(matrix.any(axis=1))
    bad = []
    for row in wrong_rows.tolist():
        column, expected, _ = checks[faulty[int(matrix[row].argmax())]]
        value = chunk.frame[column][row]
        received = "nothing" if value is None or value == "" else repr(value)
        bad.append(
            BadRow(
                chunk.file, chunk.line(row), f"column {column!r} holds {received}, expected {expected}", chunk.text(row)
            )
        )
    good = np.flatnonzero(~matrix.any(axis=1))
    return CleanChunk(select_rows(chunk, good, ()), tuple(sorted([*chunk.bad, *bad], key=lambda row: row.line)))


def refuse(bad: Sequence[BadRow], fix: str, unit: str = "line") -> None:
    """Raise `DataError` for the first bad row, if there is one."""
    if bad:
        raise DataError(f"{bad[0].file}, {unit} {bad[0].line}: {bad[0].reason}; {fix}")


def raw_arrays(
    chunk: Chunk,
    spec: IngestSpec,
    codes_of: Mapping[str, Callable[[pl.Series], np.ndarray]],
    *,
    labels: bool = True,
    cut: Counter[str] | None = None,
) -> dict[str, np.ndarray]:
    """Arrays by kind of checked rows: ids (codes, -1 unused), float64 numerics with NaN where missing, and so on.

    `labels` False leaves out labels, weights, group and time. Kinds without columns are absent. `cut` counts the
    values of multi-hot columns beyond their maximum length.
    """
    frame = chunk.frame
    arrays: dict[str, np.ndarray] = {}
    if codes_of:
        arrays["ids"] = _ids(frame, spec, codes_of, Counter() if cut is None else cut)
    if spec.numeric:
        arrays["numeric"] = frame.select(_number(c.name).fill_null(float("nan")) for c in spec.numeric).to_numpy(
            order="c"
        )
    if spec.vectors:
        arrays["vectors"] = np.concatenate([_vectors(frame, column) for column in spec.vectors], axis=1)
    if labels:
        arrays["labels"] = frame.select(_number(name) for name in spec.labels).to_numpy().astype(np.float32)
        if spec.weight is not None:
            arrays["weights"] = frame.select(_number(spec.weight)).to_series().to_numpy().astype(np.float32)
        if spec.group is not None:
            arrays["group"] = _group_ids(frame[spec.group])
        if spec.time is not None:
            integer = integer_expression(spec.time, frame.schema[spec.time])
            arrays["time"] = frame.select(integer).to_series().to_numpy()
    return arrays


def dictionaries(spec: IngestSpec) -> dict[str, Dictionary]:
    """An empty dictionary for every feature that is looked up."""
    return {column.name: Dictionary() for column in spec.id_columns}


def _present(name: str) -> pl.Expr:
    return pl.col(name).is_not_null() & ~pl.col(name).cast(pl.String).is_in(MISSING_VALUES)


def _number(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Float64, strict=False)


def _checks(spec: IngestSpec, frame: pl.DataFrame, *, labels: bool) -> list[Check]:
    checks: list[Check] = []
    if labels:
        for name in spec.labels:
            checks.append((name, "the label 0 or 1", ~_number(name).is_in([0.0, 1.0]).fill_null(False)))
        if spec.weight is not None:
            weight = _number(spec.weight)
            sound = (weight >= 0) & (weight <= FLOAT32_MAX)
            checks.append((spec.weight, "a finite weight of at least 0", ~sound.fill_null(False)))
        if spec.time is not None:
            integer = integer_expression(spec.time, frame.schema[spec.time])
            checks.append((spec.time, "a time as an integer (such as seconds since 1970)", integer.is_null()))
        if spec.group is not None:
            checks.append((spec.group, "a group", ~_present(spec.group)))
    for column in spec.numeric:
        # NaN compares as greater than every number.
        sound = (_number(column.name).abs() <= FLOAT32_MAX).fill_null(False)
        checks.append((column.name, "a finite float32 number", _present(column.name) & ~sound))
    for categorical in spec.categorical:
        if categorical.bucketing == "log2_square":
            integer = integer_expression(categorical.name, frame.schema[categorical.name])
            wrong = _present(categorical.name) & integer.is_null()
            checks.append((categorical.name, "an integer, as its bucketing needs one", wrong))
    for vector in spec.vectors:
        values = _vector_values(vector, frame.schema[vector.name])
        sound = (values.list.len() == vector.width) & (values.list.eval(pl.element().abs() <= FLOAT32_MAX)).list.all()
        sound = sound & values.list.eval(pl.element().is_not_null()).list.all()
        checks.append((vector.name, f"{vector.width} finite numbers", ~sound.fill_null(False)))
    return checks


def _vector_values(column: VectorColumn, dtype: Any) -> pl.Expr:
    if isinstance(dtype, pl.Array):
        return pl.col(column.name).arr.to_list().cast(pl.List(pl.Float64), strict=False)
    split = pl.col(column.name) if isinstance(dtype, pl.List) else pl.col(column.name).str.split(column.separator)
    return split.cast(pl.List(pl.Float64), strict=False)


def _vectors(frame: pl.DataFrame, column: VectorColumn) -> Float[np.ndarray, "rows width"]:
    values = frame.select(_vector_values(column, frame.schema[column.name])).to_series().explode()
    return values.to_numpy().astype(np.float32).reshape(-1, column.width)


def _group_ids(values: pl.Series) -> Int[np.ndarray, "rows"]:
    """An integer stands for itself, other text for its 64-bit hash."""
    text = values.cast(pl.String)
    integers = text.cast(pl.Int64, strict=False)
    plain = (integers.cast(pl.String) == text).fill_null(False).to_numpy()
    if plain.all():
        return integers.to_numpy()
    distinct = text.unique()
    hashed = text.replace_strict(distinct, pl.Series(stable_hash64(distinct).view(np.int64))).to_numpy()
    return np.where(plain, integers.fill_null(0).to_numpy(), hashed)


def _ids(
    frame: pl.DataFrame, spec: IngestSpec, codes_of: Mapping[str, Callable[[pl.Series], np.ndarray]], cut: Counter[str]
) -> Int[np.ndarray, "rows id_columns"]:
    keys = frame.select(key_expression(column, frame.schema[column.name]) for column in spec.categorical)
    places = len(spec.categorical) + sum(column.max_length for column in spec.multi_hot)
    ids = np.full((frame.height, places), -1, np.int32)
    codes = [codes_of[column.name](keys[column.name]) for column in spec.categorical]
    start = len(codes)
    # A few rows at a time stay in the cache while columns become rows.
    for first in range(0, frame.height if codes else 0, ROWS_IN_CACHE):
        part = slice(first, first + ROWS_IN_CACHE)
        np.stack([column[part] for column in codes], axis=1, out=ids[part, :start])
    for hot in spec.multi_hot:
        items = _items(frame, hot)
        kept = items.filter(pl.col("place") < hot.max_length)
        ids[kept["row"].to_numpy(), start + kept["place"].to_numpy()] = codes_of[hot.name](kept["item"])
        cut[hot.name] += items.height - kept.height
        start += hot.max_length
    return ids


def _items(frame: pl.DataFrame, column: MultiHotColumn) -> pl.DataFrame:
    """Columns row, place, item: the values of every row, without missing ones, numbered from place 0."""
    dtype = frame.schema[column.name]
    if isinstance(dtype, pl.List | pl.Array):
        lists = pl.col(column.name).cast(pl.List(pl.String))
    else:
        lists = pl.col(column.name).cast(pl.String).str.split(column.separator)
    return (
        frame.select(lists.alias("item"))
        .with_row_index("row")
        .explode("item")
        .filter(pl.col("item").is_not_null() & ~pl.col("item").is_in(MISSING_VALUES))
        .with_columns(pl.int_range(pl.len()).over("row").alias("place"))
    )
