"""The noise of one run, and what a gain that a law promises is worth beside it."""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from numpy import ndarray

from wukong_jax.config.checks import check_positive
from wukong_jax.performance_law.answers import interval_text
from wukong_jax.performance_law.fit import Quality
from wukong_jax.performance_law.runs import Runs
from wukong_jax.scaling.bootstrap import Interval

CLEAR = 1.96
"""Standard errors from which on a difference counts."""


@runtime_checkable
class Law(Protocol):
    """What a search needs of a fitted law; every form of it has that."""

    @property
    def runs(self) -> Runs:
        """The runs that it was fitted to."""

    @property
    def level(self) -> float:
        """Level of the intervals."""

    @property
    def quality(self) -> Quality:
        """How well it fits them."""

    def predict(self, layers: Any, dim: Any, *, panel: int | str = 0, data: Any = None) -> Float[ndarray, "*shape"]:
        """The metric of the sizes; layers and dim broadcast."""

    def predict_draws(
        self, layers: Any, dim: Any, *, panel: int | str = 0, data: Any = None
    ) -> Float[ndarray, "draws *shape"]:
        """The same for each draw of the bootstrap."""


class Noise(NamedTuple):
    """Standard deviation of one run's metric."""

    sigma: float
    source: str
    """Where it comes from, in words."""


def noise_of(law: Law, sigma: float | None = None) -> Noise:
    """The given deviation of a run, else that between runs of one size, else that of the law's residuals.

    The residuals hold the law's own error as well, so that the last is rather too large than too small.
    """
    if sigma is not None:
        check_positive("--sigma", sigma)
        return Noise(sigma, "given")
    repeated = law.runs.seed_deviation
    if repeated is not None and repeated > 0:
        return Noise(repeated, "from the repeated runs")
    return Noise(law.quality.deviation, "from the residuals of the law, as no run is repeated")


class Promise(NamedTuple):
    """What the law says that its best size is better by than the best measured one; better is above 0."""

    measured: float
    """Mean metric of the best measured size."""
    layers: float
    dim: float
    repeats: int
    """Runs of that size."""
    affordable: bool
    """Whether that size keeps to the budgets; if not, no measured one does."""
    same_data: bool
    """Whether it had the amount of data that is asked about; if not, no measured one had."""
    gain: Interval
    """Promised metric against the measured one."""
    gain_by_law: Interval
    """Promised metric against what the law itself says of the best measured size."""
    noise: Noise

    @property
    def error(self) -> float:
        """Standard error of the difference between one new run and the measured mean."""
        return self.noise.sigma * math.sqrt(1 + 1 / self.repeats)

    @property
    def verdict(self) -> str:
        """The gain beside the noise, in words."""
        if not self.affordable:
            return "it is no measure of what the budget leaves"
        if not self.same_data:
            return "it had other data, so that only the law's own value there can be compared"
        if self.gain.value <= 0:
            return "no gain is promised over it"
        if self.gain.value < self.error:
            return "less than the noise of such a comparison, so no better model is promised"
        if self.gain.value < CLEAR * self.error:
            return "about the noise of such a comparison: one run of each would hardly show it"
        return "more than the noise of such a comparison"

    @property
    def text(self) -> str:
        """Gain, noise and verdict as sentences."""
        which = "" if self.affordable else " (no measured size keeps to the budget)"
        which += "" if self.same_data else " (none was measured with this D')"
        return (
            f"The best measured size{which} is N = {self.layers:g}, d = {self.dim:g} with {self.measured:.5g} "
            f"({self.repeats} run{'s' * (self.repeats > 1)}). The gain promised over it is "
            f"{interval_text(self.gain, 3)}; over the law's own value there, {interval_text(self.gain_by_law, 3)}. The "
            f"noise of one run is {self.noise.sigma:.3g} ({self.noise.source}), that of comparing a new run with that "
            f"size {self.error:.3g}: {self.verdict}."
        )
