"""Map and merge over shards of the input, in the workers of an engine; the store is that of one process, byte for byte.

1. Read: the input is cut into shards; each is checked and spilled, its strings as codes of dictionaries of its own.
2. Fit: counts of each shard's training rows, statistics of the same blocks as in one process; merged in input order.
3. Encode: each shard's part of the store, with the ids of the merged vocabularies.
4. Merge: the driver joins the parts, checks them and computes the checksums.
The driver needs the memory of one feature's distinct values (`GroupTimeSplit`: and 40 bytes a row), a worker those of
its shard. All goes through `<out>.spill`, which all workers must see and which is removed at the end.
"""

import contextlib
import functools
import pathlib
import secrets
import shutil
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from wukong_jax.data import spill
from wukong_jax.data.bad_rows import BadRowFile
from wukong_jax.data.contents import report_of, store_writer, vocabulary_file
from wukong_jax.data.engines.task import Engine, IngestTask
from wukong_jax.data.map_shards import (
    Job,
    Part,
    PartFit,
    ToEncode,
    ToFit,
    ToRead,
    encode_shard,
    fit_shard,
    read_shard,
)
from wukong_jax.data.merge_shards import (
    Merged,
    encoded_blocks,
    first_rows,
    merge_feature,
    merge_fits,
    merge_read,
    split_parts,
)
from wukong_jax.data.readers.spans import tally
from wukong_jax.data.shards import plan_shards, shard_size
from wukong_jax.data.sources import FileSource
from wukong_jax.data.spill import spill_folder
from wukong_jax.data.store import StoreWriter


class _Encoded(NamedTuple):
    """The folder of an encoded part and its rows by split."""

    folder: pathlib.Path
    rows: dict[str, int]


def ingest_shards(task: IngestTask, source: FileSource, bad_rows: BadRowFile, engine: Engine) -> None:
    """Make the store of a task; raises `DataError`."""
    with spill_folder(task.out) as outer, _run_folder(outer) as folder:
        job = Job(source, task.spec, folder, task.skip_bad_rows, spill.BLOCK_ROWS)
        size = shard_size(source, engine.workers)
        shards = plan_shards(source, size, lambda stretches: engine.map(tally, stretches))
        read = []
        to_read = [ToRead(number, shard) for number, shard in enumerate(shards)]
        for part in engine.map(functools.partial(read_shard, job), to_read):
            read.append(part)
            task.tell("read", sum(part.spilled.rows for part in read))
        parts, cut = merge_read(read, bad_rows)
        parts = split_parts(task.spec, parts)
        fits = _fit(task, job, parts, engine)
        merged = merge_fits(task.spec, fits)
        columns = task.spec.id_columns
        features = {column.name: merge_feature(job, parts, i) for i, column in enumerate(columns)}
        report = report_of({n: feature.facts for n, feature in features.items()}, merged.rows, bad_rows.count, cut)
        encoded = _encode(task, job, parts, fits, merged, engine)
        sizes = {name: feature.size for name, feature in features.items()}
        with store_writer(task.out, task.spec, sizes, merged.statistics, report, task.origin) as writer:
            for name, feature in features.items():
                if feature.file is not None:
                    writer.add_file(vocabulary_file(name), feature.file.read_bytes())
            _concatenate(task, encoded, merged, writer)
            bad_rows.publish()


@contextlib.contextmanager
def _run_folder(outer: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder of this run alone: a worker that outlives its driver, or still runs after an error, finds it gone."""
    folder = outer / secrets.token_hex(4)
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rename(outer / "removed")  # at once, where removing file by file would race with a worker


def _fit(task: IngestTask, job: Job, parts: Sequence[Part], engine: Engine) -> list[PartFit]:
    firsts = first_rows(parts)
    items = []
    for i, part in enumerate(parts):
        end = -(-firsts[i + 1] // job.block_rows) * job.block_rows
        following = [part.spilled for part, first in zip(parts[i + 1 :], firsts[i + 1 :], strict=False) if first < end]
        items.append(ToFit(part, tuple(following), firsts[i], firsts[-1]))
    fits = []
    for fit in engine.map(functools.partial(fit_shard, job), items):
        fits.append(fit)
        task.tell("fit", firsts[len(fits)])
    return fits


def _encode(
    task: IngestTask, job: Job, parts: Sequence[Part], fits: Sequence[PartFit], merged: Merged, engine: Engine
) -> list[_Encoded]:
    firsts = first_rows(parts)
    items = [ToEncode(part, first, merged.statistics) for part, first in zip(parts, firsts, strict=False)]
    encoded: list[_Encoded] = []
    for folder in engine.map(functools.partial(encode_shard, job), items):
        i = len(encoded)
        encoded.append(_Encoded(folder, fits[i].rows))
        shutil.rmtree(parts[i].spilled.folder, ignore_errors=True)  # its space is needed for the store
        task.tell("encode", firsts[i + 1])
    return encoded


def _concatenate(task: IngestTask, encoded: Sequence[_Encoded], merged: Merged, writer: StoreWriter) -> None:
    """Append split by split, in the order in which one process comes upon them."""
    done = 0
    for split in merged.order:
        for part in encoded:
            for columns in encoded_blocks(writer.schema, part.folder, split, part.rows[split], spill.BLOCK_ROWS):
                writer.append(split, columns)
                done += len(next(iter(columns.values())))
                task.tell("merge", done)
            shutil.rmtree(part.folder / split, ignore_errors=True)
