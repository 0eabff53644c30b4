"""Values to ids: a growing dictionary while reading, vocabularies by frequency, a stable hash, Criteo's bucketing."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int, UInt64

from wukong_jax.data.integers import integer_expression
from wukong_jax.data.spec import MISSING_VALUES, CategoricalColumn, MultiHotColumn

IdColumn = CategoricalColumn | MultiHotColumn

_PRIME_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3 = np.uint64(0x165667B19E3779F9)


class Dictionary:
    """A growing map of strings to codes 0, 1, ...; codes are in no order that means anything."""

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random("wukong_jax"))
        # Polars keeps the categories only as long as a series has them.
        self._anchor = pl.Series([], dtype=self._type)
        self._size = 0

    def codes(self, values: pl.Series) -> Int[np.ndarray, "values"]:
        """Code of every value (no nulls); new values get new codes."""
        codes = values.cast(self._type).to_physical().to_numpy().view(np.int32)
        self._size = max(self._size, int(codes.max(initial=-1)) + 1)
        return codes

    def values(self) -> pl.Series:
        """All values so far; the value at place c has code c."""
        codes = pl.int_range(self._size, dtype=pl.UInt32, eager=True)
        return codes.cat.to(self._type).cast(pl.String).fill_null("")


class Vocabulary(NamedTuple):
    """`ids[code]` for the codes of a dictionary, the number of ids, the table to keep, and facts to report."""

    ids: Int[np.ndarray, "codes"]
    size: int
    table: pl.DataFrame | None
    report: dict[str, int | float]


def key_expression(column: IdColumn, dtype: Any) -> pl.Expr:
    """The string that is looked up: the value, "" where it is missing, after bucketing where there is one."""
    if isinstance(column, CategoricalColumn) and column.bucketing == "log2_square":
        number = integer_expression(column.name, dtype)
        bucket = (number.cast(pl.Float64).log() ** 2).floor().cast(pl.Int64, strict=False)
        return pl.when(number > 2).then(bucket).otherwise(number).cast(pl.String).fill_null("").alias(column.name)
    text = pl.col(column.name).cast(pl.String)
    return pl.when(text.is_in(MISSING_VALUES)).then(pl.lit("")).otherwise(text).fill_null("").alias(column.name)


def build_vocabulary(column: IdColumn, values: pl.Series, counts: Int[np.ndarray, "codes"]) -> Vocabulary:
    """Ids of a dictionary's values, from how often each occurs in the training split.

    By frequency: most frequent first, ties by value, id 0 for values seen less than `min_count` times.
    """
    table = pl.DataFrame({"value": values, "count": counts, "code": np.arange(len(values), dtype=np.int64)})
    seen = table.filter(pl.col("count") > 0)
    total = int(counts.sum())
    if column.hash_buckets is not None:
        ids = bucket_ids(values, column.hash_buckets)
        occupied = len(np.unique(ids[seen["code"].to_numpy()]))
        report: dict[str, int | float] = {"values": seen.height, "buckets": column.hash_buckets, "occupied": occupied}
        return Vocabulary(ids, column.hash_buckets, None, report)
    kept = seen.filter(pl.col("count") >= column.min_count).sort(["count", "value"], descending=[True, False])
    ids = np.zeros(len(values), np.int32)
    ids[kept["code"].to_numpy()] = np.arange(1, kept.height + 1)
    known = int(kept["count"].sum())
    share = 1 - known / total if total else 0.0
    report = {"values": seen.height, "kept": kept.height, "out_of_vocabulary": share}
    return Vocabulary(ids, kept.height + 1, kept.select("value", "count"), report)


def bucket_ids(values: pl.Series, buckets: int) -> Int[np.ndarray, "values"]:
    """`stable_hash64(value) mod buckets`, int32."""
    return (stable_hash64(values) % np.uint64(buckets)).astype(np.int32)


def stable_hash64(values: pl.Series) -> UInt64[np.ndarray, "values"]:
    """A 64-bit hash of strings that is equal on every machine and with every version of every library.

    The UTF-8 bytes, padded with zeros to words of 8 (little endian), are folded word by word:
    h <- rotl31((h xor w P1) P2) with h = length P3 at first; then h is mixed as in SplitMix64. All modulo 2^64.
    """
    lengths = values.str.len_bytes().to_numpy().astype(np.int64)
    joined = np.frombuffer("".join(values.to_list()).encode(), np.uint8)
    words = (lengths + 7) // 8
    starts = np.cumsum(words) - words
    padded = np.zeros(int(words.sum()) * 8, np.uint8)
    places = np.repeat(starts * 8 - (np.cumsum(lengths) - lengths), lengths) + np.arange(len(joined))
    padded[places] = joined
    flat = padded.view("<u8")
    order = np.argsort(-words, kind="stable")
    state = lengths.astype(np.uint64)[order] * _PRIME_3
    starts, words = starts[order], words[order]
    active = len(words)
    for k in range(int(words[0]) if len(words) else 0):
        active = int(np.searchsorted(-words[:active], -k, side="left"))
        mixed = (state[:active] ^ (flat[starts[:active] + k] * _PRIME_1)) * _PRIME_2
        state[:active] = (mixed << np.uint64(31)) | (mixed >> np.uint64(33))
    hashes = np.empty_like(state)
    hashes[order] = mix64(state)
    return hashes


def mix64(state: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """The finalizer of SplitMix64: every bit of the result depends on every bit of the state."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
