"""The run record: one JSON object per finished run, the same for every command that trains or reads runs."""

import json
import math
import pathlib
import platform
from collections.abc import Iterator
from typing import Any

import jax

import wukong_jax
from wukong_jax.config.codec import to_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.data.store import Store
from wukong_jax.errors import DataError
from wukong_jax.evaluation.collapse import Abundance
from wukong_jax.files import write_text
from wukong_jax.process import processor
from wukong_jax.scaling.flops import Cost
from wukong_jax.training.progress import Progress
from wukong_jax.training.spikes import find_spikes

RECORD_VERSION = 1


def make_record(
    config: RunConfig,
    store: Store,
    cost: Cost,
    progress: Progress,
    results: dict[str, dict[str, float]],
    abundance: dict[str, Abundance],
    checkpoints: pathlib.Path,
    best_step: int,
) -> dict[str, Any]:
    """All facts of a finished run; `results` by split and `abundance` by table are of the checkpoint of `best_step`."""
    device = jax.devices()[0]
    return {
        "record_version": RECORD_VERSION,
        "name": config.name,
        "model": type(config.model).__name__.removesuffix("Config"),
        "config": to_plain(config),
        "config_hash": config.hash(),
        "schema_hash": config.schema.hash(),
        "store_digest": store.digest,
        "seed": config.train.seed,
        "version": wukong_jax.__version__,
        "numerics_revision": wukong_jax.NUMERICS_REVISION,
        "jax_version": jax.__version__,
        "python_version": platform.python_version(),
        "device": device.device_kind,
        "processor": processor(),
        "platform": device.platform,
        "devices": config.mesh.data * config.mesh.model,
        "examples": {name: split.rows for name, split in store.splits.items()},
        "dense_parameters": cost.dense_total,
        "sparse_parameters": cost.sparse_total,
        "forward_flops_per_example": sum(cost.forward_flops.values()),
        "training_flops_per_example": cost.training_flops,
        "steps": progress.step,
        "best_step": best_step,
        "results": results,
        "best_possible": store.encoding.get("floor"),
        "information_abundance": abundance,
        "loss_spikes": find_spikes(progress.history, config.train.log_every_steps),
        "history": progress.history,
        "examples_per_second": progress.timed_examples / progress.train_seconds if progress.train_seconds else 0.0,
        "wall_seconds": progress.wall_seconds,
        "checkpoint": str(checkpoints / str(best_step)),
    }


def best_possible(record: dict[str, Any], metric: str) -> float | None:
    """The best test score that the data allows, None where nobody knows; LogLoss on the labels as they were drawn."""
    floor = (record.get("best_possible") or {}).get("test") or {}
    return floor.get(f"drawn_{metric}", floor.get(metric))


def write_records(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Write a JSONL file, whole or not at all; NaN becomes null, as JSON has none."""
    text = "".join(json.dumps(_without_nan(record)) + "\n" for record in records)
    write_text(path, text)


def read_records(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Read a JSONL file of records; raises `DataError` if it is empty, or naming the line that is none."""
    if not path.is_file():
        raise DataError(f"records {path}: no such file")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"records {path}: it cannot be read as text ({error}); restore it or move it away") from error
    if not lines:
        raise DataError(f"records {path}: the file is empty; delete it, and the run is trained again")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            version = record["record_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"records {path}, line {number}: not a run record ({error})") from error
        if version != RECORD_VERSION:
            raise DataError(f"records {path}, line {number}: record version {version}, expected {RECORD_VERSION}")
        yield record


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
