"""The best depth and width under a fitted law, overall or under budgets, and all sizes that are as good.

Only predictions are used, of the law and of every draw of its bootstrap, so any form will do.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from wukong_jax.config.checks import check_positive
from wukong_jax.performance_law.answers import Answer
from wukong_jax.performance_law.budgets import Budget, size
from wukong_jax.performance_law.lattice import Lattice
from wukong_jax.performance_law.locate import locate
from wukong_jax.performance_law.noise import Noise, Promise, noise_of
from wukong_jax.performance_law.search import Search, allowed, keeps
from wukong_jax.scaling.bootstrap import Interval, interval


class Size(NamedTuple):
    """One size and what the law says of it."""

    layers: float
    dim: float
    metric: Interval
    interpolated: bool
    """Whether it lies between measured sizes."""


class Tolerance(NamedTuple):
    """Differences of the metric that do not count."""

    value: float
    why: str


@dataclasses.dataclass(frozen=True)
class Region:
    """The sizes of a lattice whose predicted metric is within the tolerance of the best one's, best first."""

    layers: Float[np.ndarray, "sizes"]
    dims: Float[np.ndarray, "sizes"]
    metric: Float[np.ndarray, "sizes"]
    share: Float[np.ndarray, "sizes"]
    """Share of the draws in which the size is within the tolerance of that draw's best."""
    interpolated: Bool[np.ndarray, "sizes"]
    tolerance: Tolerance
    of: int
    """Sizes that were searched."""


@dataclasses.dataclass(frozen=True)
class Optimum:
    """Which size is best, overall or under budgets."""

    budgets: tuple[Budget, ...]
    layers: Answer
    dim: Answer
    best: Size
    """The best size of the lattice that keeps to the budgets."""
    region: Region
    cheapest: Size
    """The size of the region that costs least, by the first budget or N d."""
    promise: Promise


def optimum(
    search: Search,
    lattice: Lattice | None = None,
    budgets: Sequence[Budget] = (),
    *,
    tolerance: float | None = None,
    sigma: float | None = None,
) -> Optimum:
    """The best size of a lattice, by default all that lie in the measured ranges; raises `ConfigError`.

    `tolerance` is the difference of the metric that does not matter; where the noise of one run, `sigma` or what the
    runs say, is larger, that takes its place.
    """
    lattice = lattice or search.measured.lattice()
    noise = noise_of(search.law, sigma)
    layers, dims = allowed(lattice, budgets)
    region = near_optimal(search, layers, dims, tolerated(tolerance, noise))
    cost = budgets[0].cost if budgets else size
    best = _size(search, region, 0)
    cheapest = int(np.argmin(cost(region.layers, region.dims)))  # of equal ones the first, which is the better
    answers = locate(search, lattice, budgets)
    return Optimum(
        tuple(budgets), *answers, best, region, _size(search, region, cheapest), promise(search, best, noise, budgets)
    )


def tolerated(given: float | None, noise: Noise) -> Tolerance:
    """The larger of what the user tolerates and of the noise of one run."""
    if given is not None:
        check_positive("--tolerance", given)
        if given >= noise.sigma:
            return Tolerance(given, "given")
    return Tolerance(noise.sigma, f"the noise of one run, {noise.source}")


def near_optimal(
    search: Search, layers: Float[np.ndarray, "sizes"], dims: Float[np.ndarray, "sizes"], tolerance: Tolerance
) -> Region:
    """Those of some sizes that are within the tolerance of the best of them."""
    good = search.goodness(layers, dims)
    kept = np.flatnonzero(good >= good.max() - tolerance.value)
    kept = kept[np.lexsort((dims[kept], layers[kept], -good[kept]))]
    best = search.best_of_draws(layers, dims)[0][:, None]
    near = [np.mean(part >= best - tolerance.value, axis=0) for _, part in search.parts(layers[kept], dims[kept])]
    return Region(
        layers[kept],
        dims[kept],
        search.sign * good[kept],
        np.concatenate(near),
        search.measured.within(layers[kept], dims[kept]),
        tolerance,
        len(layers),
    )


def promise(search: Search, best: Size, noise: Noise, budgets: Sequence[Budget] = ()) -> Promise:
    """What the best size is promised to be better by than the best measured one of the panel that the budgets allow.

    Where they allow none of the measured sizes, than the best of all.
    """
    runs = search.law.runs
    here = runs.panel == search.panel
    same = here if search.data is None or runs.data is None else here & np.isclose(runs.data, search.data, rtol=1e-6)
    own = np.flatnonzero(same if same.any() else here)
    affordable = keeps(budgets, runs.layers[own], runs.dim[own])
    compared = own[affordable] if affordable.any() else own
    groups = runs.groups[compared]
    means = np.bincount(groups, runs.y[compared]) / np.maximum(np.bincount(groups), 1)
    group = groups[np.argmax(search.sign * means[groups])]
    first = compared[groups == group][0]
    measured, layers, dim = float(means[group]), float(runs.layers[first]), float(runs.dim[first])
    at = np.array([best.layers, layers]), np.array([best.dim, dim])
    predicted, draws = search.goodness(*at), search.draws(*at)
    level = search.law.level
    return Promise(
        measured,
        layers,
        dim,
        int(np.sum(groups == group)),
        bool(affordable.any()),
        bool(same.any()),
        interval(float(predicted[0]) - search.sign * measured, draws[:, 0] - search.sign * measured, level),
        interval(float(predicted[0] - predicted[1]), draws[:, 0] - draws[:, 1], level),
        noise,
    )


def _size(search: Search, region: Region, number: int) -> Size:
    layers, dim = float(region.layers[number]), float(region.dims[number])
    return Size(layers, dim, search.value(layers, dim), bool(region.interpolated[number]))
