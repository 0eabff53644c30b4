"""A fitted law as a search sees it: the higher the better, with every draw of its bootstrap."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.budgets import Budget
from wukong_jax.performance_law.lattice import Lattice, Measured
from wukong_jax.performance_law.noise import Law
from wukong_jax.scaling.bootstrap import Interval, interval

CHUNK = 4_000_000
"""Predictions of draws held at a time."""


@dataclasses.dataclass(frozen=True)
class Search:
    """A law with the panel and the amount of data that a question is about."""

    law: Law
    panel: int = 0
    data: float | None = None

    @property
    def measured(self) -> Measured:
        """The sizes that were measured in the panel."""
        runs = self.law.runs
        own = runs.panel == self.panel
        inside = True
        if runs.data is not None and self.data is not None:
            low, high = runs.data[own].min(), runs.data[own].max()
            inside = bool(low * (1 - 1e-9) <= self.data <= high * (1 + 1e-9))
        return Measured(runs.layers[own], runs.dim[own], inside)

    @property
    def sign(self) -> float:
        """1 for a metric that rises as models get better, -1 for a loss."""
        return 1.0 if self.law.runs.rising else -1.0

    @functools.cached_property
    def count(self) -> int:
        """How many draws there are."""
        return len(self.draws(np.ones(1), np.ones(1)))

    def goodness(
        self, layers: Float[np.ndarray, "sizes"], dims: Float[np.ndarray, "sizes"]
    ) -> Float[np.ndarray, "sizes"]:
        """The law's metric, negated for a loss."""
        return self.sign * self.law.predict(layers, dims, panel=self.panel, data=self.data)

    def draws(
        self, layers: Float[np.ndarray, "sizes"], dims: Float[np.ndarray, "sizes"]
    ) -> Float[np.ndarray, "draws sizes"]:
        """The same of every draw."""
        return self.sign * self.law.predict_draws(layers, dims, panel=self.panel, data=self.data)

    def parts(
        self, layers: Float[np.ndarray, "sizes"], dims: Float[np.ndarray, "sizes"]
    ) -> Iterator[tuple[int, Float[np.ndarray, "draws part"]]]:
        """The draws of some sizes after the others, so that memory is bounded: first size, and their values."""
        step = max(1, CHUNK // self.count)
        for start in range(0, len(layers), step):
            yield start, self.draws(layers[start : start + step], dims[start : start + step])

    def best_of_draws(
        self, layers: Float[np.ndarray, "sizes"], dims: Float[np.ndarray, "sizes"]
    ) -> tuple[Float[np.ndarray, "draws"], Int[np.ndarray, "draws"]]:
        """The best goodness of each draw, and the number of the size that has it."""
        best, place = np.zeros(0), np.zeros(0, int)
        for start, values in self.parts(layers, dims):
            found = values.argmax(axis=1)
            value = values[np.arange(len(values)), found]
            if start == 0:
                best, place = value, found
            else:
                place = np.where(value > best, start + found, place)
                best = np.maximum(best, value)
        return best, place

    def value(self, layers: float, dim: float) -> Interval:
        """The metric of one size with its interval."""
        at = np.array([layers], float), np.array([dim], float)
        return interval(self.sign * float(self.goodness(*at)[0]), self.sign * self.draws(*at)[:, 0], self.law.level)


def keeps(
    budgets: Sequence[Budget], layers: Float[np.ndarray, "sizes"], dims: Float[np.ndarray, "sizes"]
) -> Bool[np.ndarray, "sizes"]:
    """Which sizes keep to all budgets."""
    kept = np.ones(len(layers), bool)
    for budget in budgets:
        kept &= budget.allows(layers, dims)
    return kept


def allowed(
    lattice: Lattice, budgets: Sequence[Budget]
) -> tuple[Float[np.ndarray, "sizes"], Float[np.ndarray, "sizes"]]:
    """The sizes of the lattice that keep to the budgets; raises `ConfigError` where none does."""
    layers, dims = (axis.reshape(-1) for axis in lattice.pairs())
    for budget in budgets:
        cost = budget.cost(layers, dims)
        least = int(np.argmin(cost))
        if cost[least] > budget.limit:
            raise ConfigError(
                f"budget of {budget.name}: received {budget.limit:,.6g}, but the smallest model that is searched, N = "
                f"{layers[least]:g}, d = {dims[least]:g}, costs {cost[least]:,.6g}; give more, or search smaller "
                "models (--layers-range, --dim-range)"
            )
    kept = keeps(budgets, layers, dims)
    if not kept.any():
        names = " and ".join(budget.name for budget in budgets)
        raise ConfigError(f"budgets of {names}: no size that is searched keeps to all of them; give more of one")
    return layers[kept], dims[kept]
