"""Runs from the records of finished runs, which must be of one kind.

Their metric is that of the test, `hr@10` or `test.hr@10`, or of the validation, `valid.loss`.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from wukong_jax.config.codec import to_plain
from wukong_jax.config.sequences import TrainingPart
from wukong_jax.errors import DataError
from wukong_jax.performance_law.run_rows import Columns, Row, run_row
from wukong_jax.performance_law.runs import ONE_PANEL

FAILED = ".failed.json"
SPLITS = {"valid.": "validation", "test.": "test"}
"""Which results a metric is of, by what its name begins with; without that, the test's."""
PROTOCOL = ("holdout", "remove_history")


def record_rows(path: pathlib.Path, metric: str, columns: Columns) -> Iterator[Row]:
    """The runs of a .jsonl file or of a folder, those that failed last; raises `DataError` where they do not fit."""
    from wukong_jax.training.record import read_records

    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    records = [(file, record) for file in files for record in read_records(file)]
    failures = [(file, _failure(file)) for file in (sorted(path.glob(f"*{FAILED}")) if path.is_dir() else [])]
    finished = {file.name.removesuffix(".jsonl") for file in files}
    failures = [(file, note) for file, note in failures if file.name.removesuffix(FAILED) not in finished]
    revisions: dict[Any, pathlib.Path] = {}
    kinds: dict[str, tuple[dict[str, Any], pathlib.Path]] = {}
    wanted = [columns.layers, columns.dim, *columns.panel, *filter(None, (columns.data, columns.quality, columns.seed))]
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
        if failed is None:
            panel = " ".join(str(values[name]) for name in columns.panel) or ONE_PANEL
            _check_alike(file, _kind(record, columns), kinds.setdefault(panel, (_kind(record, columns), file)))
        value = None if failed is not None else _result(where, record, metric)
        yield run_row(where, metric, columns, values | {metric: "nan" if value is None else value}, failed)


def _result(where: str, record: Mapping[str, Any], metric: str) -> Any:
    """The value of a metric; raises `DataError` where the record has none of that name."""
    start = next((one for one in SPLITS if metric.startswith(one)), "test.")
    metrics = (record.get("results") or {}).get(start[:-1]) or {}
    name = metric.removeprefix(start)
    if name not in metrics:
        named = ", ".join(sorted(metrics)) or "none"
        raise DataError(f"{where}: no {SPLITS[start]} metric {name!r}; its metrics: {named}")
    return metrics[name]


def _kind(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """What the runs of a panel must share, as the metric of one is not that of another else; D' tells data apart."""
    sequences = _at(record, "config.sequences") or {}
    found = {"model": record.get("model")} | {f"config.sequences.{name}": sequences.get(name) for name in PROTOCOL}
    if not columns.data:
        found["store_digest"] = record.get("store_digest")
        found["config.model.max_length"] = _at(record, "config.model.max_length")
        found["config.sequences.training"] = sequences.get("training", to_plain(TrainingPart()))
    return {
        name: value
        for name, value in found.items()
        if name not in (columns.layers, columns.dim, columns.data, columns.quality)
    }


def _check_alike(file: pathlib.Path, kind: dict[str, Any], known: tuple[dict[str, Any], pathlib.Path]) -> None:
    """Raise `DataError` naming the first thing in which a run is none of those before it in its panel."""
    for name, value in kind.items():
        if value != known[0][name]:
            raise DataError(
                f"records {known[1]} and {file} differ in {name} ({known[0][name]} and {value}); a law takes runs of "
                "one model, protocol and data set a panel: name what tells them apart with --panels, or keep them in "
                "folders of their own"
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
