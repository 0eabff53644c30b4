"""A large text file in spans that can be read apart: their blocks are those of the whole file, bytes and lines.

`read_blocks` ends a block at the last row end before a multiple of its block size. So a border is found at a multiple
of that size: count the quotes before it, which says whether it is inside a quoted field, and look back for a row end.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from wukong_jax.data.readers.blocks import Span, stretches
from wukong_jax.errors import DataError

FIRST_LOOK = 1 << 16


class Stretch(NamedTuple):
    """Bytes `start` to `stop` of a text file whose rows may hold line ends between `quote`s."""

    path: pathlib.Path
    start: int
    stop: int
    quote: bytes | None
    block_bytes: int


class Tally(NamedTuple):
    """What a stretch of bytes holds."""

    line_ends: int
    quotes: int


def cut_stretches(path: pathlib.Path, quote: bytes | None, size: int, block_bytes: int) -> list[Stretch]:
    """The file in stretches of about `size` bytes that end at multiples of `block_bytes`; raises `DataError`."""
    try:
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    step = max(1, round(size / block_bytes)) * block_bytes
    return [Stretch(path, at, min(at + step, length), quote, block_bytes) for at in range(0, length, step)]


def tally(stretch: Stretch) -> Tally:
    """Count line ends and quotes of a stretch; raises `DataError`."""
    line_ends = quotes = 0
    try:
        with stretch.path.open("rb") as file:
            for piece in stretches(file, stretch.start, stretch.stop, stretch.block_bytes):
                line_ends += piece.count(b"\n")
                quotes += 0 if stretch.quote is None else piece.count(stretch.quote)
    except OSError as error:
        raise DataError(f"{stretch.path} cannot be read: {error.strerror or error}") from error
    return Tally(line_ends, quotes)


def spans(parts: Sequence[Stretch], tallies: Sequence[Tally]) -> list[Span]:
    """The spans of a file from all its stretches and their tallies, each about as long as its stretch."""
    borders = [(0, 1)]
    line_ends = quotes = 0
    for part, found in zip(parts[:-1], tallies[:-1], strict=True):
        line_ends, quotes = line_ends + found.line_ends, quotes + found.quotes
        start, line_ends_after = _last_row_end(part, odd=quotes % 2 == 1)
        if start > borders[-1][0]:
            borders.append((start, 1 + line_ends - line_ends_after))
    stops = [start for start, _ in borders[1:]] + [parts[-1].stop]
    size = parts[-1].block_bytes
    return [Span(start, stop, line, size) for (start, line), stop in zip(borders, stops, strict=True)]


def _last_row_end(part: Stretch, *, odd: bool) -> tuple[int, int]:
    """The last row end at or before the end of a stretch, 0 if there is none, and how many line ends follow it.

    `odd` says whether the number of quotes before the end of the stretch is.
    """
    look = FIRST_LOOK
    with part.path.open("rb") as file:
        while True:
            begin = max(0, part.stop - look)
            file.seek(begin)
            data = file.read(part.stop - begin)
            end = data.rfind(b"\n") + 1
            inside = odd ^ _odd(data, part.quote, end, len(data))
            while end and inside:
                earlier = data.rfind(b"\n", 0, end - 1) + 1
                inside ^= _odd(data, part.quote, earlier, end)
                end = earlier
            if end:
                return begin + end, data.count(b"\n", end)
            if begin == 0:
                return 0, 0
            look *= 16


def _odd(data: bytes, quote: bytes | None, start: int, stop: int) -> bool:
    return quote is not None and data.count(quote, start, stop) % 2 == 1
