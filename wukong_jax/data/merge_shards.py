"""What the driver does between and after the workers' calls: merge what they found, concatenate what they encoded."""

import itertools
import math
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from wukong_jax.data.bad_rows import BadRowFile
from wukong_jax.data.contents import Facts, filled_splits, vocabulary_bytes
from wukong_jax.data.fit import Statistics, merged_counts, merged_statistics, no_statistics
from wukong_jax.data.map_shards import Job, Part, PartFit, ids_file
from wukong_jax.data.readers.blocks import SPLITS
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.data.spec import GroupTimeSplit, IngestSpec
from wukong_jax.data.splitting import split_by_group_time
from wukong_jax.data.store import DTYPES, file_name, widths
from wukong_jax.data.vocabulary import Dictionary, build_vocabulary
from wukong_jax.errors import DataError


class Merged(NamedTuple):
    """What all training rows tell, and the rows of each split, in the order in which the splits first have any."""

    statistics: Statistics
    rows: dict[str, int]
    order: tuple[str, ...]


class MergedFeature(NamedTuple):
    """Size of a vocabulary, facts to report, and the file of its table if one is kept."""

    size: int
    facts: Facts
    file: pathlib.Path | None


def merge_read(parts: Sequence[Part], bad_rows: BadRowFile) -> tuple[list[Part], Counter[str]]:
    """The parts that have rows, and how many values of each multi-hot column were cut; `bad_rows` gets all bad ones."""
    cut: Counter[str] = Counter()
    for part in parts:
        cut.update(part.cut)
        if part.bad:
            bad_rows.join(part.spilled.folder / "shard.bad_rows.tsv")
    bad_rows.check_some_are_good(sum(part.spilled.rows for part in parts))
    return [part for part in parts if part.spilled.rows], cut


def first_rows(parts: Sequence[Part]) -> list[int]:
    """Number in all rows of each part's first one, and at the end the number of rows."""
    return [0, *itertools.accumulate(part.spilled.rows for part in parts)]


def split_parts(spec: IngestSpec, parts: Sequence[Part]) -> list[Part]:
    """The parts with the split of their rows, where that takes all rows at once."""
    if not isinstance(spec.split, GroupTimeSplit):
        return list(parts)
    group, time = (np.concatenate([part.spilled.whole(kind) for part in parts]) for kind in ("group", "time"))
    splits = split_by_group_time(spec.split, group, time)
    of_parts = np.split(splits, first_rows(parts)[1:-1])
    return [
        part._replace(spilled=part.spilled.joined_by("split", values))
        for part, values in zip(parts, of_parts, strict=True)
    ]


def merge_fits(spec: IngestSpec, fits: Sequence[PartFit]) -> Merged:
    """Merge in input order, block by block; raises `DataError` for a split without rows."""
    statistics = no_statistics(spec)
    for block in (block for fit in fits for block in fit.blocks):
        statistics = merged_statistics(statistics, block)
    rows = filled_splits(spec, {split: sum(fit.rows[split] for fit in fits) for split in SPLITS})
    first_block = {split: min(fit.first_block.get(split, math.inf) for fit in fits) for split in rows}
    return Merged(statistics, rows, tuple(sorted(rows, key=lambda split: first_block[split])))


def merge_feature(job: Job, parts: Sequence[Part], place: int) -> MergedFeature:
    """Merge the dictionaries and counts of one id feature; leaves its vocabulary, and the ids of each part's values."""
    column = job.spec.id_columns[place]
    words, codes, counts = Dictionary(), [], []
    for part in parts:
        values = pl.read_ipc((part.spilled.folder / f"values-{place}.arrow").read_bytes())["value"]
        codes.append(words.codes(values))
        counts.append(np.load(job.folder / f"fit-{part.number:05}" / f"counts-{place}.npy"))
    values = words.values()
    vocabulary = build_vocabulary(column, values, merged_counts(codes, counts, len(values)))
    for part, places in zip(parts, codes, strict=True):
        np.save(job.folder / ids_file(part.number, place), vocabulary.ids[places])
    if vocabulary.table is None:
        return MergedFeature(vocabulary.size, vocabulary.report, None)
    file = job.folder / f"vocabulary-{place}"
    file.write_bytes(vocabulary_bytes(vocabulary.table))
    return MergedFeature(vocabulary.size, vocabulary.report, file)


def encoded_blocks(
    schema: DatasetSchema, folder: pathlib.Path, split: str, rows: int, block_rows: int
) -> Iterator[dict[str, np.ndarray]]:
    """The rows of a split that a worker encoded, block by block; raises `DataError` where some are missing."""
    for start in range(0, rows, block_rows):
        count = min(block_rows, rows - start)
        yield {
            kind: _load(folder / split / file_name(kind), kind, width, start, count)
            for kind, width in widths(schema).items()
        }


def _load(path: pathlib.Path, kind: str, width: int, start: int, rows: int) -> np.ndarray:
    dtype = np.dtype("<" + DTYPES[kind])
    try:
        values = np.fromfile(path, dtype, rows * width, offset=start * width * dtype.itemsize)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; --out must be seen by every node alike") from error
    if len(values) != rows * width:
        raise DataError(f"{path} holds fewer rows than were encoded; prepare the store again")
    return values if kind in ("weights", "group", "time") else values.reshape(rows, width)
