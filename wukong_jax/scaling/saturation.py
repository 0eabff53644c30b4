"""Where a series stops improving, and the ranking of series by it."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from wukong_jax.scaling.bootstrap import Interval
from wukong_jax.scaling.points import Points
from wukong_jax.scaling.run_noise import NORMAL, RunNoise

STATES = (
    "falling to the last one; open: no gain proven beyond, but the largest is lowest and the upper half falls; "
    "undecided: the upper half may fall as fast as the whole range did; saturated: it does not; no gain shown: none is "
    "proven better than the smallest"
)
"""What the words of `Saturation.state` mean, for the title of a table."""


class Saturation(NamedTuple):
    """How far compute helped one series, free of any law."""

    series: str
    reach: float
    """Of the sizes that are better than all smaller ones, the smallest that no later of them beats for certain."""
    best_x: float
    """Where the mean value is lowest."""
    largest_x: float
    exploded_x: float | None
    """The smallest x of a run that exploded."""
    smallest_x: float
    whole_gain: float
    """Change of the means from the smallest to the largest x, per 4x."""
    tail_gain: Interval
    """Change per 4x from the slope in ln x over the upper half of the range (at least 3 points), 95 % by the noise."""
    noise: RunNoise
    """Standard deviation of one run, which decides what counts as better."""

    @property
    def state(self) -> str:
        """One of the words of `STATES`, and `unstable` where a run exploded."""
        words = []
        if self.reach < self.largest_x:
            words = [self._beyond_reach]
        words += ["unstable"] if self.exploded_x is not None else []
        return ", ".join(words) or "falling"

    @property
    def _beyond_reach(self) -> str:
        if self.best_x == self.largest_x and self.tail_gain.high < 0:
            return "open"
        if self.reach == self.smallest_x:
            return "no gain shown"
        return "undecided" if self.tail_gain.low <= self.whole_gain else "saturated"


def saturation(points: Points, noise: RunNoise, exploded: Iterable[float] = ()) -> Saturation:
    """Where the series stops; a point is better than another where the 95 % interval of their difference excludes 0.

    `exploded` are the x of runs of the series that gave no value.
    """
    x, place, counts = np.unique(points.x, return_inverse=True, return_counts=True)
    means = np.bincount(place, points.y) / counts
    one = np.eye(len(x))
    needed = noise.half_width(one[:, None] - one, counts)
    lowest = np.flatnonzero(means < np.minimum.accumulate(np.append(np.inf, means[:-1])))
    beaten = [i for i in lowest if any(means[i] - means[j] > needed[i, j] for j in lowest[lowest > i])]
    end = int(lowest[lowest > beaten[-1]][0]) if beaten else 0
    per_4x = math.log(4.0) / math.log(x[-1] / x[0]) if len(x) > 1 else math.nan
    return Saturation(
        points.series,
        float(x[end]),
        float(x[np.argmin(means)]),
        float(x[-1]),
        min(exploded, default=None),
        float(x[0]),
        float(means[-1] - means[0]) * per_4x,
        _tail(x, means, counts, noise),
        noise,
    )


def rank(found: Sequence[Saturation]) -> list[Saturation]:
    """The series by the compute up to which they improved; of equals those first that went further."""
    return sorted(found, key=lambda one: (-one.reach, -one.largest_x, one.series))


def deviation_of_threshold(threshold: float) -> float:
    """The deviation of one run under which a difference of two runs counts from `threshold` on."""
    return threshold / (NORMAL * math.sqrt(2.0))


def _tail(
    x: Float[np.ndarray, "sizes"], means: Float[np.ndarray, "sizes"], counts: Int[np.ndarray, "sizes"], noise: RunNoise
) -> Interval:
    logs = np.log(x)
    upper = logs >= min((logs[0] + logs[-1]) / 2, logs[max(len(logs) - 3, 0)])
    runs = np.where(upper, counts, 0)
    centred = logs - np.average(logs, weights=runs)
    spread = float(np.sum(runs * centred**2))
    if spread == 0:
        return Interval(math.nan, math.nan, math.nan)
    weights = math.log(4.0) * runs * centred / spread
    gain, half = float(weights @ means), float(noise.half_width(weights, counts))
    return Interval(gain, gain - half, gain + half)
