"""Training rows that hold the histories of several users, one after the other, so that little of a row is padding.

A row has L + 1 places: items, their times where there are any, and the segment of each place (the row's first user 0,
the next 1, ...), -1 behind the last user. Which users share a row is decided once; epochs order the rows.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64

from wukong_jax.data.batch import Batch
from wukong_jax.data.order import permuted_rows
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.data.store import Split
from wukong_jax.sequential.schema import MAX_TIME
from wukong_jax.sequential.sequences import Sequences, offsets_of


class Packing(NamedTuple):
    """Which histories share a row: those of row r are members[offsets[r]:offsets[r + 1]]."""

    members: Int64[np.ndarray, "histories"]
    offsets: Int64[np.ndarray, "rows_plus_1"]


def pack(sizes: Int[np.ndarray, "histories"], room: int) -> Packing:
    """Fill rows of `room` places with histories of 1 to `room` items, each time with the longest that still fits.

    Among histories of one size the order is random, but fixed. Linear in their number.

    >>> pack(np.array([2, 3, 1, 4]), 5).offsets
    array([0, 2, 4])
    """
    shuffled = permuted_rows(np.arange(len(sizes)), size=max(1, len(sizes)), seed=0, epoch=0)
    by_size = shuffled[np.argsort(sizes[shuffled], kind="stable")]
    bounds = np.searchsorted(sizes[by_size], np.arange(room + 2)).tolist()
    starts, ends = bounds[:-1], bounds[1:]
    # the size itself where histories of it are left, else one on the way down to the next that has some, or to 0
    at_most = [size - (size > 0 and starts[size] == ends[size]) for size in range(room + 1)]

    def longest(size: int) -> int:
        while at_most[size] != size:
            at_most[size] = size = at_most[at_most[size]]
        return size

    members, counts = [], []
    while longest(room):
        left, count = room, 0
        while size := longest(left):
            ends[size] -= 1
            members.append(by_size[ends[size]])
            at_most[size] -= starts[size] == ends[size]
            left, count = left - size, count + 1
        counts.append(count)
    return Packing(np.array(members, np.int64), offsets_of(np.array(counts, np.int64)))


@dataclasses.dataclass(frozen=True, eq=False)
class PackedSplit(Split):
    """Rows of training, each of several users, made when they are read; it has no columns of its own."""

    sequences: Sequences
    starts: Int64[np.ndarray, "histories"]
    """Position of each history's first item in `sequences.items`."""
    sizes: Int64[np.ndarray, "histories"]
    """Items of each history."""
    packing: Packing
    room: int
    """Places of a row."""

    def take(
        self,
        rows: slice | Int[np.ndarray, "chosen"],
        *,
        shape_of: slice | Int[np.ndarray, "batch"] | None = None,
    ) -> Batch:
        """The given rows; all batches have one shape. Times count from each history's first item."""
        first, stop = self.packing.offsets[:-1][rows], self.packing.offsets[1:][rows]
        count, held = len(first), stop - first
        row, segment = _ranges(held)
        members = self.packing.members[first[row] + segment]
        sizes = self.sizes[members]
        history, within = _ranges(sizes)
        before = np.cumsum(sizes) - sizes  # places of this batch's histories, and less those of the rows before
        before -= before[np.cumsum(held) - held][row]
        events = self.starts[members][history] + within
        at = row[history], before[history] + within
        parts = [self.sequences.items[events]]
        if self.sequences.times is not None:
            times = self.sequences.times
            since = times[events] - times[self.starts[members]][history]
            parts.append(np.clip(since, 0, MAX_TIME - 1))
        parts.append(segment[history])
        ids = np.full((len(parts), count, self.room), -1, np.int32)
        for column, values in zip(ids, parts, strict=True):
            column[at] = values
        nothing, ones = np.zeros((count, 0), np.float32), np.ones(count, np.float32)
        return Batch(np.concatenate(list(ids), axis=1), nothing, nothing, np.zeros((count, 1), np.float32), ones)


def packed_split(
    name: str,
    schema: DatasetSchema,
    sequences: Sequences,
    starts: Int64[np.ndarray, "histories"],
    sizes: Int64[np.ndarray, "histories"],
    room: int,
) -> PackedSplit:
    """The histories starts[i] to starts[i] + sizes[i] - 1 of `sequences.items` in rows of `room` places."""
    packing = pack(sizes, room)
    return PackedSplit(name, len(packing.offsets) - 1, schema, {}, sequences, starts, sizes, packing, room)


def _ranges(counts: Int64[np.ndarray, "n"]) -> tuple[Int64[np.ndarray, "total"], Int64[np.ndarray, "total"]]:
    """0 counts[0] times, 1 counts[1] times, ...; and how many of the same number come before each."""
    number = np.repeat(np.arange(len(counts)), counts)
    return number, np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
