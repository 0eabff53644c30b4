"""Where a series stops improving, and the ranking of series by it."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from wukong_jax.scaling.bootstrap import Interval
from wukong_jax.scaling.points import Points

TWO_SIDED = 1.96
"""Standard errors of a 95 % interval."""


class Saturation(NamedTuple):
    """How far compute helped one series, free of any law."""

    series: str
    reach: float
    """The smallest x whose mean value no larger x beats by more than the noise."""
    best_x: float
    """Where the mean value is lowest."""
    largest_x: float
    exploded_x: float | None
    """The smallest x beyond `largest_x` of a run that exploded."""
    tail_gain: Interval
    """Change per 4x from the slope in ln x over the upper half of the range (at least 3 points), 95 % by the noise."""
    deviation: float
    """Standard deviation of one run that decides what counts as better."""

    @property
    def state(self) -> str:
        """`falling`, `saturated`, `open` or `unstable`, or the last and one before.

        Open: no point proves a gain beyond `reach`, yet the last one is lowest and the slope towards it is a fall.
        """
        words = []
        if self.reach < self.largest_x:
            still = self.best_x == self.largest_x and self.tail_gain.high < 0
            words = ["open" if still else "saturated"]
        words += ["unstable"] if self.exploded_x is not None else []
        return ", ".join(words) or "falling"


def saturation(points: Points, deviation: float, exploded: Iterable[float] = ()) -> Saturation:
    """Where the series stops; a point is better than another by more than the noise beyond 1.96 standard errors.

    `exploded` are the x of runs of the series that gave no value.
    """
    x = np.unique(points.x)
    place = np.searchsorted(x, points.x)
    counts = np.bincount(place)
    means = np.bincount(place, points.y) / counts
    noise = TWO_SIDED * deviation * np.sqrt(1 / counts[:, None] + 1 / counts)
    later = np.arange(len(x)) > np.arange(len(x))[:, None]
    improves = (later & (means[:, None] - means > noise)).any(axis=1)
    end = int(np.argmin(improves))  # the first point that no later one beats
    beyond = [value for value in exploded if value > x[-1]]
    return Saturation(
        points.series,
        float(x[end]),
        float(x[np.argmin(means)]),
        float(x[-1]),
        min(beyond, default=None),
        _tail(x, means, counts, deviation),
        deviation,
    )


def rank(found: Sequence[Saturation]) -> list[Saturation]:
    """The series by the compute up to which they improved; of equals those first that went further."""
    return sorted(found, key=lambda one: (-one.reach, -one.largest_x, one.series))


def deviation_of_threshold(threshold: float) -> float:
    """The deviation of one run under which a difference of two runs counts from `threshold` on."""
    return threshold / (TWO_SIDED * math.sqrt(2.0))


def _tail(x: np.ndarray, means: np.ndarray, counts: np.ndarray, deviation: float) -> Interval:
    logs = np.log(x)
    upper = logs >= min((logs[0] + logs[-1]) / 2, logs[max(len(logs) - 3, 0)])
    logs, means, weights = logs[upper], means[upper], counts[upper].astype(float)
    centred = logs - np.average(logs, weights=weights)
    spread = float(np.sum(weights * centred**2))
    if spread == 0:
        return Interval(math.nan, math.nan, math.nan)
    gain = math.log(4.0) * float(np.sum(weights * centred * means)) / spread
    half = math.log(4.0) * TWO_SIDED * deviation / math.sqrt(spread)
    return Interval(gain, gain - half, gain + half)
