"""The points that a law is fitted to: one series of runs, its inputs and its metric."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from wukong_jax.errors import DataError

RELATIVE_ORIGIN = -100.0
"""Relative LogLoss in percent, 100 (L / L_base - 1), of a LogLoss of zero: where the paper's law starts."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Runs of one series, those of equal inputs taken for repetitions; the metric gets better as it falls.

    Raises `DataError` where an input is not positive, a value is not finite or not above the origin.
    """

    series: str
    inputs: Float[np.ndarray, "variables points"]
    """Compute per example; for a joint law also the examples trained on, in this order."""
    y: Float[np.ndarray, "points"]
    origin: float = 0.0
    """Value of the metric for a LogLoss of zero: 0, or -100 for relative LogLoss in percent."""
    floor: float | None = None
    """The best possible value, where it is known."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        where = f"series {self.series!r}"
        for name, values in (("inputs", self.inputs), ("values", self.y)):
            if not np.all(np.isfinite(values)):
                raise DataError(f"{where}: {name} hold NaN or infinity; leave out the runs that exploded")
        if self.inputs.size and self.inputs.min() <= 0:
            raise DataError(f"{where}: an input is {self.inputs.min():g}, expected numbers above 0, as laws take logs")
        if self.y.size and self.y.min() <= self.origin:
            mend = "; relative LogLoss in percent needs the origin -100 (--relative)" if self.origin == 0 else ""
            raise DataError(f"{where}: a value is {self.y.min():g}, expected values above {self.origin:g}{mend}")

    @property
    def x(self) -> Float[np.ndarray, "points"]:
        """The first input."""
        return self.inputs[0]

    @property
    def groups(self) -> Int[np.ndarray, "points"]:
        """The number of each run's point: runs of equal inputs have the same; in order of the inputs."""
        return np.unique(self.inputs, axis=1, return_inverse=True)[1].reshape(-1)

    def subset(self, kept: np.ndarray) -> "Points":
        """The runs that a mask keeps."""
        return dataclasses.replace(self, inputs=self.inputs[:, kept], y=self.y[kept])


def curve(
    series: str,
    x: Float[np.ndarray, "points"],
    y: Float[np.ndarray, "points"],
    *,
    origin: float = 0.0,
    floor: float | None = None,
) -> Points:
    """Points of a law in one variable."""
    return Points(series, x[None], y, origin=origin, floor=floor)


def seed_deviation(points: Points) -> float | None:
    """Pooled standard deviation between runs of equal inputs; None where no point was run twice."""
    groups = points.groups
    counts = np.bincount(groups)
    spare = int(np.sum(counts - 1))
    if spare < 1:
        return None
    means = np.bincount(groups, points.y) / counts
    return float(np.sqrt(np.sum((points.y - means[groups]) ** 2) / spare))
