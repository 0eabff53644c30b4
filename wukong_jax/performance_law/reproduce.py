"""The paper's tables from its own measurements, ours beside the printed numbers, and where they differ."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from wukong_jax.files import write_text
from wukong_jax.performance_law.answers import Answer
from wukong_jax.performance_law.budgets import Budget, size
from wukong_jax.performance_law.fit import Fitted, fit
from wukong_jax.performance_law.locate import locate
from wukong_jax.performance_law.optimum import Optimum, optimum
from wukong_jax.performance_law.published import METRICS, Published, Row, read_published
from wukong_jax.performance_law.report_findings import optimum_plain, plain
from wukong_jax.performance_law.runs import Runs
from wukong_jax.performance_law.search import Search

LAW = "released"
"""The form of the authors' program, which the paper's numbers come from."""
RIVALS = ("performance-law", "quadratic", "quadratic-interaction", "log-linear", "power")
OTHER_P1 = (0.1, 5.0)
"""The law's p1 is 1/2 in the authors' program; R2 is shown for these too."""
SAME = 0.005
"""R2 that differ by less are said to agree."""
SAME_BASELINE = 0.0015
SAME_CELL = 6e-5
"""Rounding to four digits, and the error of the recovered grid."""


class Panel(NamedTuple):
    """A row of Table 1: R2 of each form, and the law's optimum."""

    row: Row
    r2: dict[str, float]
    over_p1: tuple[float, ...]
    """R2 of the law with each of `OTHER_P1`."""
    layers: Answer
    dim: Answer

    @property
    def difference(self) -> float:
        """Our R2 of the law less the printed one."""
        return self.r2[LAW] - self.row.numbers["pl"]


class Choice(NamedTuple):
    """A question of Table 2: the paper's choice and ours."""

    question: str
    metric: str
    panel: str
    rows: tuple[Row, ...]
    fit: Fitted
    found: Optimum

    @property
    def chosen(self) -> Row:
        """The paper's choice."""
        return next(row for row in self.rows if row.words["chosen"])

    @property
    def as_good(self) -> bool:
        """Whether the paper's choice is within our near-optimal region."""
        size_ = (self.chosen.numbers["layers"], self.chosen.numbers["dim"])
        return size_ in set(zip(self.found.region.layers.tolist(), self.found.region.dims.tolist(), strict=True))

    @property
    def predicted(self) -> float:
        """What the refitted law says of the paper's choice."""
        sizes = (np.array([self.chosen.numbers[name]]) for name in ("layers", "dim"))
        return float(self.fit.predict(*sizes)[0])

    @property
    def gain(self) -> float:
        """Printed metric of the paper's choice less the best of the other printed ones."""
        others = [row.numbers[self.metric] for row in self.rows if not row.words["chosen"]]
        return self.chosen.numbers[self.metric] - max(others)


class Correlation(NamedTuple):
    """A row of Table 6: R2 of 1/D regressed on 1/(tokens x quality), as it is and in logarithms."""

    measure: str
    target: str
    printed: float
    linear: float
    logarithmic: float


class Reproduction(NamedTuple):
    """Everything, with the text that shows it."""

    panels: tuple[Panel, ...]
    choices: tuple[Choice, ...]
    cells: tuple[tuple[Row, str], ...]
    """Rows of Table 2 with the cell of the grid that has the same numbers."""
    correlations: tuple[Correlation, ...]

    def markdown(self) -> str:
        """Tables and differences."""
        from wukong_jax.performance_law.reproduce_tables import sections

        return sections(self)

    def plain(self) -> dict[str, Any]:
        """The same for JSON, with all digits."""
        return {
            "table1": [
                {
                    **panel.row.words,
                    "printed": panel.row.numbers,
                    "r2": panel.r2,
                    "r2_over_p1": panel.over_p1,
                    "difference": panel.difference,
                }
                | {"layers": panel.layers.text("N"), "dim": panel.dim.text("d")}
                for panel in self.panels
            ],
            "table2": [
                {"question": one.question, "metric": one.metric, "panel": one.panel, "printed": one.chosen.numbers}
                | {"printed_gain": one.gain, "printed_choice_as_good": one.as_good, "law_there": one.predicted}
                | {"ours": {name: value for name, value in optimum_plain(one.found).items() if name != "region"}}
                for one in self.choices
            ],
            "table2_cells": [{**row.words, **row.numbers, "same_as_cell": cell} for row, cell in self.cells],
            "table6": self.correlations,
        }


