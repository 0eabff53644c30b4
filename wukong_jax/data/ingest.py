"""Raw rows to a store, in bounded memory, and further rows encoded as those of a store.

`ingest` reads and checks every row once, fits vocabularies and statistics on the training split, and encodes: in this
process (`engines/local.py`), or shard by shard in others with the same result (`engines/sharded.py`).
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import polars as pl

from wukong_jax.config.codec import from_plain
from wukong_jax.data import numeric
from wukong_jax.data.bad_rows import BadRowFile
from wukong_jax.data.batch import Batch
from wukong_jax.data.contents import check_spec, schema_of, vocabulary_file
from wukong_jax.data.encode import check_columns, clean, raw_arrays, refuse
from wukong_jax.data.encode_block import transformed
from wukong_jax.data.engines.local import ingest_here
from wukong_jax.data.engines.sharded import ingest_shards
from wukong_jax.data.engines.task import Engine, IngestTask, Progress
from wukong_jax.data.sources import FileSource, Source
from wukong_jax.data.spec import IngestSpec
from wukong_jax.data.store import Store, check_target, open_store
from wukong_jax.data.vocabulary import Dictionary, IdColumn, bucket_ids
from wukong_jax.errors import ConfigError, DataError

__all__ = ["Progress", "check_spec", "encode_frames", "ingest", "schema_of", "vocabulary_file"]


def ingest(
    source: Source,
    spec: IngestSpec,
    out: str | pathlib.Path,
    *,
    on_bad_rows: Literal["error", "skip"] = "error",
    progress: Progress | None = None,
    origin: dict[str, Any] | None = None,
    engine: Engine | None = None,
) -> Store:
    """Make the store `out` from raw rows. Bad rows raise `DataError`, or with "skip" go to `<out>.bad_rows.tsv`.

    `origin` (recipe, source files, terms of use) is kept in the store's encoding. With an `engine` the files of the
    source are prepared shard by shard in its workers, which must see them, and the folder of `out`, under the same
    paths; the store is the same, byte for byte.
    """
    out = pathlib.Path(out)
    check_spec(spec)
    check_target(out)
    task = IngestTask(out, spec, on_bad_rows == "skip", origin, progress or (lambda phase, rows: None))
    with BadRowFile(out) as bad_rows:
        if engine is None:
            ingest_here(task, source, bad_rows)
        elif isinstance(source, FileSource):
            ingest_shards(task, source, bad_rows, engine)
        else:
            raise ConfigError(f"engine: received {source!r}, expected a source of files, which has shards")
    return open_store(out, verify=False)


def encode_frames(store: Store, source: Source) -> Iterator[Batch]:
    """Further raw rows with the store's vocabularies and statistics; unseen values get id 0. Raises `DataError`.

    Labels, group, weight and time are not read and may be absent.
    """
    if "spec" not in store.encoding:
        raise DataError(
            f"store {store.path} was made from no raw rows, so it has no encoding for them; score one of its splits "
            "with `--split`"
        )
    spec = from_plain(IngestSpec, store.encoding["spec"], "encoding.spec")
    statistics = {name: numeric.statistics_from_plain(value) for name, value in store.encoding["numeric"].items()}
    ids_of = {column.name: _lookup(store, column) for column in spec.id_columns}
    for chunk in source():
        check_columns(chunk, spec, labels=False)
        refuse(clean(chunk, spec, labels=False).bad, "mend the row", chunk.unit)
        rows = chunk.frame.height
        raw = raw_arrays(chunk, spec, ids_of, labels=False)
        yield Batch(
            raw.get("ids", np.zeros((rows, 0), np.int32)),
            transformed(spec, raw, statistics, rows),
            raw.get("vectors", np.zeros((rows, 0), np.float32)),
            np.zeros((rows, len(spec.labels)), np.float32),
            np.ones(rows, np.float32),
        )


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
