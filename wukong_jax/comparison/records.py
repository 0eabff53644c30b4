"""Records of finished runs that can be committed: one small file a run, in one folder a data set."""

import dataclasses
import json
import pathlib
import tempfile
from typing import Any

import wukong_jax
from wukong_jax.config.codec import difference, from_plain, to_plain
from wukong_jax.config.run import DataConfig, RunConfig
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.training.record import read_records, write_records

# What must be the same in all runs of a comparison, besides schema and data; the rest is each model's own recipe.
PROTOCOL = ("epochs", "max_steps", "eval_every_steps", "monitor", "plateau")


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """A run's record, its config, and the file they were read from."""

    config: RunConfig
    record: dict[str, Any]
    path: pathlib.Path


def record_path(folder: pathlib.Path, config: RunConfig) -> pathlib.Path:
    """<folder>/<name>-seed<k>-<hash of what decides the result>.jsonl."""
    return folder / f"{config.name}-seed{config.train.seed}-{config.identity_hash()}.jsonl"


def portable(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what only this machine knows: the folders of data and run."""
    config = from_plain(RunConfig, record["config"])
    store = None if config.data.store is None else pathlib.Path(config.data.store).name
    data = dataclasses.replace(config.data, source=None, store=store, root=DataConfig.root)
    config = dataclasses.replace(config, data=data)
    kept = {name: value for name, value in record.items() if name != "checkpoint"}
    return kept | {"config": to_plain(config), "config_hash": config.hash()}


def save_record(folder: pathlib.Path, record: dict[str, Any]) -> pathlib.Path:
    """Write the record, without local paths, into a file of its own; returns its path."""
    plain = portable(record)
    path = record_path(folder, from_plain(RunConfig, plain["config"]))
    write_records(path, [plain])
    return path


def read_folder(folder: pathlib.Path) -> list[RecordedRun]:
    """All records of a folder, by file name; raises `DataError` naming a file that is none, or a run recorded twice."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"records folder {folder} cannot be written or read: it is a file; name another")
    runs: dict[str, RecordedRun] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for record in read_records(path):
            run = RecordedRun(_config(path, record), record, path)
            known = runs.setdefault(run.config.identity_hash(), run)
            if known is not run:
                raise DataError(f"records {known.path} and {path} are of one run; delete the older one")
    return list(runs.values())


def _config(path: pathlib.Path, record: dict[str, Any]) -> RunConfig:
    try:
        return from_plain(RunConfig, record["config"])
    except (ConfigError, KeyError) as error:
        raise DataError(
            f"records {path}: its settings are none of this version ({error}); move the file away and train anew"
        ) from error


def check_writable(folder: pathlib.Path) -> None:
    """Create the folder and try to write there, before hours of training; raises `DataError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"folder {folder} cannot be written ({error.strerror or error}); choose another with --records or --out"
        ) from error


def check_numerics(run: RecordedRun) -> None:
    """Raise `DataError` if a version of this program made the record whose results were not those of this one."""
    revision = run.record.get("numerics_revision")
    if revision != wukong_jax.NUMERICS_REVISION:
        raise DataError(
            f"records {run.path}: numerics revision {revision}, this version has {wukong_jax.NUMERICS_REVISION}, so "
            "the same settings now give other results; train anew into another folder with --records"
        )


def check_protocol(base: RunConfig, other: RunConfig) -> None:
    """Raise `ConfigError` with the differences if the two would not be trained and chosen on the same terms."""
    lines = difference(protocol(base), protocol(other))
    if lines:
        raise ConfigError(
            f"{other.name} is not trained under the protocol of {base.name} ({base.name} -> {other.name}):\n  "
            + "\n  ".join(lines)
            + "\ngive both the same: only the model, its optimizers and its batch size are its own"
        )


def protocol(config: RunConfig) -> dict[str, Any]:
    """What all runs of a comparison share, as a plain tree; JSON, so that a file's equals a config's."""
    plain = config.identity()
    shared = {
        "schema": plain["schema"],
        "data": plain["data"],
        "train": {name: plain["train"][name] for name in PROTOCOL},
    }
    if config.sequences is not None:  # how batches are cut is a matter of speed
        shared["sequences"] = {name: value for name, value in plain["sequences"].items() if name != "lengths"}
    if config.train.max_steps is not None or config.train.eval_every_steps is not None:
        shared["train"]["batch_size"] = config.train.batch_size  # so many steps are as many examples only then
    return json.loads(json.dumps(shared))
