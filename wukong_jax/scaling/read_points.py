"""Points from a folder of run records or from a CSV table."""

import csv
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.scaling.points import Points

if TYPE_CHECKING:
    from wukong_jax.comparison.records import RecordedRun

MFLOP = 1e6
RECORD_INPUTS = {"compute": "training MFLOP/example", "examples": "examples", "parameters": "dense parameters"}
NO_VALUE = ("", "nan", "none", "null", "exploded")
EXPLODED_NE = 2.0
"""A LogLoss of twice the base rate's is no value of a trained model."""


class LeftOut(NamedTuple):
    """A run that no law is fitted to."""

    series: str
    x: float
    reason: str
    exploded: bool
    """Its loss was not finite; others have no value for another reason."""


class Row(NamedTuple):
    """One run: its series, inputs, metric (NaN where it has none) and why, and its floor."""

    series: str
    inputs: tuple[float, ...]
    y: float
    seed: int | None
    """None where the source does not tell."""
    reason: str
    exploded: bool
    floor: float | None = None


class Source(NamedTuple):
    """All series of a source, in the order of their first run."""

    points: tuple[Points, ...]
    left_out: tuple[LeftOut, ...]

    def exploded(self, series: str) -> list[float]:
        """The x of the runs of a series that exploded."""
        return [run.x for run in self.left_out if run.series == series and run.exploded]


