"""All in this process: the rows are one shard, whose dictionaries are the vocabulary and whose encoding is the store.

1. Read: every chunk is checked and goes to a spill beside the store, its strings as codes of growing dictionaries.
2. Fit: split of every row; counts and numeric statistics of the training split; vocabularies.
3. Encode: the spill, block by block, becomes the store.
The memory needed is that of the distinct values of the id features (`GroupTimeSplit` adds about 40 bytes a row).
The spill needs 4 bytes an id, 8 a number, and is removed at the end.
"""

from typing import NamedTuple

import numpy as np

from wukong_jax.data import spill
from wukong_jax.data.bad_rows import BadRowFile
from wukong_jax.data.contents import filled_splits, report_of, store_writer, vocabulary_bytes, vocabulary_file
from wukong_jax.data.encode import dictionaries
from wukong_jax.data.encode_block import encoded_splits, padded_ids
from wukong_jax.data.engines.task import IngestTask
from wukong_jax.data.fit import (
    Statistics,
    add_counts,
    block_statistics,
    kinds_to_fit,
    merged_statistics,
    no_counts,
    no_statistics,
    split_counts,
)
from wukong_jax.data.read_rows import read_rows
from wukong_jax.data.readers.blocks import SPLITS
from wukong_jax.data.readers.prefetch import prefetched
from wukong_jax.data.sources import Source
from wukong_jax.data.spec import GroupTimeSplit
from wukong_jax.data.spill import Rows, Spill, spill_folder
from wukong_jax.data.splitting import split_by_group_time
from wukong_jax.data.store import StoreWriter
from wukong_jax.data.vocabulary import Dictionary, Vocabulary, build_vocabulary


class _Fitted(NamedTuple):
    vocabularies: dict[str, Vocabulary]
    statistics: Statistics
    rows: dict[str, int]


def ingest_here(task: IngestTask, source: Source, bad_rows: BadRowFile) -> None:
    """Make the store of a task; raises `DataError`."""
    words = dictionaries(task.spec)
    with spill_folder(task.out) as folder:
        with Spill(folder) as target:
            aside = bad_rows if task.skip_bad_rows else None
            cut = read_rows(source(), task.spec, words, target, aside, lambda rows: task.tell("read", rows))
            spilled = target.finish()
        bad_rows.check_some_are_good(spilled.rows)
        rule = task.spec.split
        if isinstance(rule, GroupTimeSplit):
            splits = split_by_group_time(rule, spilled.whole("group"), spilled.whole("time"))
            spilled = spilled.joined_by("split", splits)
        rows = Rows((spilled,), rule)
        fitted = _fit(task, words, rows)
        facts = {name: vocabulary.report for name, vocabulary in fitted.vocabularies.items()}
        report = report_of(facts, fitted.rows, bad_rows.count, cut)
        sizes = {name: vocabulary.size for name, vocabulary in fitted.vocabularies.items()}
        with store_writer(task.out, task.spec, sizes, fitted.statistics, report, task.origin) as writer:
            for name, vocabulary in fitted.vocabularies.items():
                if vocabulary.table is not None:
                    writer.add_file(vocabulary_file(name), vocabulary_bytes(vocabulary.table))
            _encode(task, fitted, rows, writer)
            bad_rows.publish()


def _fit(task: IngestTask, words: dict[str, Dictionary], rows: Rows) -> _Fitted:
    spec = task.spec
    values = {name: dictionary.values() for name, dictionary in words.items()}
    counts = no_counts({name: len(series) for name, series in values.items()})
    statistics, in_splits = no_statistics(spec), np.zeros(len(SPLITS), np.int64)
    stop = rows.spills[0].rows
    for start, block in prefetched(rows.blocks(0, stop, kinds_to_fit(spec), spill.BLOCK_ROWS)):
        in_splits += split_counts(block)
        add_counts(spec, counts, block)
        statistics = merged_statistics(statistics, block_statistics(spec, block))
        task.tell("fit", start + len(block["split"]))
    filled = filled_splits(spec, dict(zip(SPLITS, in_splits.tolist(), strict=True)))
    vocabularies = {c.name: build_vocabulary(c, values[c.name], counts[c.name]) for c in spec.id_columns}
    return _Fitted(vocabularies, statistics, filled)


def _encode(task: IngestTask, fitted: _Fitted, rows: Rows, writer: StoreWriter) -> None:
    id_of = {name: padded_ids(vocabulary.ids) for name, vocabulary in fitted.vocabularies.items()}
    stop = rows.spills[0].rows
    for start, block in prefetched(rows.blocks(0, stop, writer.kinds, spill.BLOCK_ROWS)):
        for split, columns in encoded_splits(task.spec, id_of, fitted.statistics, block, writer.kinds):
            writer.append(split, columns)
        task.tell("encode", start + len(block["split"]))
