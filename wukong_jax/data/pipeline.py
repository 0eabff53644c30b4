"""From a split to batches: shuffled, checkpointable, each process its own part, placed on devices ahead of use.

An element of the Grain dataset is a whole batch gathered from the memory maps; rows never pass through Python.
"""

import collections
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import grain
import jax
import numpy as np

from wukong_jax.config.checks import check_not_negative, check_positive
from wukong_jax.data.batch import Batch
from wukong_jax.data.store import Split
from wukong_jax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """Random access to the training batches of all epochs: element i is batch i mod steps of epoch i div steps."""

    split: Split
    batch_size: int
    seed: int
    epochs: int | None
    shuffle: bool
    process_index: int
    process_count: int

    def __len__(self) -> int:
        """Batches in all epochs."""
        return sys.maxsize if self.epochs is None else self.epochs * (self.split.rows // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        """This process's part of global batch `index`."""
        epoch, step = divmod(index, self.split.rows // self.batch_size)
        part = self.batch_size // self.process_count
        start = step * self.batch_size + self.process_index * part
        own = self._rows(epoch, start, start + part)
        if self.process_count == 1 or not self.split.shape_varies:
            return self.split.take(own)
        first = step * self.batch_size
        return self.split.take(own, shape_of=self._rows(epoch, first, first + self.batch_size))

    def _rows(self, epoch: int, start: int, stop: int) -> slice | np.ndarray:
        if not self.shuffle:
            return slice(start, stop)
        return self.split.training_rows(start, stop, batch_size=self.batch_size, seed=self.seed, epoch=epoch)


def training_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    epochs: int | None,
    shuffle: bool = True,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> grain.IterDataset:
    """Batches of `batch_size` examples (over all processes) for training, read ahead by `threads` threads.

    Every batch is full: the `rows mod batch_size` rows that remain at the end of an epoch are left out of it, others in
    each epoch, because each has an order of its own. The global order depends on the seed and the epoch only; each
    process reads its contiguous part of every batch. The iterator's state is a small JSON object that counts the
    batches handed out, not those read ahead; it holds for the same split, batch size and seed.

    Args:
        split: at least `batch_size` rows.
        batch_size: examples per step, a multiple of `process_count`.
        seed: 0 or more.
        epochs: passes over the split; None for no end.
        shuffle: False for the store's own order (one-pass training in time order).
        process_index: which part is read here.
        process_count: number of parts.
        threads: 0 reads in the caller's thread, when asked.

    Raises:
        ConfigError: a batch larger than the split, not divisible by the processes, or a setting out of range.
        DataError: an empty split.
    """
    steps_per_epoch(split, batch_size)
    _check_processes(batch_size, process_index, process_count)
    check_not_negative("train.seed", seed)
    check_not_negative("threads", threads)
    if epochs is not None:
        check_positive("train.epochs", epochs)
    source = BatchSource(split, batch_size, seed, epochs, shuffle, process_index, process_count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return grain.MapDataset.source(source).to_iter_dataset(options)


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Full batches in the split; raises `ConfigError` if there is none, `DataError` if the split is empty."""
    check_positive("batch_size", batch_size)
    _check_not_empty(split)
    if batch_size > split.rows:
        raise ConfigError(
            f"batch_size: received {batch_size}, but split {split.name!r} has only {split.rows} rows; "
            f"choose a batch size of at most {split.rows}"
        )
    return split.rows // batch_size


def evaluation_batches(
    split: Split, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Every row once, in the store's order, in batches of `batch_size` (over all processes).

    The last batch is filled up with rows of weight 0, ids -1 and zeros elsewhere, so that every process
    sees ceil(rows / batch_size) batches of one shape.

    Raises:
        ConfigError: a batch not divisible by the processes, or a setting out of range.
        DataError: an empty split.
    """
    check_positive("batch_size", batch_size)
    _check_processes(batch_size, process_index, process_count)
    _check_not_empty(split)
    part = batch_size // process_count
    starts = range(process_index * part, -(-split.rows // batch_size) * batch_size, batch_size)
    return (fill_batch(split.take(slice(start, start + part)), part) for start in starts)


def to_device(batches: grain.IterDataset, sharding: jax.sharding.Sharding, *, ahead: int = 1) -> grain.IterDataset:
    """The same batches as arrays on devices; the transfer of `ahead` further ones is started before each is handed out.

    Each process gives its part of the global batch (`jax.make_array_from_process_local_data`). The
    state still counts the batches handed out.
    """
    return _DeviceDataset(batches, sharding, ahead)


def part_on_mesh(batch: Batch, sharding: jax.sharding.Sharding) -> Batch:
    """The processes' parts of a batch as one global batch on their devices."""
    return Batch(*(jax.make_array_from_process_local_data(sharding, array) for array in batch))


def put(value: Any, sharding: jax.sharding.Sharding, dtype: Any = None) -> jax.Array:
    """An array that every process has whole, on the devices of all of them."""
    whole = np.asarray(value, dtype)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def check_own_part(held: Iterable[slice], batch_size: int, process_index: int, process_count: int) -> None:
    """Raise `ConfigError` unless the rows of a batch that a process's devices hold are those that it reads.

    Args:
        held: the rows of each of its devices.
        batch_size: rows of the global batch.
        process_index: the process reads rows [i p, (i + 1) p) with p = batch_size / process_count.
        process_count: number of processes.
    """
    _check_processes(batch_size, process_index, process_count)
    part = batch_size // process_count
    reads = set(range(process_index * part, (process_index + 1) * part))
    holds = {row for rows in held for row in range(*rows.indices(batch_size))}
    if holds != reads:
        shown = f"{len(holds)} rows from {min(holds)} to {max(holds)}" if holds else "no rows"
        raise ConfigError(
            f"mesh: the devices of process {process_index} hold {shown} of a batch of {batch_size}, expected the "
            f"{part} rows from {min(reads)} to {max(reads)} that it reads; give each process the same number of "
            "devices, and the mesh as many as there are in all"
        )


def fill_batch(batch: Batch, size: int) -> Batch:
    """The batch filled up to `size` rows with weight 0, ids -1 and zeros elsewhere."""
    missing = size - len(batch.weights)
    if not missing:
        return batch

    def fill(array: np.ndarray, value: int) -> np.ndarray:
        return np.concatenate([array, np.full((missing, *array.shape[1:]), value, array.dtype)])

    return Batch(fill(batch.ids, -1), *(fill(array, 0) for array in batch[1:]))


def _check_processes(batch_size: int, process_index: int, process_count: int) -> None:
    check_positive("process_count", process_count)
    if not 0 <= process_index < process_count:
        raise ConfigError(f"process_index: received {process_index}, expected 0 to {process_count - 1}")
    if batch_size % process_count:
        raise ConfigError(
            f"batch_size: received {batch_size}, expected a multiple of the {process_count} processes; "
            f"choose {batch_size - batch_size % process_count or process_count}"
        )


def _check_not_empty(split: Split) -> None:
    if not split.rows:
        raise DataError(
            f"split {split.name!r} has no rows, expected at least one; prepare the store with a larger share for it"
        )


class _DeviceDataset(grain.IterDataset):
    # Not Grain's own device_put: it runs two threads that can abort the interpreter when a program ends early.

    def __init__(self, parent: grain.IterDataset, sharding: jax.sharding.Sharding, ahead: int):
        super().__init__(parent)
        self._sharding = sharding
        self._ahead = ahead

    def __iter__(self) -> grain.DatasetIterator:
        return _DeviceIterator(iter(self._parent), self._sharding, self._ahead)


class _DeviceIterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, sharding: jax.sharding.Sharding, ahead: int):
        super().__init__(parent)
        self._sharding = sharding
        self._ahead = ahead
        self._state = parent.get_state()
        self._started: collections.deque[tuple[Batch, dict[str, Any]]] = collections.deque()

    def __next__(self) -> Batch:
        self._assert_not_closed()
        while len(self._started) <= self._ahead:
            batch = next(self._parent, None)
            if batch is None:
                break
            self._started.append((part_on_mesh(batch, self._sharding), self._parent.get_state()))
        if not self._started:
            raise StopIteration
        batch, self._state = self._started.popleft()
        return batch

    def get_state(self) -> dict[str, Any]:
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)
        self._state = state
        self._started.clear()
