"""What the training rows tell: counts of ids and statistics of numbers, block by block, to be merged."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from wukong_jax.data import numeric
from wukong_jax.data.numeric import NumericStatistics
from wukong_jax.data.readers.blocks import SPLITS
from wukong_jax.data.spec import IngestSpec
from wukong_jax.data.splitting import TRAIN

Counts = dict[str, np.ndarray]
"""How often each code of each id feature occurs in the training rows, int64."""
Statistics = dict[str, NumericStatistics]
"""Statistics of every numeric column; of those whose transform needs none, empty ones."""


def id_parts(spec: IngestSpec) -> list[tuple[str, slice]]:
    """Every id feature and its columns in the matrix of ids."""
    lengths = [(column.name, 1) for column in spec.categorical]
    lengths += [(column.name, column.max_length) for column in spec.multi_hot]
    parts, start = [], 0
    for name, length in lengths:
        parts.append((name, slice(start, start + length)))
        start += length
    return parts


def kinds_to_fit(spec: IngestSpec) -> tuple[str, ...]:
    """The kinds of a block that `add_counts` and `block_statistics` read, beside "split"."""
    measured = any(numeric.needs_statistics(column) for column in spec.numeric)
    return (("ids",) if spec.id_columns else ()) + (("numeric",) if measured else ())


def no_counts(sizes: Mapping[str, int]) -> Counts:
    """Counts of dictionaries of these sizes before any row."""
    return {name: np.zeros(size, np.int64) for name, size in sizes.items()}


def add_counts(spec: IngestSpec, counts: Counts, block: Mapping[str, np.ndarray]) -> None:
    """Count the codes of the training rows of a block; code -1, an unused place, is none."""
    train = block["split"] == TRAIN
    for name, part in id_parts(spec):
        codes = block["ids"][train, part].ravel()
        np.add.at(counts[name], codes[codes >= 0], 1)


def no_statistics(spec: IngestSpec) -> Statistics:
    """Statistics before any row."""
    return {column.name: NumericStatistics() for column in spec.numeric}


def block_statistics(spec: IngestSpec, block: Mapping[str, np.ndarray]) -> Statistics:
    """Statistics of the training rows of a block, for the columns whose transform needs them."""
    train = block["split"] == TRAIN
    return {
        column.name: NumericStatistics.of(numeric.elementwise(column, block["numeric"][train, i]))
        for i, column in enumerate(spec.numeric)
        if numeric.needs_statistics(column)
    }


def merged_statistics(statistics: Statistics, more: Statistics) -> Statistics:
    """Statistics with those of a further block."""
    return statistics | {name: statistics[name].merged(value) for name, value in more.items()}


def split_counts(block: Mapping[str, np.ndarray]) -> Int[np.ndarray, "splits"]:
    """Rows of a block in each of `SPLITS`."""
    return np.bincount(block["split"], minlength=len(SPLITS))


def merged_counts(
    codes: Sequence[Int[np.ndarray, "..."]], counts: Sequence[Int[np.ndarray, "..."]], size: int
) -> Int[np.ndarray, "size"]:
    """Counts of a merged dictionary of `size` values; value i of a part's is its value `codes[part][i]`."""
    total = np.zeros(size, np.int64)
    for places, more in zip(codes, counts, strict=True):
        total[places] += more  # a part's values are distinct, so are their places
    return total
