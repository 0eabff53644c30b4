"""The columnar store: memory-mapped matrices by kind, schema, vocabularies and checksums.

    store/
      store.json             format version, schema, encoding, rows, bytes and SHA-256 of every file, own checksum
      vocabularies/<feature>.parquet     columns value, count; row i holds id i + 1
      <split>/ids.i32  numeric.f32  vectors.f32  labels.f32  weights.f32  group.i64  time.i64

The matrices are row-major, so that a shuffled batch gathers whole rows (one read a row and kind).
A store is written as `<name>.partial` and renamed when it is whole. One that it replaces is first renamed to
`<name>.replaced` and removed last, so that at every moment a whole store is found under one of the two names.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
from typing import IO, Any

import numpy as np

from wukong_jax.config.codec import from_plain, stable_hash, to_plain
from wukong_jax.data.batch import Batch
from wukong_jax.data.order import permuted_rows
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.errors import ConfigError, DataError

FORMAT_VERSION = 1
MANIFEST = "store.json"
VOCABULARIES = "vocabularies/"
DTYPES = {"ids": "i4", "numeric": "f4", "vectors": "f4", "labels": "f4", "weights": "f4", "group": "i8", "time": "i8"}
SUFFIXES = {"i4": "i32", "f4": "f32", "i8": "i64"}


def widths(schema: DatasetSchema) -> dict[str, int]:
    """Columns of every matrix that a split of this schema has; optional ones only where present."""
    found = {"ids": schema.id_columns, "numeric": len(schema.numeric), "vectors": schema.vector_columns}
    found |= {"labels": len(schema.labels), "weights": int(schema.weight is not None)}
    found |= {"group": int(schema.group is not None), "time": int(schema.time is not None)}
    return {kind: width for kind, width in found.items() if width}


@dataclasses.dataclass(frozen=True)
class Split:
    """The memory-mapped matrices of one split, by kind; `weights`, `group` and `time` are vectors."""

    name: str
    rows: int
    schema: DatasetSchema
    columns: dict[str, np.ndarray]

    @property
    def shape_varies(self) -> bool:
        """Whether the shape of a batch depends on its rows."""
        return False

    def take(self, rows: slice | np.ndarray, *, shape_of: slice | np.ndarray | None = None) -> Batch:
        """The given rows, in that order, copied out of the memory map; where shapes vary, in that of `shape_of`."""
        count = len(range(*rows.indices(self.rows))) if isinstance(rows, slice) else len(rows)

        def gather(kind: str, width: int) -> np.ndarray:
            if kind not in self.columns:
                return np.zeros((count, width), DTYPES[kind])
            column = self.columns[kind]
            return np.array(column[rows]) if isinstance(rows, slice) else np.take(column, rows, axis=0)

        weights = gather("weights", 1).reshape(-1) if "weights" in self.columns else np.ones(count, np.float32)
        return Batch(gather("ids", 0), gather("numeric", 0), gather("vectors", 0), gather("labels", 1), weights)

    def training_rows(self, start: int, stop: int, *, batch_size: int, seed: int, epoch: int) -> np.ndarray:
        """Rows at the places start to stop - 1 of an epoch's order, within one batch."""
        return permuted_rows(np.arange(start, stop), size=self.rows, seed=seed, epoch=epoch)


@dataclasses.dataclass(frozen=True)
class Store:
    """An opened store. `encoding` is what ingest needs to encode further rows in the same way."""

    path: pathlib.Path
    schema: DatasetSchema
    encoding: dict[str, Any]
    splits: dict[str, Split]
    digest: str
    """Hash of the content: equal for stores with the same rows and encoding, wherever they lie."""
    encoding_digest: str
    """Hash of vocabularies, statistics and specification: stores of one encode values in the same way."""

    def split(self, name: str) -> Split:
        """The named split; raises `DataError` that lists the ones there are."""
        if name not in self.splits:
            raise DataError(f"store {self.path}: no split {name!r}; it has {sorted(self.splits)}")
        return self.splits[name]


