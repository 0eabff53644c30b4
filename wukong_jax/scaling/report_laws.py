"""The laws of a report: curves over compute, and the joint law in compute and examples with its best allocations."""

import math
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wukong_jax.errors import DataError
from wukong_jax.scaling.allocation import Allocation, allocate
from wukong_jax.scaling.fit import Fitted, fit_series
from wukong_jax.scaling.points import Points
from wukong_jax.scaling.read_points import read_records
from wukong_jax.scaling.report_data import series_order
from wukong_jax.scaling.saturation import Saturation, rank, saturation
from wukong_jax.scaling.selection import Comparison, compare_forms, run_noise

BEYOND = 10.0
"""The largest total of compute that is divided, over the largest that was spent on a run."""


class CurveLaws(NamedTuple):
    """The laws of a ladder."""

    comparisons: tuple[Comparison, ...]
    ranking: tuple[Saturation, ...]
    refused: dict[str, str]
    """Series that no form can be fitted to, and why."""

    def best(self, series: str) -> Fitted | None:
        """The form of a series that predicts left-out points best."""
        for comparison in self.comparisons:
            if comparison.series == series:
                return comparison.fit(comparison.best)
        return None


class JointLaws(NamedTuple):
    """L(N, D) of each series."""

    fits: tuple[Fitted, ...]
    allocations: tuple[tuple[Allocation, ...], ...]
    """Of each fit."""
    refused: dict[str, str]

    def of(self, series: str) -> Fitted | None:
        """The fit of a series."""
        return next((fit for fit in self.fits if fit.points.series == series), None)


def curve_laws(folder: pathlib.Path, metric: str) -> CurveLaws:
    """All forms of every series of the study "ladder", and their ranking."""
    source = read_records(folder, "ladder", ("compute",), metric)
    comparisons, found, refused = [], [], {}
    for points in sorted(source.points, key=lambda points: series_order(points.series)):
        try:
            comparison = compare_forms(points)
        except DataError as error:
            refused[points.series] = str(error)
            continue
        comparisons.append(comparison)
        found.append(saturation(points, run_noise(points, comparison), source.exploded(points.series)))
    return CurveLaws(tuple(comparisons), tuple(rank(found)), refused)


def joint_laws(folder: pathlib.Path, metric: str) -> JointLaws:
    """The joint law of every series of the study "data" that has enough points, and what it says to spend."""
    source = read_records(folder, "data", ("compute", "examples"), metric)
    fits, refused = [], {}
    for points in sorted(source.points, key=lambda points: series_order(points.series)):
        try:
            fits.append(fit_series(points, "joint"))
        except DataError as error:
            refused[points.series] = str(error)
    allocations = tuple(allocate(fit, budgets(fit.points)) for fit in fits)
    return JointLaws(tuple(fits), allocations, refused)


def budgets(points: Points) -> list[float]:
    """Totals N D to divide: the middle of those of the runs (of their logarithms), the largest, and ten times it."""
    totals = points.inputs.prod(axis=0)
    largest = float(totals.max())
    return [math.sqrt(float(totals.min()) * largest), largest, BEYOND * largest]


def law_over(
    fit: Fitted,
) -> tuple[Float[np.ndarray, "at"], Float[np.ndarray, "at"], Float[np.ndarray, "at"], Float[np.ndarray, "at"]]:
    """X from the smallest to the largest measured one, the law there, and its interval."""
    x = np.geomspace(fit.points.x.min(), fit.points.x.max(), 100)
    return (x, fit.predict(x), *fit.band(x))