def read_table(
    path: pathlib.Path,
    inputs: Sequence[str],
    y: str,
    series: str,
    seed: str | None = None,
    *,
    origin: float = 0.0,
    floor: float | None = None,
) -> Source:
    """Points of a CSV file, its columns named; an empty value, `nan` or `exploded` is left out.

    The reason is the text of the column `remark`, where there is one; an empty value exploded only if that says so.
    Raises `DataError` naming file, line and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, line) for line in reader]
            columns = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table {path} cannot be read ({error}); expected a CSV file with a heading") from error
    options = {"--x": inputs[0], "--y": y, "--series": series} | ({"--seed": seed} if seed else {})
    if len({y, *inputs}) <= len(inputs):
        raise ConfigError(f"--y: received {y}, which is an input too; choose the column of the metric")
    for option, name in [*options.items(), *(("--examples", name) for name in inputs[1:])]:
        if name not in columns:
            raise DataError(f"table {path}: no column {name!r} ({option}); its columns: {', '.join(columns) or 'none'}")
        if columns.count(name) > 1:
            raise DataError(f"table {path}: {columns.count(name)} columns named {name!r} ({option}), expected one")
    rows = []
    for number, line in lines:
        where = f"table {path}, line {number}"
        if None in line:
            raise DataError(
                f"{where}: {len(columns) + len(line[None])} cells, expected {len(columns)} as in the heading"
            )
        text, remark = (line[y] or "").strip().lower(), (line.get("remark") or "").strip()
        empty = text in NO_VALUE
        rows.append(
            Row(
                (line[series] or "").strip(),
                tuple(_number(where, name, line[name]) for name in inputs),
                math.nan if empty else _number(where, y, line[y]),
                _whole(where, seed, line[seed]) if seed else None,
                remark or f"no value in {y}",
                empty and (bool(text) or "explode" in remark.lower() or "diverge" in remark.lower()),
                floor,
            )
        )
    return _collect(str(path), rows, origin)


def read_records(
    folder: pathlib.Path,
    study: str,
    inputs: Sequence[str],
    metric: str,
    *,
    origin: float = 0.0,
    floor: float | None = None,
) -> Source:
    """Points of the runs of one study in a folder of records: test metric against compute, examples or parameters.

    A run that diverged or has no finite metric is left out. Raises `DataError` where records do not belong together.
    """
    from wukong_jax.comparison.records import read_folder
    from wukong_jax.scaling.sweep_records import read_failures

    for name in inputs:
        if name not in RECORD_INPUTS:
            raise ConfigError(f"--x: received {name!r}, expected one of {', '.join(RECORD_INPUTS)} for run records")
    if len(set(inputs)) < len(inputs):
        raise ConfigError("--x: received examples, which is the other input of the joint law; choose compute")
    if metric.partition("/")[0] in ("auc", "gauc"):
        raise ConfigError(f"--y: {metric} rises as a model gets better, expected a metric that falls, such as logloss")
    runs = read_folder(folder)
    chosen = [run for run in runs if run.record.get("study") == study]
    if not chosen:
        studies = sorted({str(run.record.get("study")) for run in runs})
        raise DataError(
            f"records {folder}: no run of the study {study!r}; studies there: {', '.join(studies) or 'none'}"
        )
    _check_alike(chosen, same_data="examples" not in inputs)
    finished = {run.config.identity_hash() for run in runs}
    failed = [run for run in read_failures(folder) if run.record.get("study") == study]
    lost = [run for run in failed if run.config.identity_hash() not in finished]
    return _collect(str(folder), [_row(run, inputs, metric, floor) for run in (*chosen, *lost)], origin)


def _check_alike(runs: "Sequence[RecordedRun]", *, same_data: bool) -> None:
    for name in ("numerics_revision", *(("store_digest",) if same_data else ())):
        for run in runs:
            ours, theirs = runs[0].record.get(name), run.record.get(name)
            if ours != theirs:
                raise DataError(
                    f"records {runs[0].path} and {run.path} differ in {name} ({ours} and {theirs}); a law takes runs "
                    "of one data set and one revision: keep them in different folders or studies"
                )


def _row(run: "RecordedRun", inputs: Sequence[str], metric: str, floor: float | None) -> Row:
    from wukong_jax.training.record import best_possible

    record = run.record
    if "series" not in record:
        raise DataError(f"records {run.path}: no key 'series', expected a record of a sweep; move the file away")
    values = {
        "compute": record["training_flops_per_example"] / MFLOP,
        "examples": float(record.get("best_step", record.get("steps", math.nan)) * run.config.train.batch_size),
        "parameters": float(record["dense_parameters"]),
    }
    metrics: Mapping[str, Any] = (record.get("results") or {}).get("test") or {}
    if metrics and metric not in metrics:
        raise DataError(f"records {run.path}: no test metric {metric!r}; its metrics: {', '.join(sorted(metrics))}")
    value = metrics.get(metric)
    entropy = metrics.get(metric.replace("logloss", "ne", 1)) if metric.startswith("logloss") else None
    rows = (record.get("examples") or {}).get("train", math.inf)
    if "examples" in inputs and values["examples"] > rows:
        step = values["examples"] / run.config.train.batch_size
        raise DataError(
            f"records {run.path}: its score is that of step {step:.0f}, after {values['examples']:,.0f} examples of a "
            f"split of {rows:,}; a law in examples takes runs of one pass at most"
        )
    best = best_possible(record, metric)
    reason = record.get("failed") or ("the metric is not finite: it exploded" if metrics else "no test metrics")
    if value is not None and entropy is not None and not entropy <= EXPLODED_NE:
        value, reason = None, f"the {metric} {value:.4g} is {entropy:.3g} times the base rate's: it exploded"
    return Row(
        record["series"],
        tuple(float(values[name]) for name in inputs),
        math.nan if value is None else float(value),
        int(record["seed"]),
        f"{run.path.name}: {reason}",
        bool(metrics or record.get("failed")),
        best if floor is None else floor,
    )


def _collect(where: str, rows: Iterable[Row], origin: float) -> Source:
    by_series: dict[str, list[Row]] = {}
    left_out = []
    for row in rows:
        kept = by_series.setdefault(row.series, [])
        if math.isfinite(row.y):
            kept.append(row)
        else:
            left_out.append(LeftOut(row.series, row.inputs[0], row.reason, row.exploded))
    points = []
    for series, kept in by_series.items():
        if not kept:
            continue
        floors = {row.floor for row in kept}
        # where runs are of different data, no one value is the best possible
        floor = floors.pop() if len(floors) == 1 else None
        _check_seeds(where, kept)
        inputs = np.array([row.inputs for row in kept]).T
        points.append(Points(series, inputs, np.array([row.y for row in kept]), origin=origin, floor=floor))
    if not points:
        raise DataError(f"{where}: no run has a value, so there is nothing to fit")
    return Source(tuple(points), tuple(left_out))


def _check_seeds(where: str, rows: Sequence[Row]) -> None:
    """Runs of equal inputs are taken for repetitions; those of one seed differ in something else."""
    known: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if row.seed is not None and known.setdefault((row.seed, *row.inputs), row) is not row:
            at = ", ".join(f"{value:g}" for value in row.inputs)
            raise DataError(
                f"{where}: series {row.series!r} has two runs at {at} with seed {row.seed}: they differ in more than "
                "the seed, and a law would take them for repetitions; give them series, studies or tables of their own"
            )


def _whole(where: str, column: str, text: str | None) -> int:
    value = _number(where, column, text)
    if value != int(value):
        raise DataError(f"{where}: {column} is {text!r}, expected a whole number")
    return int(value)


def _number(where: str, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {column} is {text!r}, expected a number")
    return value
