"""Raw rows to a store, in bounded memory: read and check once, fit on the training split, encode.

1. Read: every chunk is checked and goes to a spill file beside the store, its strings as codes of growing dictionaries.
2. Fit: split of every row; counts and numeric statistics of the training split; vocabularies.
3. Encode: the spill, block by block, becomes the store.
The memory needed is that of the distinct values of the id features (`GroupTimeSplit` adds about 40 bytes a row).
The spill needs 4 bytes an id, 8 a number, and is removed at the end.
"""

import dataclasses
import io
import pathlib
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from wukong_jax.config.codec import from_plain, to_plain
from wukong_jax.data import numeric
from wukong_jax.data.bad_rows import BadRowFile
from wukong_jax.data.batch import Batch
from wukong_jax.data.encode import check_columns, clean, dictionaries, raw_arrays, refuse
from wukong_jax.data.readers.blocks import SPLITS
from wukong_jax.data.readers.prefetch import prefetched
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.data.sources import Chunk, Source
from wukong_jax.data.spec import FileSplit, GroupTimeSplit, IngestSpec
from wukong_jax.data.spill import Spill
from wukong_jax.data.splitting import check_rule, expected_splits, split_by_group_time, split_of_rows
from wukong_jax.data.store import Store, StoreWriter, check_target, open_store
from wukong_jax.data.vocabulary import Dictionary, IdColumn, Vocabulary, bucket_ids, build_vocabulary
from wukong_jax.errors import ConfigError, DataError

Progress = Callable[[str, int], None]
"""Called with the name of the phase ("read", "fit", "encode") and the rows done in it so far."""


class EncodedChunk(NamedTuple):
    """A batch of encoded rows and the raw rows it came from; labels are 0 where the file has none."""

    batch: Batch
    labelled: bool
    chunk: Chunk


class _Fitted(NamedTuple):
    vocabularies: dict[str, Vocabulary]
    statistics: dict[str, numeric.NumericStatistics]


def ingest(
    source: Source,
    spec: IngestSpec,
    out: str | pathlib.Path,
    *,
    on_bad_rows: Literal["error", "skip"] = "error",
    progress: Progress | None = None,
    origin: dict[str, Any] | None = None,
) -> Store:
    """Make the store `out` from raw rows. Bad rows raise `DataError`, or with "skip" go to `<out>.bad_rows.tsv`.

    `origin` (recipe, source files, terms of use) is kept in the store's encoding.
    """
    out, tell = pathlib.Path(out), progress or (lambda phase, rows: None)
    check_spec(spec)
    check_target(out)
    words = dictionaries(spec)
    with Spill(out) as spill, BadRowFile(out) as bad_rows:
        cut = _read(source, spec, words, spill, bad_rows if on_bad_rows == "skip" else None, tell)
        if not spill.rows:
            bad_rows.publish()
            raise DataError(f"no row could be used: all {bad_rows.count} are bad, see {bad_rows.path}")
        _assign_splits(spec, spill)
        rows = _check_splits(spec, spill)
        fitted = _fit(spec, words, spill, tell)
        schema = schema_of(spec, {name: vocabulary.size for name, vocabulary in fitted.vocabularies.items()})
        report = _report(fitted, rows, bad_rows.count, cut)
        statistics = {name: dataclasses.asdict(value) for name, value in fitted.statistics.items()}
        encoding = {"spec": to_plain(spec), "numeric": statistics, "report": report}
        encoding |= {} if origin is None else {"origin": origin}
        with StoreWriter(out, schema, encoding) as writer:
            for name, vocabulary in fitted.vocabularies.items():
                if vocabulary.table is not None:
                    writer.add_file(vocabulary_file(name), _parquet(vocabulary.table))
            _encode(spec, fitted, spill, writer, tell)
            bad_rows.publish()
    return open_store(out, verify=False)