def open_store(path: str | os.PathLike[str], *, verify: bool = True) -> Store:
    """Open a store, checking every file's size and (with `verify`) its SHA-256; raises `DataError`."""
    path = pathlib.Path(path)
    path = where_whole(path)
    if not (path / MANIFEST).is_file():
        reason = "no such folder" if not path.exists() else f"it has no {MANIFEST}, so it is not a whole store"
        raise DataError(f"store {path}: {reason}; make it with `python -m wukong_jax prepare`")
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if not isinstance(manifest, dict):
            raise ValueError("it holds no object")
        if manifest.get("kind") == "sequences":
            raise DataError(f"store {path} holds sequences, expected examples with labels; name another store")
        version = manifest["format_version"]
        if version == FORMAT_VERSION:
            if manifest.pop("checksum") != stable_hash(manifest):
                raise ValueError("its checksum differs")
            schema = from_plain(DatasetSchema, manifest["schema"], "schema")
            files, rows, encoding = (dict(manifest[key]) for key in ("files", "splits", "encoding"))
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"store {path}: {MANIFEST} is damaged ({error}); prepare the store again") from error
    if version != FORMAT_VERSION:
        raise DataError(f"store {path}: format version {version}, expected {FORMAT_VERSION}; prepare the store again")
    for name, entry in files.items():
        check_file(path / name, entry, verify)
    splits = {name: _open_split(path / name, name, count, schema) for name, count in rows.items()}
    vocabularies = {name: entry for name, entry in files.items() if name.startswith(VOCABULARIES)}
    encoding_digest = stable_hash([vocabularies, encoding.get("spec"), encoding.get("numeric"), to_plain(schema)])
    return Store(path, schema, encoding, splits, stable_hash([files, encoding_digest]), encoding_digest)


