"""Runs from a CSV table, or from the records of finished runs."""

import csv
import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.performance_law.metric_names import PERCENT, falls, is_share
from wukong_jax.performance_law.record_rows import FAILED, record_rows
from wukong_jax.performance_law.run_rows import Columns, Row, run_row
from wukong_jax.performance_law.runs import LeftOut, Runs

TABLE_LAYERS, TABLE_DIM = "layers", "dim"
RECORD_LAYERS, RECORD_DIM, RECORD_SEED = "config.model.num_layers", "config.model.width", "seed"


def read_runs(
    path: pathlib.Path,
    metric: str,
    *,
    layers: str | None = None,
    dim: str | None = None,
    panel: Sequence[str] | None = None,
    data: str | None = None,
    quality: str | None = None,
    seed: str | None = None,
    rising: bool | None = None,
) -> Runs:
    """Runs of a CSV file (`layers`, `dim`, ... are its columns) or of run records (dotted paths in a record).

    Records are a .jsonl file or a folder of them; their metric is of the test, or `valid.NAME` of the validation. A run
    whose metric is nan or which failed is left out and listed; anything else that is missing raises `DataError` naming
    file, line and column, as do two runs of one size and one seed.
    In a table a column `seed` is read as the seeds, unless another is named. Panels are named by the values of `panel`,
    joined by blanks. D' is the column `data`, times the column `quality` where one is named. Unless `rising` says so, a
    metric named for a loss or an error falls as a model gets better, every other rises.
    """
    if path.is_dir() and not (any(path.glob("*.jsonl")) or any(path.glob(f"*{FAILED}"))):
        raise DataError(
            f"runs: no .jsonl run record in {path}; give a CSV file, a .jsonl file or a folder of records with --runs"
        )
    recorded = path.is_dir() or path.suffix == ".jsonl"
    if recorded:
        columns = Columns(
            layers or RECORD_LAYERS, dim or RECORD_DIM, tuple(panel or ()), data, quality, seed or RECORD_SEED
        )
    else:
        usual = RECORD_SEED if RECORD_SEED in _heading(path) and data != RECORD_SEED else None
        columns = Columns(layers or TABLE_LAYERS, dim or TABLE_DIM, tuple(panel or ()), data, quality, seed or usual)
    _check_columns(metric, columns)
    rows = list((record_rows if recorded else _table_rows)(path, metric, columns))
    if not rows:
        raise DataError(f"runs {path}: no run; expected one row a run")
    return _collect(path, metric, columns, rows, not falls(metric) if rising is None else rising)


def _check_columns(metric: str, columns: Columns) -> None:
    """Raise `ConfigError` where one column is to be two things, or a quality is that of nothing."""
    if columns.quality and not columns.data:
        raise ConfigError(
            f"quality: received {columns.quality!r} without data, which it weighs; name the tokens' column"
        )
    roles: dict[str, str] = {}
    named: dict[str, str | None] = {"layers": columns.layers, "dim": columns.dim, "metric": metric}
    named |= {"data": columns.data, "quality": columns.quality, "seed": columns.seed}
    for role, column in named.items():
        if column is not None and roles.setdefault(column, role) != role:
            raise ConfigError(f"{roles[column]} and {role}: received the column {column!r} for both, expected two")


def _check_repetitions(path: pathlib.Path, columns: Columns, rows: Sequence[Row]) -> None:
    """Raise `DataError` where two runs have all that tells runs apart in common: they are one, or a mixture."""
    known: dict[tuple[object, ...], Row] = {}
    for row in rows:
        first = known.setdefault((row.panel, row.layers, row.dim, row.data if columns.data else None, row.seed), row)
        if first is not row:
            places = first.where if first.where == row.where else f"{first.where} and {row.where}"
            raise DataError(
                f"runs {path}: two of one size (N = {row.layers:g}, d = {row.dim:g}) and one seed, {row.seed} "
                f"({places}); repetitions differ in the seed: delete one, or name what tells them apart with --panels"
            )


def _collect(path: pathlib.Path, metric: str, columns: Columns, rows: Sequence[Row], rising: bool) -> Runs:
    kept = [row for row in rows if math.isfinite(row.y)]
    if columns.seed:
        _check_repetitions(path, columns, kept)
    left_out = tuple(LeftOut(row.where, row.reason) for row in rows if not math.isfinite(row.y))
    if not kept:
        raise DataError(f"runs {path}: no run has a finite {metric}, so there is nothing to fit")
    if is_share(metric):
        for row in kept:
            if not 0 <= row.y <= PERCENT:
                raise DataError(f"runs {row.where}: {metric} is {row.y:g}, expected a share from 0 to 1, or percent")
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


def _lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [line for line in enumerate(csv.reader(file), 1) if line[1]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"runs {path} cannot be read ({error}); expected a CSV file with a heading") from error


def _heading(path: pathlib.Path) -> list[str]:
    lines = _lines(path)
    return [name.strip() for name in lines[0][1]] if lines else []


def _table_rows(path: pathlib.Path, metric: str, columns: Columns) -> Iterator[Row]:
    lines, heading = _lines(path), _heading(path)
    wanted = [
        columns.layers,
        columns.dim,
        metric,
        *columns.panel,
        *filter(None, (columns.data, columns.quality, columns.seed)),
    ]
    for name in wanted:
        if heading.count(name) != 1:
            problem = f"no column {name!r}" if name not in heading else f"{heading.count(name)} columns named {name!r}"
            raise DataError(f"runs {path}: {problem}, expected one; its columns: {', '.join(heading) or 'none'}")
    for number, cells in lines[1:]:
        where = f"{path}, line {number}"
        if len(cells) != len(heading):
            raise DataError(f"runs {where}: {len(cells)} cells, expected {len(heading)} as in the heading")
        values = {name: cell.strip() for name, cell in zip(heading, cells, strict=True)}
        yield run_row(where, metric, columns, values)