def encode_frames(store: Store, source: Source) -> Iterator[EncodedChunk]:
    """Further raw rows with the store's vocabularies and statistics; unseen values get id 0. Raises `DataError`.

    Labels may be absent; group, weight and time are not read.
    """
    spec = from_plain(IngestSpec, store.encoding["spec"], "encoding.spec")
    statistics = {name: numeric.statistics_from_plain(value) for name, value in store.encoding["numeric"].items()}
    ids_of = {column.name: _lookup(store, column) for column in spec.id_columns}
    bare = dataclasses.replace(spec, group=None, weight=None, time=None)
    for chunk in source():
        labelled = set(spec.labels) <= set(chunk.frame.columns)
        check_columns(chunk, bare, labels=labelled)
        cleaned = clean(chunk, bare, labels=labelled)
        refuse(cleaned.bad, "mend the row", chunk.unit)
        rows = chunk.frame.height
        raw = raw_arrays(chunk, bare, ids_of, labels=labelled)
        batch = Batch(
            raw.get("ids", np.zeros((rows, 0), np.int32)),
            _transformed(spec, raw, statistics, rows),
            raw.get("vectors", np.zeros((rows, 0), np.float32)),
            raw.get("labels", np.zeros((rows, len(spec.labels)), np.float32)),
            np.ones(rows, np.float32),
        )
        yield EncodedChunk(batch, labelled, chunk)


def check_spec(spec: IngestSpec) -> None:
    """Raise `ConfigError` for a specification that cannot be followed."""
    check_rule(spec.split, spec.time, spec.group)
    for column in spec.id_columns:
        if column.hash_buckets is not None and column.hash_buckets < 1:
            raise ConfigError(f"column {column.name!r}: hash_buckets={column.hash_buckets}; expected at least 1")
        if column.min_count < 1:
            raise ConfigError(f"column {column.name!r}: min_count={column.min_count}; expected at least 1")
    schema = schema_of(spec, {column.name: 1 for column in spec.id_columns})
    if not schema.feature_names:
        raise ConfigError(
            "no feature column is named; name at least one categorical, multi-hot, numeric or vector column"
        )


def schema_of(spec: IngestSpec, sizes: dict[str, int]) -> DatasetSchema:
    """The schema that this specification leads to, given the vocabulary sizes."""
    return DatasetSchema(
        categorical=tuple(CategoricalFeature(column.name, sizes[column.name]) for column in spec.categorical),
        multi_hot=tuple(
            MultiHotFeature(column.name, sizes[column.name], column.max_length, column.combiner)
            for column in spec.multi_hot
        ),
        numeric=tuple(NumericFeature(name) for column in spec.numeric for name in numeric.feature_names(column)),
        vectors=tuple(VectorFeature(column.name, column.width) for column in spec.vectors),
        labels=spec.labels,
        group=spec.group,
        weight=spec.weight,
        time=spec.time,
    )


def vocabulary_file(feature: str) -> str:
    """File of a feature's vocabulary inside the store; characters that a file name cannot hold are percent-encoded."""
    return f"vocabularies/{urllib.parse.quote(feature, safe='')}.parquet"


def _read(
    source: Source,
    spec: IngestSpec,
    words: dict[str, Dictionary],
    spill: Spill,
    bad_rows: BadRowFile | None,
    tell: Progress,
) -> Counter[str]:
    """Check and spill all rows; returns how many values of each multi-hot column were cut."""
    cut: Counter[str] = Counter()
    codes_of = {name: dictionary.codes for name, dictionary in words.items()}
    for chunk in prefetched(source()):
        check_columns(chunk, spec)
        if (chunk.split is None) == isinstance(spec.split, FileSplit):
            given = "one list of files" if chunk.split is None else "files for each split"
            raise DataError(f"{chunk.file}: received {given}, but the split rule is {type(spec.split).__name__}")
        cleaned = clean(chunk, spec)
        if bad_rows is None:
            refuse(cleaned.bad, "mend the row, or set such rows aside with --on-bad-rows skip", chunk.unit)
        else:
            bad_rows.add(cleaned.bad)
        rows = cleaned.chunk.frame.height
        if rows:
            arrays = raw_arrays(cleaned.chunk, spec, codes_of, cut=cut)
            arrays["split"] = split_of_rows(spec.split, spill.rows, rows, chunk.split, arrays.get("time"))
            spill.append(arrays)
        tell("read", spill.rows)
    return cut


def _assign_splits(spec: IngestSpec, spill: Spill) -> None:
    if isinstance(spec.split, GroupTimeSplit):
        spill.replace("split", split_by_group_time(spec.split, spill.whole("group"), spill.whole("time")))


def _check_splits(spec: IngestSpec, spill: Spill) -> dict[str, int]:
    counts = np.zeros(len(SPLITS), np.int64)
    for block in spill.blocks("split"):
        counts += np.bincount(block["split"], minlength=len(SPLITS))
    rows = dict(zip(SPLITS, counts.tolist(), strict=True))
    empty = [name for name in expected_splits(spec.split) if not rows[name]]
    if empty:
        raise DataError(
            f"the split {empty[0]!r} is empty (rows: {rows}); change the split rule {spec.split}, or give more rows"
        )
    return {name: count for name, count in rows.items() if count}


