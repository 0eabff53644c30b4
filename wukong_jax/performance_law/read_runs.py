"""Runs from a CSV table, or from the records of finished runs."""

import csv
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wukong_jax.errors import DataError
from wukong_jax.performance_law.runs import ONE_PANEL, LeftOut, Runs

FALLING = re.compile(r"(^|[^a-z])(\w*loss|perplexity|ppl|error|rmse|mae|mse|ne)([^a-z]|$)")
DIVERGED = ("nan", "inf", "-inf", "diverged", "exploded")
TABLE_LAYERS, TABLE_DIM = "layers", "dim"
RECORD_LAYERS, RECORD_DIM, RECORD_SEED = "config.model.num_layers", "config.model.width", "seed"
FAILED = ".failed.json"


class Columns(NamedTuple):
    """Where each number is: columns of a table, or dotted paths in a record."""

    layers: str
    dim: str
    panel: tuple[str, ...]
    data: str | None
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


def read_runs(
    path: pathlib.Path,
    metric: str,
    *,
    layers: str | None = None,
    dim: str | None = None,
    panel: Sequence[str] | None = None,
    data: str | None = None,
    seed: str | None = None,
    rising: bool | None = None,
) -> Runs:
    """Runs of a CSV file (`layers`, `dim`, ... are its columns) or of run records (dotted paths in a record).

    Records are a .jsonl file or a folder of them; their metric is results.test[metric]. A run whose metric is nan or
    which failed is left out and listed; anything else that is missing raises `DataError` naming file, line and column.
    Panels are named by the values of `panel`, joined by blanks. Unless `rising` says so, a metric named for a loss or
    an error falls as a model gets better, every other rises.
    """
    if path.is_dir() and not (any(path.glob("*.jsonl")) or any(path.glob(f"*{FAILED}"))):
        raise DataError(
            f"runs: no .jsonl run record in {path}; give a CSV file, a .jsonl file or a folder of records with --runs"
        )
    if path.is_dir() or path.suffix == ".jsonl":
        columns = Columns(layers or RECORD_LAYERS, dim or RECORD_DIM, tuple(panel or ()), data, seed or RECORD_SEED)
        rows = list(_record_rows(path, metric, columns))
    else:
        columns = Columns(layers or TABLE_LAYERS, dim or TABLE_DIM, tuple(panel or ()), data, seed)
        rows = list(_table_rows(path, metric, columns))
    if not rows:
        raise DataError(f"runs {path}: no run; expected one row a run")
    return _collect(path, metric, columns, rows, not falls(metric) if rising is None else rising)


def falls(metric: str) -> bool:
    """Whether the name says that the metric falls as a model gets better."""
    return FALLING.search(metric.lower()) is not None


def _collect(path: pathlib.Path, metric: str, columns: Columns, rows: Sequence[Row], rising: bool) -> Runs:
    kept = [row for row in rows if math.isfinite(row.y)]
    left_out = tuple(LeftOut(row.where, row.reason) for row in rows if not math.isfinite(row.y))
    if not kept:
        raise DataError(f"runs {path}: no run has a finite {metric}, so there is nothing to fit")
    panels = tuple(dict.fromkeys(row.panel for row in kept))
    return Runs(
        metric,
        rising,
        np.array([row.layers for row in kept]),
        np.array([row.dim for row in kept]),
        np.array([row.y for row in kept]),
        np.array([panels.index(row.panel) for row in kept]),
        panels,
        np.array([row.data for row in kept]) if columns.data else None,
        np.array([row.seed for row in kept]) if columns.seed else None,
        left_out,
    )


def _table_rows(path: pathlib.Path, metric: str, columns: Columns) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in enumerate(csv.reader(file), 1) if line[1]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"runs {path} cannot be read ({error}); expected a CSV file with a heading") from error
    heading = [name.strip() for name in lines[0][1]] if lines else []
    wanted = [columns.layers, columns.dim, metric, *columns.panel, *filter(None, (columns.data, columns.seed))]
    for name in wanted:
        if heading.count(name) != 1:
            problem = f"no column {name!r}" if name not in heading else f"{heading.count(name)} columns named {name!r}"
            raise DataError(f"runs {path}: {problem}, expected one; its columns: {', '.join(heading) or 'none'}")
    for number, cells in lines[1:]:
        where = f"{path}, line {number}"
        if len(cells) != len(heading):
            raise DataError(f"runs {where}: {len(cells)} cells, expected {len(heading)} as in the heading")
        values = {name: cell.strip() for name, cell in zip(heading, cells, strict=True)}
        yield _row(where, metric, columns, values)


