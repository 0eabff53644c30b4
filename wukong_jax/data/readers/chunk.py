"""What a source of raw rows yields: frames with the place of every row, and the rows that could not be read."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl


class BadRow(NamedTuple):
    """A raw row that cannot be used: where it stands, why, and its text."""

    file: str
    line: int
    reason: str
    text: str


class Chunk(NamedTuple):
    """Consecutive raw rows of one file.

    `split` is set when files are given per split. `lines` holds the line of each row where they are not simply
    `first_line`, `first_line + 1`, ...; `bad` are the rows left out of `frame` because their form is wrong;
    `raw` gives the text of a row of the frame.
    """

    frame: pl.DataFrame
    split: str | None
    file: str
    first_line: int
    lines: np.ndarray | None = None
    bad: tuple[BadRow, ...] = ()
    raw: Callable[[int], str] | None = None
    unit: str = "line"

    def line(self, row: int) -> int:
        """Line (1-based; a row number for Parquet) of a row of the frame."""
        return self.first_line + row if self.lines is None else int(self.lines[row])

    def text(self, row: int) -> str:
        """Text of a row of the frame as it stands in the file, or its values joined by tabs."""
        if self.raw is not None:
            return self.raw(row)
        return "\t".join("" if value is None else str(value) for value in self.frame.row(row))


Source = Callable[[], Iterator[Chunk]]