def _fit(spec: IngestSpec, words: dict[str, Dictionary], spill: Spill, tell: Progress) -> _Fitted:
    """Counts of every value and statistics of every number over the training rows."""
    values = {name: dictionary.values() for name, dictionary in words.items()}
    counts = {name: np.zeros(len(series), np.int64) for name, series in values.items()}
    statistics = {column.name: numeric.NumericStatistics() for column in spec.numeric}
    measured = [(i, column) for i, column in enumerate(spec.numeric) if numeric.needs_statistics(column)]
    done = 0
    for block in prefetched(spill.blocks()):
        train = block["split"] == 0
        done += len(train)
        for name, part in _id_parts(spec):
            codes = block["ids"][train, part].ravel()
            np.add.at(counts[name], codes[codes >= 0], 1)
        for i, column in measured:
            present = numeric.elementwise(column, block["numeric"][train, i])
            statistics[column.name] = statistics[column.name].update(present)
        tell("fit", done)
    vocabularies = {c.name: build_vocabulary(c, values[c.name], counts[c.name]) for c in spec.id_columns}
    return _Fitted(vocabularies, statistics)


def _encode(spec: IngestSpec, fitted: _Fitted, spill: Spill, writer: StoreWriter, tell: Progress) -> None:
    # The last place is for code -1, an unused place of a multi-hot feature.
    id_of = {name: np.append(vocabulary.ids, np.int32(-1)) for name, vocabulary in fitted.vocabularies.items()}
    done = 0
    for block in prefetched(spill.blocks()):
        rows = len(block["split"])
        columns = {kind: values for kind, values in block.items() if kind in writer.kinds}
        if "ids" in columns:
            ids = np.empty_like(columns["ids"])
            for name, part in _id_parts(spec):
                ids[:, part] = id_of[name][block["ids"][:, part]]
            columns["ids"] = ids
        if spec.numeric:
            columns["numeric"] = _transformed(spec, block, fitted.statistics, rows)
        for number, split in enumerate(SPLITS):
            chosen = block["split"] == number
            if chosen.any():
                writer.append(split, {kind: values[chosen] for kind, values in columns.items()})
        done += rows
        tell("encode", done)


def _id_parts(spec: IngestSpec) -> list[tuple[str, slice]]:
    lengths = [(column.name, 1) for column in spec.categorical]
    lengths += [(column.name, column.max_length) for column in spec.multi_hot]
    parts, start = [], 0
    for name, length in lengths:
        parts.append((name, slice(start, start + length)))
        start += length
    return parts


def _transformed(
    spec: IngestSpec, raw: dict[str, np.ndarray], statistics: dict[str, numeric.NumericStatistics], rows: int
) -> np.ndarray:
    parts = [numeric.transform(c, raw["numeric"][:, i], statistics[c.name]) for i, c in enumerate(spec.numeric)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((rows, 0), np.float32)


def _lookup(store: Store, column: IdColumn) -> Callable[[pl.Series], np.ndarray]:
    """Ids of a series of keys by the store's vocabulary; values that are not in it get id 0."""
    buckets = column.hash_buckets
    if buckets is not None:

        def hashed(keys: pl.Series) -> np.ndarray:
            distinct = keys.unique()
            return keys.replace_strict(distinct, pl.Series(bucket_ids(distinct, buckets))).to_numpy()

        return hashed
    values = pl.read_parquet(store.path / vocabulary_file(column.name))["value"]
    dictionary = Dictionary()
    ids = np.zeros(len(values) + 1, np.int32)
    ids[dictionary.codes(values)] = np.arange(1, len(values) + 1)
    # Codes beyond the vocabulary's belong to unseen values; they all fall on the last place, which holds 0.
    return lambda keys: ids[np.minimum(dictionary.codes(keys), len(values))]


def _report(fitted: _Fitted, rows: dict[str, int], bad: int, cut: Counter[str]) -> dict[str, Any]:
    features = {name: dict(vocabulary.report) for name, vocabulary in fitted.vocabularies.items()}
    for name, values in cut.items():
        features[name]["cut"] = values
    return {"rows": rows, "bad_rows": bad, "features": features}


def _parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()
