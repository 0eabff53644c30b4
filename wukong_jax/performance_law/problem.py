"""The least-squares problem of one form and one table of runs, and whether the runs can determine it."""

import numpy as np
from jaxtyping import Bool, Float

from wukong_jax.errors import DataError
from wukong_jax.performance_law.law import Form, inputs_of, law_of
from wukong_jax.performance_law.panels import Panels
from wukong_jax.performance_law.runs import Runs
from wukong_jax.scaling.bootstrap import choose_noise, redraw
from wukong_jax.scaling.variable_projection import (
    Separable,
    Solution,
    search,
    search_basins,
    search_without_each,
    unidentified,
)

REDRAWN_ROUNDS = 8
"""Refinements for redrawn targets: 1/256 of a cell of the grid is far below the width of an interval."""
WORDS = {"layers": "depth", "dim": "width", "data": "D'"}


class Problem:
    """The numerical problem; raises `DataError` where the runs cannot determine the form's parameters."""

    def __init__(self, runs: Runs, form: Form, p1: float | None) -> None:
        check_runs(runs, form)
        self.runs, self.law = runs, law_of(form, runs, p1)
        self.inputs = inputs_of(self.law, runs)
        self.model: Separable = self.law.separable(self.inputs, runs.panel)
        self.panels = Panels.of(self.model, runs.panel, len(runs.panels))
        self.targets = runs.goodness
        self.groups = runs.groups
        check_counts(self)
        loose = self.undetermined(np.ones(len(runs.y), bool))
        if loose:
            raise DataError(
                f"form {form.name}: the sizes of the runs leave {', '.join(loose)} open, as they vary together or take "
                "too few values within a panel; run more combinations, or choose a form with fewer parameters"
            )

    def undetermined(self, kept: Bool[np.ndarray, "runs"]) -> tuple[str, ...]:
        """Parameters that the inputs of some runs leave open whatever the metric was."""
        part = self.law.separable(self.inputs[:, kept], self.runs.panel[kept])
        # a generic place: no exponent at its limit, no coefficient zero
        generic = np.array([1.0 / term.range.span for term in self.law.terms if term.exponent])
        return unidentified(part, generic, np.ones(len(part.linear)))

    def solve(self, weights: Float[np.ndarray, "runs"] | None = None) -> Solution:
        """The optimum for the runs' own metric, in whichever basin of the grid it lies."""
        return search_basins(self.model, self.targets, weights)

    def solve_again(self, targets: Float[np.ndarray, "problems runs"], known: Solution) -> Solution:
        """The optimum of each redrawn set of targets: the better of the whole grid's and the one near `known`."""
        if not self.model.axes:
            return search(self.model, targets)
        starts = known.nonlinear.repeat(len(targets), axis=0)
        if self.panels.count > 1:
            return better(
                self.panels.search(targets, None, REDRAWN_ROUNDS), self.panels.search(targets, starts, REDRAWN_ROUNDS)
            )
        return better(
            search(self.model, targets, rounds=REDRAWN_ROUNDS),
            search(self.model, targets, starts=starts, rounds=REDRAWN_ROUNDS),
        )

    def solve_without_each(self, known: Solution) -> Solution:
        """The optimum without the runs of each point: the better of the whole grid's and the one near `known`."""
        several = self.panels.count > 1
        on_grid = search_without_each(
            self.model, self.targets, self.groups, rounds=0 if several and self.model.axes else REDRAWN_ROUNDS
        )
        if not self.model.axes:
            return on_grid
        count = len(on_grid.objective)
        weights = (self.groups[None] != np.arange(count)[:, None]).astype(float)
        targets, starts = np.tile(self.targets, (count, 1)), known.nonlinear.repeat(count, axis=0)
        solver = self.panels.solver if several else None
        if several:
            on_grid = search(
                self.model, targets, weights, solver=solver, starts=on_grid.nonlinear, rounds=REDRAWN_ROUNDS
            )
        near = search(self.model, targets, weights, solver=solver, starts=starts, rounds=REDRAWN_ROUNDS)
        return better(on_grid, near)

    def fitted(self, solution: Solution) -> Float[np.ndarray, "problems runs"]:
        """What each solution says of the runs."""
        return self.law.values(solution.nonlinear, solution.linear, self.inputs, self.runs.panel)

    def redraw(self, solution: Solution, size: int, rng: np.random.Generator) -> Float[np.ndarray, "size runs"]:
        """Sets of targets drawn from the first solution and its noise, or from the seeds where there are many."""
        noise = choose_noise(self.groups, robust=False)
        fit = self.fitted(solution)[0]
        return redraw(noise, fit, self.targets, self.groups, len(self.law.parameters), size, rng)


def better(one: Solution, other: Solution) -> Solution:
    """Of each problem the solution with the lower objective."""
    first = one.objective <= other.objective
    return Solution(
        np.where(first[:, None], one.nonlinear, other.nonlinear),
        np.where(first[:, None], one.linear, other.linear),
        np.where(first, one.objective, other.objective),
        np.where(first[:, None], one.at_bound, other.at_bound),
    )


def check_runs(runs: Runs, form: Form) -> None:
    """Raise `DataError` unless depth and width vary enough and the metric varies at all."""
    for variable, values in (("layers", runs.layers), ("dim", runs.dim)):
        distinct = np.unique(values)
        if len(distinct) < form.levels:
            raise DataError(
                f"form {form.name}: all runs have the {WORDS[variable]} {distinct[0]:g}, expected at least "
                f"{form.levels} values; run more sizes"
                if len(distinct) == 1
                else f"form {form.name}: the runs have {len(distinct)} values of {WORDS[variable]}, expected at least "
                f"{form.levels}; run more sizes or choose log-linear"
            )
    if np.ptp(runs.y) <= 1e-12 * np.abs(runs.y).max():
        raise DataError(f"{runs.metric}: {runs.y[0]:g} in every run, so there is nothing to fit")


def check_counts(problem: Problem) -> None:
    """Raise `DataError` unless there are more runs than parameters, and as many points."""
    parameters, points = len(problem.law.parameters), int(problem.groups.max()) + 1
    if len(problem.targets) <= parameters or points < parameters:
        raise DataError(
            f"form {problem.law.form.name}: {len(problem.targets)} runs of {points} points for {parameters} "
            f"parameters, expected at least {parameters + 1} runs of {parameters} points; run more sizes or choose a "
            "form with fewer"
        )