class StoreWriter:
    """Writes a store split by split, chunk by chunk, in bounded memory; used as a context manager.

    The store appears at `path` only when the block ends without an error; an existing one is then replaced.

        with StoreWriter("store", schema) as writer:
            writer.append("train", {"ids": ids, "labels": labels})
    """

    def __init__(self, path: str | os.PathLike[str], schema: DatasetSchema, encoding: dict[str, Any] | None = None):
        self.path = pathlib.Path(path)
        self.schema = schema
        self.encoding = encoding or {}
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self._files: dict[str, IO[bytes]] = {}
        self._hashes: dict[str, Any] = {}
        self._rows: dict[str, int] = {}
        self._widths = widths(schema)
        self._limits = np.concatenate(
            [np.full(part.stop - part.start, feature.vocabulary_size) for feature, part in self._id_parts()]
            or [np.zeros(0)]
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The matrices that `append` expects."""
        return tuple(self._widths)

    def __enter__(self) -> "StoreWriter":
        """Start afresh: what a killed run left under the temporary name is removed. Raises `DataError`."""
        check_target(self.path)
        try:
            if not self.path.exists() and _replaced(self.path).exists():
                _replaced(self.path).rename(self.path)
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Publish the store, or remove what was written if that or the block failed."""
        try:
            self._close_files(error)
            if error is None:
                self._publish()
        except OSError as failure:
            raise self._unwritable(failure) from failure
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _close_files(self, error: Any) -> None:
        """Close all files; after an error of the block, a second one (the disk is still full) tells nothing new."""
        failure = None
        for file in self._files.values():
            try:
                file.close()
            except OSError as closing:
                failure = closing
        if failure is not None and error is None:
            raise failure

    def _unwritable(self, error: OSError) -> DataError:
        reason = error.strerror or str(error)
        return DataError(f"store {self.path} cannot be written: {reason}; free some space or choose another --out")

    def append(self, split: str, columns: dict[str, np.ndarray]) -> None:
        """Add rows to a split: one array for each kind in `widths(schema)`; raises `DataError` on a bad id or shape."""
        if set(columns) != set(self._widths):
            raise DataError(
                f"store {self.path}: received the matrices {sorted(columns)}, expected {sorted(self._widths)}"
            )
        rows = len(next(iter(columns.values())))
        for kind, width in self._widths.items():
            shape = (rows,) if kind in ("weights", "group", "time") else (rows, width)
            if columns[kind].shape != shape:
                raise DataError(f"store {self.path}: {kind} has shape {columns[kind].shape}, expected {shape}")
        if "ids" in columns:
            self._check_ids(split, columns["ids"])
        for kind, values in columns.items():
            self._write(f"{split}/{file_name(kind)}", np.ascontiguousarray(values, "<" + DTYPES[kind]).tobytes())
        self._rows[split] = self._rows.get(split, 0) + rows

    def add_file(self, name: str, content: bytes) -> None:
        """Put a further file (a vocabulary, say) into the store, with its checksum."""
        self._write(name, content)

    def _id_parts(self) -> list[tuple[Any, slice]]:
        slices = self.schema.id_slices()
        return [(feature, slices[feature.name]) for feature in self.schema.id_features]

    def _check_ids(self, split: str, ids: np.ndarray) -> None:
        bad = (ids >= self._limits) | (ids < -1)
        bad[:, : len(self.schema.categorical)] |= ids[:, : len(self.schema.categorical)] < 0
        if bad.any():
            row, column = (int(place[0]) for place in np.nonzero(bad))
            feature = next(feature for feature, part in self._id_parts() if part.start <= column < part.stop)
            row_number = self._rows.get(split, 0) + row
            raise DataError(
                f"store {self.path}: split {split!r}, row {row_number}: feature {feature.name!r} has id "
                f"{ids[row, column]}, expected 0 to {feature.vocabulary_size - 1}"
            )

    def _write(self, name: str, content: bytes) -> None:
        try:
            if name not in self._files:
                (self._partial / name).parent.mkdir(parents=True, exist_ok=True)
                self._files[name] = (self._partial / name).open("wb")
                self._hashes[name] = hashlib.sha256()
            self._files[name].write(content)
        except OSError as error:
            raise self._unwritable(error) from error
        self._hashes[name].update(content)

    def _publish(self) -> None:
        files = {
            name: {"bytes": (self._partial / name).stat().st_size, "sha256": digest.hexdigest()}
            for name, digest in sorted(self._hashes.items())
        }
        manifest = {
            "format_version": FORMAT_VERSION,
            "schema_hash": self.schema.hash(),
            "schema": to_plain(self.schema),
            "encoding": self.encoding,
            "splits": self._rows,
            "files": files,
        }
        manifest["checksum"] = stable_hash(manifest)
        (self._partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        put_in_place(self._partial, self.path)


def check_target(path: pathlib.Path) -> None:
    """Raise `DataError` where `path` holds something that is not a store, which writing would destroy."""
    if path.is_dir() and ((path / MANIFEST).is_file() or not any(path.iterdir())):
        return
    if path.exists():
        raise DataError(f"{path} exists and is not a store; choose another --out, or move it away")


def file_name(kind: str) -> str:
    """File of a matrix inside its split's folder."""
    return f"{kind}.{SUFFIXES[DTYPES[kind]]}"


def put_in_place(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Rename a store that is whole to `path`; one that is there is renamed aside before and removed after."""
    replaced = _replaced(path)
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
    partial.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def where_whole(path: pathlib.Path) -> pathlib.Path:
    """`path`, or where a store lies that was about to be replaced there."""
    aside = not path.exists() and (_replaced(path) / MANIFEST).is_file()
    return _replaced(path) if aside else path


def _replaced(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.replaced")


def _open_split(path: pathlib.Path, name: str, rows: int, schema: DatasetSchema) -> Split:
    columns = {}
    for kind, width in widths(schema).items():
        shape = (rows,) if kind in ("weights", "group", "time") else (rows, width)
        dtype = np.dtype("<" + DTYPES[kind])
        size = (path / file_name(kind)).stat().st_size if rows else 0
        if size != math.prod(shape) * dtype.itemsize:
            raise DataError(f"store file {path / file_name(kind)} has {size} bytes, not {rows} rows; prepare it again")
        mapped = np.memmap(path / file_name(kind), dtype, "r", shape=shape) if rows else np.zeros(shape, dtype)
        columns[kind] = np.asarray(mapped)  # a plain array on the map: rows taken from a memmap would be of its class
    return Split(name, rows, schema, columns)


def check_file(path: pathlib.Path, entry: dict[str, Any], verify: bool) -> None:
    """Raise `DataError` where a file is missing, has another size or (with `verify`) another SHA-256 than `entry`."""
    if not path.is_file():
        raise DataError(f"store file {path} is missing; prepare the store again")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise DataError(f"store file {path} has {size} bytes, expected {entry['bytes']}; prepare the store again")
    if verify:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry["sha256"]:
            raise DataError(f"store file {path} was altered (its SHA-256 differs); prepare the store again")
