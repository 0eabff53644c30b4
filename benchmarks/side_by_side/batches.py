"""The same batches for every implementation: Zipf ids, normal numeric values, a quarter of the labels 1."""

import pathlib
from typing import Any

import numpy as np

from benchmarks.side_by_side.cells import NUMERIC, Cell, field_sizes

EXPONENT = 1.05
HEAD = 2**16
COUNT = 8


def zipf_ids(size: int, count: int, rng: np.random.Generator, exponent: float = EXPONENT) -> np.ndarray:
    """`count` ids below `size` with P(i) ~ (i + 1)^-exponent: exact for the first 65,536, the tail by its integral."""
    head = min(size, HEAD)
    cumulated = np.cumsum(np.arange(1, head + 1.0) ** -exponent)
    edge, power = head + 0.5, 1 - exponent
    tail = ((size + 0.5) ** power - edge**power) / power
    mass = rng.random(count) * (cumulated[-1] + max(tail, 0.0))
    ids = np.searchsorted(cumulated, mass, side="right")
    beyond = ids >= head
    if size > head:
        rank = (edge**power + power * (mass[beyond] - cumulated[-1])) ** (1 / power)
        ids[beyond] = np.rint(rank).astype(np.int64) - 1
    return np.clip(ids, 0, size - 1).astype(np.int32)


def make_batches(cell: Cell, count: int = COUNT) -> dict[str, np.ndarray]:
    """Ids local to their field [count, batch, fields], numeric [count, batch, 13] and labels [count, batch]."""
    rng = np.random.default_rng(0)
    sizes = field_sizes(cell.rows, cell.shape.fields)
    ids = np.stack([zipf_ids(size, count * cell.batch, rng) for size in sizes], axis=1)
    return {
        "ids": ids.reshape(count, cell.batch, -1),
        "numeric": rng.normal(size=(count, cell.batch, NUMERIC)).astype(np.float32),
        "labels": (rng.random((count, cell.batch)) < 0.25).astype(np.float32),
    }


def offsets(cell: Cell) -> np.ndarray:
    """First row of each field in one stacked table."""
    sizes = field_sizes(cell.rows, cell.shape.fields)
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def distinct_rows(cell: Cell, ids: np.ndarray) -> np.ndarray:
    """Rows of the stacked table that ids [..., fields] touch, each once, ascending."""
    return np.unique(ids.astype(np.int64) + offsets(cell))


def write_batches(cell: Cell, path: pathlib.Path) -> None:
    """Write the cell's batches to an .npz file."""
    write_arrays(str(path), make_batches(cell))


def write_arrays(path: str, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz file."""
    named: dict[str, Any] = dict(arrays)
    np.savez(path, **named)


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file."""
    with np.load(path) as file:
        return dict(file)
