"""The runs that a performance law is fitted to: depth, width and metric of each, one row a run."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.performance_law.metric_names import possible_range
from wukong_jax.scaling.points import Points, seed_deviation

ONE_PANEL = "all"


LARGEST_SIZE, LARGEST_METRIC = 1e9, 1e30
"""Beyond these squares and products leave what floats hold."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A run without a value, and why."""

    where: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Runs:
    """Finished runs; raises `DataError` where a number cannot be used or all runs have the same value.

    A panel is a set of runs with a constant of its own, such as a data set at one sequence length.
    """

    metric: str
    rising: bool
    """Whether the metric rises as a model gets better; a loss falls."""
    layers: Float[np.ndarray, "runs"]
    dim: Float[np.ndarray, "runs"]
    y: Float[np.ndarray, "runs"]
    """The metric as it was measured."""
    panel: Int[np.ndarray, "runs"]
    """Number of each run's panel."""
    panels: tuple[str, ...] = (ONE_PANEL,)
    data: Float[np.ndarray, "runs"] | None = None
    """The data term's D': tokens weighted by the quality of the data."""
    seeds: Int[np.ndarray, "runs"] | None = None
    """For the reader; runs of equal layers, dim, panel and data are taken for repetitions."""
    left_out: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not len(self.y):
            raise DataError(f"{self.metric}: no run has a value, so there is nothing to fit")
        named = {"layers": self.layers, "dim": self.dim} | ({} if self.data is None else {"data": self.data})
        for name, values in named.items():
            if not np.all(np.isfinite(values)) or values.min() <= 0:
                raise DataError(f"{name}: received {values.min():g}, expected numbers above 0, as laws take logarithms")
        for name, values in (("layers", self.layers), ("dim", self.dim)):
            if values.max() > LARGEST_SIZE:
                raise DataError(f"{name}: received {values.max():g}, expected at most {LARGEST_SIZE:g}")
        if not np.all(np.isfinite(self.y)):
            raise DataError(f"{self.metric}: holds NaN or infinity; leave out the runs that diverged")
        largest = np.abs(self.y).max()
        if largest > LARGEST_METRIC or 0 < largest < 1 / LARGEST_METRIC:
            raise DataError(
                f"{self.metric}: the largest value is {largest:g} in size, expected {1 / LARGEST_METRIC:g} to "
                f"{LARGEST_METRIC:g}; give it in another unit"
            )
        if self.panel.min() < 0 or self.panel.max() >= len(self.panels):
            raise DataError(f"panel: numbers up to {self.panel.max()} for {len(self.panels)} panels")

    @property
    def goodness(self) -> Float[np.ndarray, "runs"]:
        """The metric, negated where it falls as a model gets better."""
        return self.y if self.rising else -self.y

    def possible(self, value: float) -> bool:
        """Whether the metric can have that value: a hit rate lies between 0 and 1, a loss is not below 0."""
        low, high = possible_range(self.metric, float(self.y.min()), float(self.y.max()))
        return low <= value <= high

    @property
    def groups(self) -> Int[np.ndarray, "runs"]:
        """The number of each run's point: repetitions have the same."""
        return self._points.groups

    @property
    def seed_deviation(self) -> float | None:
        """Pooled standard deviation between the repetitions of a point; None where no point was run twice."""
        return seed_deviation(self._points)

    @property
    def _points(self) -> Points:
        data = np.ones_like(self.layers) if self.data is None else self.data
        inputs = np.stack([self.panel + 1.0, self.layers, self.dim, data])
        return Points(self.metric, inputs, self.y, origin=-math.inf)

    def panel_number(self, panel: str | int) -> int:
        """The number of a panel given by name or number; raises `ConfigError`."""
        if isinstance(panel, str) and panel in self.panels:
            return self.panels.index(panel)
        if not isinstance(panel, str) and 0 <= panel < len(self.panels):
            return int(panel)
        raise ConfigError(f"panel: received {panel!r}, expected one of {', '.join(map(repr, self.panels))}")

    def only(self, panel: str | int) -> "Runs":
        """The runs of one panel."""
        number = self.panel_number(panel)
        kept = self.subset(self.panel == number)
        return dataclasses.replace(kept, panel=np.zeros_like(kept.panel), panels=(self.panels[number],))

    def subset(self, kept: Bool[np.ndarray, "runs"]) -> "Runs":
        """The runs that a mask keeps; all panels keep their numbers."""
        return dataclasses.replace(
            self,
            layers=self.layers[kept],
            dim=self.dim[kept],
            y=self.y[kept],
            panel=self.panel[kept],
            data=None if self.data is None else self.data[kept],
            seeds=None if self.seeds is None else self.seeds[kept],
        )
