"""The input cut into shards, which several workers read: consecutive files, and spans of large files of plain text."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from wukong_jax.data.readers import blocks
from wukong_jax.data.readers.blocks import PACKED, Span
from wukong_jax.data.readers.spans import Stretch, Tally, cut_stretches, spans
from wukong_jax.data.sources import Chunk, FileSource

SHARDS_PER_WORKER = 4
SMALLEST_SHARD, LARGEST_SHARD = 64 << 20, 1 << 30


class Piece(NamedTuple):
    """A file, or a span of it; `size` in bytes."""

    path: pathlib.Path
    split: str | None
    span: Span | None
    size: int


Shard = tuple[Piece, ...]
"""Consecutive pieces of the input, read by one worker."""


def read_shard_chunks(source: FileSource, shard: Shard) -> Iterator[Chunk]:
    """The chunks that reading the whole source gives for the rows of this shard; raises `DataError`."""
    for piece in shard:
        yield from source.reader(piece.path, piece.split, span=piece.span)


def shard_size(source: FileSource, workers: int) -> int:
    """Bytes of a shard: some shards a worker, so that all finish at about the same time, within bounds."""
    total = sum(_size(path) for _, path in source.files)
    return min(max(total // (workers * SHARDS_PER_WORKER), SMALLEST_SHARD), LARGEST_SHARD)


def plan_shards(
    source: FileSource, size: int, tally_all: Callable[[Sequence[Stretch]], Iterator[Tally]]
) -> list[Shard]:
    """Shards of about `size` bytes in input order; `tally_all` counts the stretches of files to be cut, in order.

    Packed and Parquet files are never cut, and a file that cannot be read is left to its worker to complain of.
    """
    quote = source.dialect.quote_byte if source.dialect is not None else None
    cut: list[list[Stretch]] = []
    for _, path in source.files:
        whole = source.dialect is None or path.suffix in PACKED or _size(path) < 2 * size
        cut.append([] if whole else cut_stretches(path, quote, size, blocks.BLOCK_BYTES))
    tallies = tally_all([stretch for parts in cut for stretch in parts])
    pieces = []
    for (split, path), parts in zip(source.files, cut, strict=True):
        if parts:
            found = spans(parts, [next(tallies) for _ in parts])
            pieces += [Piece(path, split, span, span.stop - span.start) for span in found]
        else:
            pieces.append(Piece(path, split, None, _size(path)))
    return _grouped(pieces, size)


def _grouped(pieces: Sequence[Piece], size: int) -> list[Shard]:
    shards: list[list[Piece]] = []
    filled = size
    for piece in pieces:
        if filled + piece.size > size:
            shards.append([])
            filled = 0
        shards[-1].append(piece)
        filled += piece.size
    return [tuple(shard) for shard in shards]


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
