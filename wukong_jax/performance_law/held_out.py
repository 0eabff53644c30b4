"""How well a form predicts runs that it was not fitted to: each point from the others, and large from small."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from wukong_jax.errors import DataError
from wukong_jax.performance_law.problem import Problem, check_runs
from wukong_jax.performance_law.runs import Runs
from wukong_jax.scaling.variable_projection import Solution

RULE = "fitted to the smaller two thirds of the depths and of the widths of each panel, the other runs predicted"


class HeldOut(NamedTuple):
    """Prediction of the large runs from the small."""

    rmse: float
    runs: int
    """How many were predicted."""
    baseline_rmse: float
    """The same for the plainest prediction: the best value seen so far in the panel."""
    rule: str = RULE


def leave_one_out(problem: Problem, known: Solution) -> Float[np.ndarray, "runs"] | None:
    """Prediction less metric of each run, its point's runs left out together and all parameters fitted anew.

    None where the runs without one point no longer determine the form.
    """
    groups = problem.groups
    kept = groups[None] != np.arange(groups.max() + 1)[:, None]
    if any(problem.undetermined(mask) for mask in kept):
        return None
    solution = problem.solve_without_each(known)
    return problem.fitted(solution)[groups, np.arange(len(groups))] - problem.targets


def small_to_large(problem: Problem) -> HeldOut | str:
    """The error at the larger runs of a fit to the smaller; why there is none, where the smaller do not suffice."""
    runs = problem.runs
    small = smaller_runs(runs)
    known = np.isin(runs.panel, runs.panel[small]) & ~small
    if not known.any():
        return "no small-to-large test: no run is larger than those that are fitted"
    try:
        check_runs(runs.subset(small), problem.law.form)
    except DataError as error:
        return f"no small-to-large test: of the smaller runs, {error}"
    loose = problem.undetermined(small)
    if loose or np.sum(small) <= len(problem.law.parameters):
        return f"no small-to-large test: {np.sum(small)} smaller runs do not determine the form"
    solution = problem.solve(small.astype(float))
    errors = (problem.fitted(solution)[0] - problem.targets)[known]
    best = np.array([problem.targets[small & (runs.panel == panel)].max() for panel in runs.panel[known]])
    return HeldOut(_root_mean_square(errors), int(known.sum()), _root_mean_square(best - problem.targets[known]))


def smaller_runs(runs: Runs) -> Bool[np.ndarray, "runs"]:
    """Runs among the smaller two thirds (rounded up) of the depths and of the widths of their panel."""
    small = np.zeros(len(runs.y), bool)
    for panel in np.unique(runs.panel):
        here = runs.panel == panel
        inside = here.copy()
        for values in (runs.layers, runs.dim):
            levels = np.unique(values[here])
            inside &= values <= levels[math.ceil(2 * len(levels) / 3) - 1]
        small |= inside
    return small


def _root_mean_square(errors: Float[np.ndarray, "_"]) -> float:
    return float(np.sqrt(np.mean(errors**2)))
