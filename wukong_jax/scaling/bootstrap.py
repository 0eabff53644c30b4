"""Targets redrawn from a fit, for intervals and for the comparison of forms.

A law has 7 points or so. Resampling them would leave most draws with 4 or 5 distinct ones, and its intervals too
narrow. Instead the noise is drawn anew around the fitted curve, and its size is uncertain too: sigma^2 = SSE / chi^2
with n - p degrees of freedom, which makes the percentiles of a linear model's coefficients those of Student's t.
"""

import enum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

MANY_SEEDS = 5
"""Runs of every point from which on runs are resampled within points, and no form of the noise is assumed."""


class Noise(enum.StrEnum):
    """How targets are redrawn."""

    GAUSSIAN = "Gaussian noise of uncertain size around the fit"
    RESIDUALS = "residuals of the logarithms, resampled, of uncertain size, around the fit"
    SEEDS = "runs resampled within points, the noise of each of uncertain size"


class Interval(NamedTuple):
    """A value and its interval."""

    value: float
    low: float
    high: float


def choose_noise(groups: Int[np.ndarray, "points"], *, robust: bool) -> Noise:
    """Runs within points where each has 5 seeds; else residuals for a robust loss, which expects outliers."""
    if np.bincount(groups).min() >= MANY_SEEDS:
        return Noise.SEEDS
    return Noise.RESIDUALS if robust else Noise.GAUSSIAN


def redraw(
    noise: Noise,
    fit: Float[np.ndarray, "points"],
    y: Float[np.ndarray, "points"],
    groups: Int[np.ndarray, "points"],
    parameters: int,
    size: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draws points"]:
    """Sets of targets as the fitted law and its noise would give them; fit and y positive for logarithms."""
    count = len(y)
    if noise is Noise.SEEDS:
        return _within_points(y, groups, size, rng)
    chi = rng.chisquare(count - parameters, (size, 1))
    if noise is Noise.GAUSSIAN:
        return fit + np.sqrt(np.sum((y - fit) ** 2) / chi) * rng.standard_normal((size, count))
    residuals = np.log(y / fit)
    return fit * np.exp(np.sqrt(count / chi) * residuals[rng.integers(0, count, (size, count))])


def interval(value: float, draws: Float[np.ndarray, "draws"], level: float) -> Interval:
    """The value with the percentiles (1 - level) / 2 and (1 + level) / 2 of its draws, which may be infinite."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(value, float(low), float(high))


def _within_points(
    y: Float[np.ndarray, "points"], groups: Int[np.ndarray, "points"], size: int, rng: np.random.Generator
) -> Float[np.ndarray, "draws points"]:
    drawn = np.empty((size, len(y)))
    for group in range(groups.max() + 1):
        runs = np.flatnonzero(groups == group)
        mean = y[runs].mean()
        # m runs drawn from m vary by (m - 1) / m of the variance between them, which they know only so well themselves
        wider = np.sqrt(len(runs) / rng.chisquare(len(runs) - 1, (size, 1)))
        drawn[:, runs] = mean + wider * (y[runs][rng.integers(0, len(runs), (size, len(runs)))] - mean)
    return drawn
