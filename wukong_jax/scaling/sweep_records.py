"""What is known of a sweep's runs: their records, and those that diverged, one small file each in one folder.

`<name>-seed<k>-<hash>.jsonl` is a run record with three more keys: series, study and varied. A run that diverged leaves
`<name>-seed<k>-<hash>.failed.json` instead: the same keys but no results, steps or history, and "failed" with the
reason. As it is no .jsonl file, whoever reads the folder's records does not meet it by accident; `read_failures` does.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

import wukong_jax
from wukong_jax.comparison.records import RecordedRun, check_numerics, portable, read_folder, record_path
from wukong_jax.config.codec import from_plain, to_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.files import write_text
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.scaling.sweep import Point, Sweep
from wukong_jax.training.data import data_path, open_data
from wukong_jax.training.record import RECORD_VERSION, write_records

FAILED = ".failed.json"


class Known(NamedTuple):
    """The files of a sweep's runs, by identity hash."""

    records: dict[str, RecordedRun]
    failures: dict[str, RecordedRun]
    """Runs that diverged."""
    others: int
    """Records of the folder that are of no point of the sweep."""


def labels(point: Point) -> dict[str, Any]:
    """What a record of a sweep has besides the run's own facts, as JSON holds it."""
    return {
        "series": point.series,
        "study": point.study,
        "varied": json.loads(json.dumps(to_plain(dict(point.varied)))),
    }


def save_run(folder: pathlib.Path, point: Point, record: dict[str, Any]) -> pathlib.Path:
    """Write the record of a finished run, without local paths, into a file of its own; returns its path."""
    path = record_path(folder, point.config)
    write_records(path, [portable(record) | labels(point)])
    return path


def failure_path(folder: pathlib.Path, config: RunConfig) -> pathlib.Path:
    """Where a run that diverged is noted."""
    return folder / (record_path(folder, config).name.removesuffix(".jsonl") + FAILED)


def save_failure(folder: pathlib.Path, point: Point, reason: str) -> pathlib.Path:
    """Note a run that diverged, so that it is neither repeated nor lost; returns the file's path."""
    config, cost, device = point.config, describe_cost(point.config), jax.devices()[0]
    facts = {
        "record_version": RECORD_VERSION,
        "name": config.name,
        "model": type(config.model).__name__.removesuffix("Config"),
        "config": to_plain(config),
        "schema_hash": config.schema.hash(),
        "seed": config.train.seed,
        "version": wukong_jax.__version__,
        "numerics_revision": wukong_jax.NUMERICS_REVISION,
        "jax_version": jax.__version__,
        "device": device.device_kind,
        "platform": device.platform,
        "dense_parameters": cost.dense_total,
        "sparse_parameters": cost.sparse_total,
        "training_flops_per_example": cost.training_flops,
        "failed": reason,
    }
    path = failure_path(folder, config)
    write_text(path, json.dumps(portable(facts) | labels(point)) + "\n")
    return path


def read_failures(folder: pathlib.Path) -> list[RecordedRun]:
    """The runs of a folder that diverged, by file name; raises `DataError` naming a file that is none."""
    runs = []
    for path in sorted(folder.glob(f"*{FAILED}")):
        try:
            facts = json.loads(path.read_text())
            if facts["record_version"] != RECORD_VERSION or not isinstance(facts["failed"], str):
                raise DataError(
                    f"{path}: not the note of a failed run of this version; delete it to train the run anew"
                )
            runs.append(RecordedRun(from_plain(RunConfig, facts["config"]), facts, path))
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            raise DataError(f"{path}: no note of a failed run ({error}); delete it to train the run anew") from error
    return runs


def read_known(folder: pathlib.Path, sweep: Sweep) -> Known:
    """The files of the sweep's runs; raises `DataError` if new runs could not stand beside them.

    That is so where their results were those of another version, or of other data than the stores now hold.
    """
    wanted = {point.config.identity_hash(): point for point in sweep.points}
    found = {run.config.identity_hash(): run for run in read_folder(folder)}
    records = {identity: run for identity, run in found.items() if identity in wanted}
    failures = {run.config.identity_hash(): run for run in read_failures(folder)}
    failures = {identity: run for identity, run in failures.items() if identity in wanted and identity not in records}
    for run in (*records.values(), *failures.values()):
        check_numerics(run)
    check_same_data(sweep, records)
    return Known(records, failures, len(found) - len(records))


def check_same_data(sweep: Sweep, records: Mapping[str, RecordedRun]) -> None:
    """Raise `DataError` if a record is of other data than the store of its point holds; stores not made yet pass."""
    digests: dict[pathlib.Path, str | None] = {}
    for point in sweep.points:
        run = records.get(point.config.identity_hash())
        if run is None:
            continue
        path = data_path(point.config)
        if path not in digests:
            digests[path] = open_data(point.config, path, verify=False).digest if path.exists() else None
        if digests[path] not in (None, run.record["store_digest"]):
            raise DataError(
                f"records {run.path}: trained on other data than store {path} now holds; restore that store, or keep "
                "the new runs in another folder with --records"
            )


def write_labels(known: Known, sweep: Sweep) -> int:
    """Write the labels that the sweep file now gives into the files that have others; returns how many had."""
    changed = 0
    for point in sweep.points:
        identity = point.config.identity_hash()
        run = known.records.get(identity) or known.failures.get(identity)
        if run is None or all(run.record.get(name) == value for name, value in labels(point).items()):
            continue
        new = run.record | labels(point)
        if identity in known.records:
            write_records(run.path, [new])
        else:
            write_text(run.path, json.dumps(new) + "\n")
        changed += 1
    return changed
