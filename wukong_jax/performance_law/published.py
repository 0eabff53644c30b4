"""The paper's published numbers, and measurements recovered from its figures, as the reproduction reads them.

Sources, all in results/published/: performance_law_table1.csv, _table2.csv, _table3.csv (with the tokens and 1/S_real
of its section 4) and _table6.csv hold Tables 1, 2, 3 and 6 of "P-Law: Predicting Quantitative Scaling Law with Entropy
Guidance in Large Recommendation Models" (NeurIPS 2025; arXiv 2412.00430). performance_law_grid.csv holds the (N, d,
HR@10, NDCG@10) that were recovered from the vector figures of github.com/USTC-StarTeam/Performance-Law, to about 2e-5:
facts measured anew from a plot; cite the paper and the repository when using them.
"""

import csv
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from wukong_jax.errors import DataError
from wukong_jax.performance_law.read_runs import read_runs
from wukong_jax.performance_law.runs import Runs

GRID = "performance_law_grid.csv"
METRICS = ("hr10", "ndcg10")


class Row(NamedTuple):
    """A row of a published table: its words and its numbers by column."""

    words: dict[str, str]
    numbers: dict[str, float]

    @property
    def panel(self) -> str:
        """Its panel as the grid's runs name it."""
        return f"{self.words['dataset']} {self.words['max_len']}"


class Published(NamedTuple):
    """All of it."""

    grid: dict[str, Runs]
    """By metric; panels are data set and sequence length."""
    table1: tuple[Row, ...]
    table2: tuple[Row, ...]
    table3: tuple[Row, ...]
    table6: tuple[Row, ...]


def read_published(folder: pathlib.Path) -> Published:
    """Read all files of the folder; raises `DataError` naming the file, and panels that the grid lacks."""
    grid = {metric: read_runs(folder / GRID, metric, panel=["dataset", "max_len"]) for metric in METRICS}
    panel = ("dataset", "max_len")
    tables = (
        _read(folder / "performance_law_table1.csv", (*panel, "metric"), ("pl", "sl", "pcsl")),
        _read(
            folder / "performance_law_table2.csv",
            ("question", *panel, "chosen"),
            ("layers", "dim", "ndcg10", "ndcg50", "hr10", "hr50"),
        ),
        _read(
            folder / "performance_law_table3.csv",
            panel,
            ("tokens", "inverse_real_entropy", "inverse_d_hr", "inverse_d_ndcg", "inverse_d_loss"),
        ),
        _read(folder / "performance_law_table6.csv", ("measure",), ("ndcg", "hr", "loss")),
    )
    known = grid[METRICS[0]].panels
    for row in (*tables[0], *tables[1]):
        if row.panel not in known:
            raise DataError(f"{folder / GRID}: no runs of the panel {row.panel!r}, which a published table names")
    return Published(grid, *tables)


def _read(path: pathlib.Path, words: Sequence[str], numbers: Sequence[str]) -> tuple[Row, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); it is part of the project, restore it") from error
    if sorted(reader.fieldnames or ()) != sorted((*words, *numbers)):
        raise DataError(f"{path}: columns {reader.fieldnames}, expected {', '.join((*words, *numbers))}")
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            found = {name: float(line[name]) for name in numbers}
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}: {error}; expected numbers in {', '.join(numbers)}") from error
        if not all(math.isfinite(value) for value in found.values()):
            raise DataError(f"{path}, line {number}: expected finite numbers in {', '.join(numbers)}")
        rows.append(Row({name: line[name] or "" for name in words}, found))
    return tuple(rows)