def _row(where: str, metric: str, columns: Columns, values: Mapping[str, Any], failed: str | None = None) -> Row:
    panel = " ".join(_text(where, name, values.get(name)) for name in columns.panel) or ONE_PANEL
    value = values.get(metric)
    diverged = failed is not None or (isinstance(value, str) and value.lower() in DIVERGED)
    return Row(
        where,
        _positive(where, columns.layers, values.get(columns.layers)),
        _positive(where, columns.dim, values.get(columns.dim)),
        math.nan if diverged else _number(where, metric, value),
        panel,
        _positive(where, columns.data, values.get(columns.data)) if columns.data else math.nan,
        _whole(where, columns.seed, values.get(columns.seed)) if columns.seed else 0,
        failed or f"{metric} is {value!r}",
    )


def _record_rows(path: pathlib.Path, metric: str, columns: Columns) -> Iterator[Row]:
    from wukong_jax.training.record import read_records

    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    records = [(file, record) for file in files for record in read_records(file)]
    failures = [(file, _failure(file)) for file in (sorted(path.glob(f"*{FAILED}")) if path.is_dir() else [])]
    finished = {file.name.removesuffix(".jsonl") for file in files}
    failures = [(file, note) for file, note in failures if file.name.removesuffix(FAILED) not in finished]
    revisions: dict[Any, pathlib.Path] = {}
    data: dict[str, tuple[Any, pathlib.Path]] = {}
    wanted = [columns.layers, columns.dim, *columns.panel, *filter(None, (columns.data, columns.seed))]
    for file, record in [*records, *failures]:
        where = f"records {file}"
        revisions.setdefault(record.get("numerics_revision"), file)
        if len(revisions) > 1:
            raise DataError(
                f"{' and '.join(map(str, revisions.values()))} differ in numerics_revision "
                f"({' and '.join(map(str, revisions))}); a law takes runs of one revision: keep them in folders of "
                "their own"
            )
        values = {name: _at(record, name) for name in wanted}
        failed = record.get("failed")
        if failed is None and not columns.data:
            _check_data(file, record, " ".join(str(values[name]) for name in columns.panel) or ONE_PANEL, data)
        metrics = (record.get("results") or {}).get("test") or {}
        if failed is None and metric not in metrics:
            raise DataError(f"{where}: no test metric {metric!r}; its metrics: {', '.join(sorted(metrics)) or 'none'}")
        value = metrics.get(metric)
        yield _row(where, metric, columns, values | {metric: "nan" if value is None else value}, failed)


def _check_data(
    file: pathlib.Path, record: Mapping[str, Any], panel: str, data: dict[str, tuple[Any, pathlib.Path]]
) -> None:
    """Raise `DataError` if earlier runs of the panel were trained on other data; `data` keeps the first of each."""
    digest = record.get("store_digest")
    known, first = data.setdefault(panel, (digest, file))
    if digest != known:
        raise DataError(
            f"records {first} and {file} were trained on different data (store_digest {known} and {digest}); a law "
            "takes one data set a panel: name what tells them apart with --panels, or keep them in folders of their own"
        )


def _failure(path: pathlib.Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"records {path}: not the note of a failed run ({error}); move the file away") from error
    if not isinstance(record, dict) or not isinstance(record.get("failed"), str):
        raise DataError(f"records {path}: no text at 'failed', expected the note of a failed run; move the file away")
    return record


def _at(record: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(where: str, column: str, value: object) -> str:
    if value is None or value == "":
        raise DataError(f"runs {where}: {column} is missing, expected a name")
    return str(value)


def _number(where: str, column: str, value: object) -> float:
    mend = "; write nan for a run that diverged" if value == "" else ""
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
    if found != int(found):
        raise DataError(f"runs {where}: {column} is {value!r}, expected a whole number")
    return int(found)
