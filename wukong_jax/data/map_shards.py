"""What a worker does with one shard: read, fit, encode. Each leaves a folder of files that appears when it is whole.

read-<n>/      the spill of the shard's rows, its dictionaries values-<i>.arrow, its bad rows
fit-<n>/       counts-<i>.npy, how often each value of a dictionary occurs in the training rows
encoded-<n>/   <split>/ids.i32, ...: the shard's part of the store's files
The driver writes ids-<n>-<i>.npy, the id of each value of a dictionary, between the last two. A call that is made again
finds the same input and leaves the same files.
"""

import contextlib
import pathlib
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
import polars as pl

from wukong_jax.data.bad_rows import BadRowFile
from wukong_jax.data.contents import schema_of
from wukong_jax.data.encode import dictionaries
from wukong_jax.data.encode_block import encoded_splits, padded_ids
from wukong_jax.data.fit import (
    Statistics,
    add_counts,
    block_statistics,
    kinds_to_fit,
    no_counts,
    split_counts,
)
from wukong_jax.data.read_rows import read_rows
from wukong_jax.data.readers.blocks import SPLITS
from wukong_jax.data.readers.prefetch import prefetched
from wukong_jax.data.shards import Shard, read_shard_chunks
from wukong_jax.data.sources import FileSource
from wukong_jax.data.spec import IngestSpec
from wukong_jax.data.spill import Rows, Spill, Spilled
from wukong_jax.data.store import DTYPES, file_name, widths
from wukong_jax.errors import DataError


class Job(NamedTuple):
    """What all calls share; `folder` is seen by all workers under this path."""

    source: FileSource
    spec: IngestSpec
    folder: pathlib.Path
    skip_bad_rows: bool
    block_rows: int


class ToRead(NamedTuple):
    """The shard of a number, in input order."""

    number: int
    shard: Shard


class Part(NamedTuple):
    """What was read of a shard: its good rows, the number of distinct values by feature, of cut values, of bad rows."""

    number: int
    spilled: Spilled
    values: dict[str, int]
    cut: Counter[str]
    bad: int


class ToFit(NamedTuple):
    """A part to fit, the spills after it that its last block reaches into, and its place in all rows."""

    part: Part
    following: tuple[Spilled, ...]
    first: int
    total: int


class PartFit(NamedTuple):
    """Statistics of the blocks that begin in a part; rows of the part by split, and the first block that has any."""

    blocks: list[Statistics]
    rows: dict[str, int]
    first_block: dict[str, int]


class ToEncode(NamedTuple):
    """A part to encode, its place in all rows, and the statistics of all training rows."""

    part: Part
    first: int
    statistics: Statistics


def read_shard(job: Job, item: ToRead) -> Part:
    """Check the rows of a shard and spill them; raises `DataError` for a bad row unless such are set aside."""
    words = dictionaries(job.spec)
    final = job.folder / f"read-{item.number:05}"
    with _whole_folder(final) as folder, BadRowFile(folder / "shard") as bad_rows:
        with Spill(folder) as spill:
            aside = bad_rows if job.skip_bad_rows else None
            chunks = read_shard_chunks(job.source, item.shard)
            cut = read_rows(chunks, job.spec, words, spill, aside, lambda rows: None)
            spilled = spill.finish()
        values = [dictionary.values() for dictionary in words.values()]
        for i, series in enumerate(values):
            pl.DataFrame({"value": series}).write_ipc(folder / f"values-{i}.arrow")
        bad_rows.publish()
    sizes = {name: len(series) for name, series in zip(words, values, strict=True)}
    return Part(item.number, spilled._replace(folder=final), sizes, cut, bad_rows.count)


def fit_shard(job: Job, item: ToFit) -> PartFit:
    """Count the values of a part's training rows, and measure the blocks of all rows that begin in it."""
    spec, size = job.spec, job.block_rows
    rows = Rows((item.part.spilled, *item.following), spec.split, item.first)
    kinds, last = kinds_to_fit(spec), item.first + item.part.spilled.rows
    counts = no_counts(item.part.values)
    in_splits: dict[str, int] = dict.fromkeys(SPLITS, 0)
    first_block: dict[str, int] = {}
    for start, block in prefetched(rows.blocks(item.first, last, kinds[:1] if spec.id_columns else (), size)):
        add_counts(spec, counts, block)
        for split, count in zip(SPLITS, split_counts(block).tolist(), strict=True):
            in_splits[split] += count
            if count:
                first_block.setdefault(split, start // size)
    measured: list[Statistics] = []
    if "numeric" in kinds:
        begin, end = (-(-row // size) * size for row in (item.first, last))
        blocks = rows.blocks(begin, min(end, item.total), ("numeric",), size)
        measured = [block_statistics(spec, block) for _, block in prefetched(blocks)]
    with _whole_folder(job.folder / f"fit-{item.part.number:05}") as folder:
        for i, column in enumerate(spec.id_columns):
            np.save(folder / f"counts-{i}.npy", counts[column.name])
    return PartFit(measured, in_splits, first_block)


def encode_shard(job: Job, item: ToEncode) -> pathlib.Path:
    """Encode the rows of a part into files like the store's; returns their folder."""
    part, spec = item.part, job.spec
    final = job.folder / f"encoded-{part.number:05}"
    rows = Rows((part.spilled,), spec.split, item.first)
    kinds = tuple(widths(schema_of(spec, {column.name: 1 for column in spec.id_columns})))
    id_of = {
        column.name: padded_ids(np.load(job.folder / ids_file(part.number, i)))
        for i, column in enumerate(spec.id_columns)
    }
    with _whole_folder(final) as folder, contextlib.ExitStack() as opened:
        files: dict[str, IO[bytes]] = {}
        for _, block in prefetched(rows.blocks(item.first, item.first + part.spilled.rows, kinds, job.block_rows)):
            for split, columns in encoded_splits(spec, id_of, item.statistics, block, kinds):
                for kind, values in columns.items():
                    name = f"{split}/{file_name(kind)}"
                    if name not in files:
                        (folder / split).mkdir(exist_ok=True)
                        files[name] = opened.enter_context((folder / name).open("wb"))
                    files[name].write(np.ascontiguousarray(values, "<" + DTYPES[kind]).data)
    return final


def ids_file(number: int, feature: int) -> str:
    """File of the ids of a part's dictionary, by the place of the feature in the specification."""
    return f"ids-{number:05}-{feature}.npy"


@contextlib.contextmanager
def _whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder, renamed to `folder` when the block ends well; one that another call left there stays."""
    partial = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir()
    except OSError as error:
        raise DataError(
            f"{folder.parent} cannot be written on {socket.gethostname()}: {error.strerror}; "
            "expected --out in a folder that every node sees under this path"
        ) from error
    try:
        yield partial
        partial.rename(folder)
    except OSError as error:
        if not folder.exists():  # else another call came first, with the same files
            raise DataError(f"{folder} cannot be written: {error.strerror or error}; free some space") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
