"""The noise of single runs at each size, and what it makes of differences of means and of slopes.

One standard deviation for all sizes, pooled over the seeds; where Bartlett's test rejects that (5 %), each its own, so
that a size at which seeds scatter does not hide what the others show, and a quiet one proves nothing for them.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Int

QUANTILE = 0.975
NORMAL = float(scipy.special.ndtri(QUANTILE))
"""Standard errors of half a 95 % interval."""
REJECTED = 0.05


class RunNoise(NamedTuple):
    """Standard deviation of one run at each size, in rising order of x, and how well it is known."""

    deviation: Float[np.ndarray, "sizes"]
    freedom: Float[np.ndarray, "sizes"]
    """Degrees of freedom of each deviation; infinite where it was given."""
    shared: bool
    """Whether it is one deviation for all sizes."""

    def half_width(self, weights: Float[np.ndarray, "*batch sizes"], counts: Int[np.ndarray, "sizes"]) -> np.ndarray:
        """Half of the 95 % interval of sum_i w_i mean_i, mean_i that of the runs of size i.

        Student's t with Welch's and Satterthwaite's degrees of freedom; of a shared deviation with its own.
        """
        parts = np.square(weights) * self.deviation**2 / counts
        total = parts.sum(axis=-1)
        freedom = np.full(total.shape, self.freedom[0])
        if not self.shared:
            spread = np.sum(np.square(parts) / self.freedom, axis=-1)
            freedom = np.divide(total**2, spread, out=np.full(total.shape, np.inf), where=spread > 0)
        students = scipy.special.stdtrit(np.where(np.isinf(freedom), 1.0, freedom), QUANTILE)
        quantile = np.where(np.isinf(freedom), NORMAL, students)
        return np.asarray(quantile * np.sqrt(total))


def given_noise(deviation: float, sizes: int, freedom: int | float = math.inf) -> RunNoise:
    """One deviation for all sizes."""
    return RunNoise(np.full(sizes, deviation), np.full(sizes, freedom), True)


def noise_of_seeds(y: Float[np.ndarray, "runs"], groups: Int[np.ndarray, "runs"]) -> RunNoise | None:
    """From runs of equal sizes, numbered by `groups`; None where no size was run twice."""
    counts = np.bincount(groups)
    means = np.bincount(groups, y) / counts
    squares = np.bincount(groups, (y - means[groups]) ** 2)
    repeated = counts > 1
    spare = counts[repeated] - 1
    if not repeated.any():
        return None
    pooled = float(np.sqrt(squares.sum() / spare.sum()))
    if not _differ(squares[repeated] / spare, spare):
        return given_noise(pooled, len(counts), float(spare.sum()))
    deviation, freedom = np.full(len(counts), pooled), np.full(len(counts), float(spare.sum()))
    deviation[repeated] = np.sqrt(squares[repeated] / spare)
    freedom[repeated] = spare
    return RunNoise(deviation, freedom, False)


def _differ(variances: Float[np.ndarray, "sizes"], freedom: Int[np.ndarray, "sizes"]) -> bool:
    """Bartlett's test; variances of exactly 0 are rounded values' and tell nothing."""
    if len(variances) < 2 or variances.min() <= 0:
        return False
    total = freedom.sum()
    pooled = np.sum(freedom * variances) / total
    statistic = total * np.log(pooled) - np.sum(freedom * np.log(variances))
    correction = 1 + (np.sum(1 / freedom) - 1 / total) / (3 * (len(variances) - 1))
    return bool(scipy.special.chdtrc(len(variances) - 1, statistic / correction) < REJECTED)
