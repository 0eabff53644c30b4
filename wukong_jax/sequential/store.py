"""Prepared sequences on disk: flat memory-mapped arrays, names, checksums.

store/
store.json         kind, format version, schema, users, events, origin, bytes and SHA-256 of every file, checksum
items.i32          items of all users, user after user in time order
offsets.i64        users + 1 positions in it
times.i64          seconds, where they are known
users.parquet  item_names.parquet     column `name`, in the order of the numbers
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from wukong_jax.config.codec import from_plain, stable_hash, to_plain
from wukong_jax.data.store import MANIFEST, check_file, check_target, put_in_place, where_whole
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.sequential.schema import MAX_TIME, SequenceSchema
from wukong_jax.sequential.sequences import Sequences, as_names

KIND, FORMAT_VERSION = "sequences", 1
ARRAYS = {"items.i32": "<i4", "offsets.i64": "<i8", "times.i64": "<i8"}
NAMES = ("users.parquet", "item_names.parquet")


@dataclasses.dataclass(frozen=True, eq=False)
class SequenceStore:
    """An opened store of sequences, its arrays memory-mapped."""

    path: pathlib.Path
    schema: SequenceSchema
    sequences: Sequences
    encoding: dict[str, Any]
    digest: str
    """Hash of the content: equal for stores with the same events and numbering, wherever they lie."""
    encoding_digest: str
    """Hash of the numbering of items."""


def write_sequence_store(path: pathlib.Path, sequences: Sequences, origin: dict[str, Any]) -> SequenceStore:
    """Write a store, whole or not at all, replacing one that is there; raises `DataError`."""
    import polars as pl

    check_target(path)
    _check_seconds(path, sequences)
    partial = path.with_name(f"{path.name}.partial")
    arrays = {"items.i32": sequences.items, "offsets.i64": sequences.offsets}
    if sequences.times is not None:
        arrays["times.i64"] = sequences.times
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, array in arrays.items():
            (partial / name).write_bytes(np.ascontiguousarray(array, ARRAYS[name]).tobytes())
        for name, names in zip(NAMES, (sequences.user_names, sequences.item_names), strict=True):
            pl.DataFrame({"name": [str(text) for text in names]}, {"name": pl.String}).write_parquet(partial / name)
        manifest: dict[str, Any] = {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "schema": to_plain(SequenceSchema(sequences.num_items, sequences.times is not None)),
            "users": sequences.num_users,
            "events": sequences.num_events,
            "origin": origin,
            "files": {name: _entry(partial / name) for name in sorted((*arrays, *NAMES))},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest | {"checksum": stable_hash(manifest)}, indent=1))
        put_in_place(partial, path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = error.strerror or str(error)
        raise DataError(
            f"store {path} cannot be written: {reason}; free space or choose another --data.root"
        ) from error
    return open_sequence_store(path)


def open_sequence_store(path: str | os.PathLike[str], *, verify: bool = True) -> SequenceStore:
    """Open a store, checking every file's size and (with `verify`) its SHA-256; raises `DataError`."""
    path = where_whole(pathlib.Path(path))
    if not (path / MANIFEST).is_file():
        reason = "no such folder" if not path.exists() else f"it has no {MANIFEST}, so it is not a whole store"
        raise DataError(f"store {path}: {reason}; a run whose config names a recipe makes it")
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if not isinstance(manifest, dict):
            raise ValueError("it holds no object")
        if manifest.get("kind") != KIND:
            raise DataError(f"store {path} holds examples with labels, expected sequences; name another --data.store")
        if manifest["format_version"] != FORMAT_VERSION:
            raise DataError(f"store {path}: format version {manifest['format_version']}, expected {FORMAT_VERSION}")
        if manifest.pop("checksum") != stable_hash(manifest):
            raise ValueError("its checksum differs")
        schema = from_plain(SequenceSchema, manifest["schema"], "schema")
        files, users, events = dict(manifest["files"]), int(manifest["users"]), int(manifest["events"])
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"store {path}: {MANIFEST} is damaged ({error}); prepare the store again") from error
    for name, entry in files.items():
        check_file(path / name, entry, verify)
    sizes = {"items.i32": events, "offsets.i64": users + 1, "times.i64": events}
    found = {name: _mapped(path / name, ARRAYS[name], sizes[name]) for name in ARRAYS if name in files}
    user_names, item_names = (_names(path / name) for name in NAMES)
    sequences = Sequences(
        found["items.i32"],
        found["offsets.i64"],
        schema.num_items,
        user_names,
        item_names,
        times=found.get("times.i64"),
        origin=str(manifest["origin"].get("source", "")),
    )
    numbering = stable_hash([files["item_names.parquet"], to_plain(schema)])
    return SequenceStore(path, schema, sequences, {"origin": manifest["origin"]}, stable_hash(files), numbering)


def _check_seconds(path: pathlib.Path, sequences: Sequences) -> None:
    """Raise `DataError` where a user's times span more than a model reads: they are not in seconds then."""
    if sequences.times is None or not sequences.num_events:
        return
    users = np.flatnonzero(sequences.lengths)
    spans = sequences.times[sequences.offsets[1:][users] - 1] - sequences.times[sequences.offsets[:-1][users]]
    if spans.max() >= MAX_TIME:
        user = sequences.user_names[users[spans.argmax()]]
        raise DataError(
            f"store {path}: the times of user {user!r} span {spans.max():,}, above the {MAX_TIME:,} seconds (68 years) "
            "that a model reads; give times in seconds, or leave them out"
        )


def _entry(path: pathlib.Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _mapped(path: pathlib.Path, dtype: str, size: int) -> np.ndarray:
    return np.asarray(np.memmap(path, np.dtype(dtype), "r", shape=(size,))) if size else np.zeros(0, dtype)


def _names(path: pathlib.Path) -> np.ndarray:
    import polars as pl

    return as_names(pl.read_parquet(path)["name"].to_list())
