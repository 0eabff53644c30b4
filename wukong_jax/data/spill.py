"""Checked rows on disk between reading and encoding, in sequential files that are read back block by block."""

import contextlib
import math
import pathlib
import shutil
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from wukong_jax.data.spec import FractionSplit, SplitRule
from wukong_jax.data.splitting import drawn_splits
from wukong_jax.errors import DataError

BLOCK_ROWS = 32_768


@contextlib.contextmanager
def spill_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder `<out>.spill`: what a killed run left there is removed first, and all of it at the end."""
    folder = out.with_name(f"{out.name}.spill")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}; choose another --out") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Spilled(NamedTuple):
    """Rows that lie in a folder, one file a kind: `layout[kind]` is the dtype and the shape of a row."""

    folder: pathlib.Path
    rows: int
    layout: dict[str, tuple[str, tuple[int, ...]]]

    def read(self, kind: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` - 1 of a kind; raises `DataError` where they are not there."""
        dtype, shape = np.dtype(self.layout[kind][0]), self.layout[kind][1]
        width = math.prod(shape)
        path = self.folder / kind
        try:
            values = np.fromfile(path, dtype, (stop - start) * width, offset=start * width * dtype.itemsize)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        if len(values) != (stop - start) * width:
            raise DataError(f"{path} holds fewer rows than {stop}, although they were written; prepare the store again")
        return values.reshape(stop - start, *shape)

    def whole(self, kind: str) -> np.ndarray:
        """All values of a kind, in memory."""
        return self.read(kind, 0, self.rows)

    def joined_by(self, kind: str, values: np.ndarray) -> "Spilled":
        """The same rows with a further kind."""
        try:
            values.tofile(self.folder / kind)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        return self._replace(layout=self.layout | {kind: (values.dtype.str, values.shape[1:])})


class Spill:
    """Arrays by kind, appended chunk by chunk to files of a folder; used as a context manager that closes them."""

    def __init__(self, folder: pathlib.Path):
        self.rows = 0
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._layout: dict[str, tuple[str, tuple[int, ...]]] = {}

    def __enter__(self) -> "Spill":
        """Files are made with the first rows."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Close the files."""
        for file in self._files.values():
            # A full disk can fail once more here; the error that came first is the one to tell.
            with contextlib.suppress(OSError):
                file.close()

    def append(self, arrays: dict[str, np.ndarray]) -> None:
        """Add rows; every call must bring the same kinds."""
        try:
            for kind, values in arrays.items():
                if kind not in self._files:
                    self._files[kind] = (self._folder / kind).open("wb")
                    self._layout[kind] = (values.dtype.str, values.shape[1:])
                self._files[kind].write(np.ascontiguousarray(values, self._layout[kind][0]).data)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        self.rows += len(next(iter(arrays.values())))

    def finish(self) -> Spilled:
        """Close the files, to be read from now on."""
        try:
            for file in self._files.values():
                file.close()
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        return Spilled(self._folder, self.rows, self._layout)


class Rows(NamedTuple):
    """Checked rows in input order, in one spill or several; the first is row number `first` of all input."""

    spills: tuple[Spilled, ...]
    rule: SplitRule
    first: int = 0

    def blocks(
        self, start: int, stop: int, kinds: tuple[str, ...], block_rows: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Rows number `start` to `stop` - 1, cut at multiples of `block_rows`: (number of the first row, arrays).

        To the given kinds "split" is added, the number in `SPLITS` of each row's split.
        """
        while start < stop:
            end = min((start // block_rows + 1) * block_rows, stop)
            yield start, self._block(start, end, kinds)
            start = end

    def _block(self, start: int, stop: int, kinds: tuple[str, ...]) -> dict[str, np.ndarray]:
        block = {kind: self._read(kind, start, stop) for kind in kinds}
        if isinstance(self.rule, FractionSplit):
            block["split"] = drawn_splits(self.rule, start, stop - start)
        else:
            block["split"] = self._read("split", start, stop)
        return block

    def _read(self, kind: str, start: int, stop: int) -> np.ndarray:
        found, first = [], self.first
        for spilled in self.spills:
            begin, end = max(start - first, 0), min(stop - first, spilled.rows)
            if begin < end:
                found.append(spilled.read(kind, begin, end))
            first += spilled.rows
        return found[0] if len(found) == 1 else np.concatenate(found)


def _unwritable(folder: pathlib.Path, error: OSError) -> DataError:
    return DataError(f"{folder} cannot be written: {error.strerror or error}; free some space")