def reproduce(folder: pathlib.Path, draws: int = 1000) -> Reproduction:
    """Fit the grid's panels and compare; raises `UserError` where a published file is missing or damaged."""
    published = read_published(folder)
    fits: dict[tuple[str, str], Fitted] = {}
    panels = []
    for row in published.table1:
        runs = published.grid[row.words["metric"]].only(row.panel)
        law = fits[row.panel, row.words["metric"]] = fit(runs, LAW, draws=draws)
        r2 = {LAW: law.quality.r2} | {form: _r2(runs, form) for form in RIVALS}
        over_p1 = tuple(_r2(runs, LAW, p1) for p1 in OTHER_P1)
        search = Search(law)
        panels.append(Panel(row, r2, over_p1, *locate(search, search.measured.lattice())))
    questions = list(dict.fromkeys(row.words["question"] for row in published.table2))
    choices = [choice(published, fits, question, metric) for question in questions for metric in METRICS]
    cells = [(row, same_cell(published, row)) for row in published.table2]
    return Reproduction(tuple(panels), tuple(choices), tuple(cells), tuple(correlations(published)))


def _r2(runs: Runs, form: str, p1: float | None = None) -> float:
    return fit(runs, form, p1=p1, draws=20, level=0.5).quality.r2  # the bootstrap is not used


def choice(published: Published, fits: dict[tuple[str, str], Fitted], question: str, metric: str) -> Choice:
    """Our answer to one question of Table 2.

    "overall" searches the measured ranges, "N = 64" that depth alone; "N d about 512" searches from 1 layer and width 1
    on with what the paper's own rows cost at most, below everything measured in its panel.
    """
    rows = tuple(row for row in published.table2 if row.words["question"] == question)
    panel = rows[0].panel
    law = fits[panel, metric]
    search = Search(law)
    measured = search.measured
    widths = int(measured.dims_range[0]), int(measured.dims_range[1])
    budgets: Sequence[Budget] = ()
    lattice = measured.lattice()
    if question.startswith("N ="):
        depth = int(rows[0].numbers["layers"])
        lattice = measured.lattice((depth, depth), widths, 1)
    elif question != "overall":
        dearest = max(row.numbers["layers"] * row.numbers["dim"] for row in rows)
        budgets = (Budget("N d", dearest, size),)
        lattice = measured.lattice((1, int(measured.layers_range[1])), (1, widths[0]), 1)
    return Choice(question, metric, panel, rows, law, optimum(search, lattice, budgets))


def same_cell(published: Published, row: Row) -> str:
    """The measured size whose HR and NDCG are the row's to four digits; empty where there is none."""
    found = {metric: published.grid[metric].only(row.panel) for metric in METRICS}
    runs = found[METRICS[0]]
    same = np.ones(len(runs.y), bool)
    for metric, one in found.items():
        same &= np.abs(one.y - row.numbers[metric]) < SAME_CELL
    return ", ".join(f"N = {n:g}, d = {d:g}" for n, d in zip(runs.layers[same], runs.dim[same], strict=True))


def correlations(published: Published) -> list[Correlation]:
    """R2 of the fitted 1/D on 1/D' over all panels, with real entropy and with tokens alone."""
    numbers = [row.numbers for row in published.table3]
    tokens = np.array([one["tokens"] for one in numbers])
    quality = {"real entropy": np.array([one["inverse_real_entropy"] for one in numbers]), "tokens only": 1.0}
    found = []
    for printed in published.table6:
        measure = printed.words["measure"]
        if measure not in quality:
            continue
        inverse = 1 / (tokens * quality[measure])
        for target in ("hr", "ndcg", "loss"):
            fitted = np.array([one[f"inverse_d_{target}"] for one in numbers])
            logs = regression_r2(np.log(inverse), np.log(fitted))
            found.append(Correlation(measure, target, printed.numbers[target], regression_r2(inverse, fitted), logs))
    return found


def regression_r2(x: Float[np.ndarray, "points"], y: Float[np.ndarray, "points"]) -> float:
    """R2 of the straight line through the points: the squared correlation."""
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def write_reproduction(found: Reproduction, out: pathlib.Path) -> list[pathlib.Path]:
    """Write reproduction.md and reproduction.json; returns the files."""
    paths = [out / "reproduction.md", out / "reproduction.json"]
    write_text(paths[0], found.markdown())
    write_text(paths[1], json.dumps(plain(found.plain()), indent=1) + "\n")
    return paths
