"""Checked rows on disk between reading and encoding, in sequential files that are read back block by block."""

import pathlib
import shutil
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from wukong_jax.errors import DataError

BLOCK_ROWS = 32_768


class Spill:
    """Arrays by kind, appended chunk by chunk; used as a context manager that removes the files at the end."""

    def __init__(self, out: pathlib.Path):
        self.rows = 0
        self._folder = out.with_name(f"{out.name}.spill")
        self._files: dict[str, IO[bytes]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def __enter__(self) -> "Spill":
        """Start afresh: what a killed run left is removed."""
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise DataError(f"{self._folder} cannot be made: {error.strerror}; choose another --out") from error
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Remove the files."""
        for file in self._files.values():
            try:
                file.close()
            except OSError:
                # A full disk can fail once more here; the files go in any case.
                continue
        shutil.rmtree(self._folder, ignore_errors=True)

    def append(self, arrays: dict[str, np.ndarray]) -> None:
        """Add rows; every call must bring the same kinds."""
        try:
            for kind, values in arrays.items():
                if kind not in self._files:
                    self._files[kind] = (self._folder / kind).open("wb")
                    self._shapes[kind], self._dtypes[kind] = values.shape[1:], values.dtype
                self._files[kind].write(np.ascontiguousarray(values, self._dtypes[kind]).data)
        except OSError as error:
            raise DataError(f"{self._folder} cannot be written: {error.strerror}; free some space") from error
        self.rows += len(next(iter(arrays.values())))

    def replace(self, kind: str, values: np.ndarray) -> None:
        """Put other values in the place of a kind's."""
        try:
            self._files[kind].seek(0)
            self._files[kind].write(np.ascontiguousarray(values, self._dtypes[kind]).data)
        except OSError as error:
            raise DataError(f"{self._folder} cannot be written: {error.strerror}; free some space") from error

    def whole(self, kind: str) -> np.ndarray:
        """All values of a kind, in memory."""
        self._flush()
        return np.fromfile(self._folder / kind, self._dtypes[kind]).reshape(-1, *self._shapes[kind])

    def blocks(self, *kinds: str) -> Iterator[dict[str, np.ndarray]]:
        """The rows in order, `BLOCK_ROWS` at a time, with the given kinds or all."""
        self._flush()
        names = kinds or tuple(self._files)
        files = {kind: (self._folder / kind).open("rb") for kind in names}
        try:
            for start in range(0, self.rows, BLOCK_ROWS):
                rows = min(BLOCK_ROWS, self.rows - start)
                yield {kind: self._load(file, kind, rows) for kind, file in files.items()}
        finally:
            for file in files.values():
                file.close()

    def _load(self, file: IO[bytes], kind: str, rows: int) -> np.ndarray:
        shape = (rows, *self._shapes[kind])
        count = int(np.prod(shape))
        return np.fromfile(file, self._dtypes[kind], count).reshape(shape)

    def _flush(self) -> None:
        try:
            for file in self._files.values():
                file.flush()
        except OSError as error:
            raise DataError(f"{self._folder} cannot be written: {error.strerror}; free some space") from error
