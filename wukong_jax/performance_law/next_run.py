"""Which run to make next: the size whose outcome is expected to tell most about the optimum.

The draws of the bootstrap, f_b, stand for what the runs leave possible. A run of size x would measure y = f_s(x) +
noise for some draw s; seeing y, draw b has the weight

    w_b ~ exp(-(y - f_b(x))^2 / 2 sigma^2)

so the spread after the run is known before it, and its mean over hypothetical outcomes y is what a run is judged by:

    regret    E_b[max_z f_b(z)] - max_z E_b[f_b(z)]: what choosing the best size by the mean costs, in the metric
    interval  width of the intervals of ln N* and ln d*, added

No law is fitted anew for an outcome. The value is a comparison of candidates, not a promise.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.noise import Noise
from wukong_jax.performance_law.search import Search

Target = Literal["regret", "interval"]
OUTCOMES = 32
"""Hypothetical outcomes of every candidate."""
MOST_SIZES = 400
"""Sizes, spread over those that may be chosen, that the best one is looked for among."""
MOST_CANDIDATES = 150
WORTH = 1e-3
"""Share of the noise of a run below which the regret is not worth one."""
APART = 1.25
"""Candidates that are shown differ by this factor in depth or in width."""


@dataclasses.dataclass(frozen=True)
class NextRun:
    """Candidates for the next run, the most telling first."""

    target: Target
    layers: Float[np.ndarray, "candidates"]
    dims: Float[np.ndarray, "candidates"]
    expected: Float[np.ndarray, "candidates"]
    """Expected regret, or width of the intervals, after the run."""
    now: float
    """The same before it."""
    sigma: float
    """Standard deviation of one run."""

    @property
    def worthwhile(self) -> bool:
        """Whether there is regret to take away, or a candidate that narrows the intervals."""
        if self.target == "regret":
            return self.now >= WORTH * self.sigma
        return bool(self.expected.min() < self.now * (1 - 1e-6))

    def shown(self, most: int) -> Int[np.ndarray, "some"]:
        """Numbers of the first candidates, without those that are much like one before them."""
        sizes, some = np.log(np.stack([self.layers, self.dims])), [0]
        for number in range(1, len(self.layers)):
            apart = np.abs(sizes[:, some] - sizes[:, [number]]).max(axis=0)
            if np.all(apart > np.log(APART)):
                some.append(number)
        return np.array(some[:most])

    @property
    def reduction(self) -> Float[np.ndarray, "candidates"]:
        """What each run is expected to take from it."""
        return self.now - self.expected


def next_run(
    search: Search,
    layers: Float[np.ndarray, "sizes"],
    dims: Float[np.ndarray, "sizes"],
    noise: Noise,
    *,
    target: Target = "regret",
    candidates: tuple[Float[np.ndarray, "candidates"], Float[np.ndarray, "candidates"]] | None = None,
    seed: int = 0,
) -> NextRun:
    """Judge candidates, by default some of the sizes, for the optimum among those sizes; raises `ConfigError`.

    With a sigma far below the spread of the draws few of them keep any weight, and the comparison gets coarse: fit with
    more draws.
    """
    if noise.sigma <= 0 or not np.isfinite(noise.sigma):
        raise ConfigError(f"sigma: the noise of one run is {noise.sigma:g}, so no outcome can be weighed; give --sigma")
    spread = _spread(len(layers), MOST_SIZES)
    layers, dims = layers[spread], dims[spread]
    if candidates is None:
        some = _spread(len(layers), MOST_CANDIDATES)
        candidates = layers[some], dims[some]
    rng = np.random.default_rng(seed)
    at = search.draws(*candidates)
    count = len(at)
    supposed = rng.integers(0, count, OUTCOMES)
    shocks = noise.sigma * rng.standard_normal(OUTCOMES)  # the same for all candidates, so that they compare
    values = search.draws(layers, dims)
    judge = _Regret(values) if target == "regret" else _Widths(values, layers, dims, search.law.level)
    outcomes = at[supposed].T + shocks
    off = (outcomes[:, :, None] - at.T[:, None]).reshape(-1, count)
    logs = -(off**2) / (2 * noise.sigma**2)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.maximum(judge(weights), 0).reshape(-1, OUTCOMES).mean(axis=1)  # below 0 by rounding alone
    now = max(0.0, float(judge(np.full((1, count), 1 / count))[0]))
    order = np.argsort(expected, kind="stable")
    return NextRun(target, candidates[0][order], candidates[1][order], expected[order], now, noise.sigma)


class _Regret:
    """What the size chosen by the weighted mean of the draws costs, on average over them."""

    def __init__(self, values: Float[np.ndarray, "draws sizes"]) -> None:
        self.centre = values.mean()
        self.values = values - self.centre  # so that no digits are lost in the products
        self.best = self.values.max(axis=1)

    def __call__(self, weights: Float[np.ndarray, "outcomes draws"]) -> Float[np.ndarray, "outcomes"]:
        return weights @ self.best - (weights @ self.values).max(axis=1)


class _Widths:
    """Width of the weighted intervals of ln N* and ln d*."""

    def __init__(
        self,
        values: Float[np.ndarray, "draws sizes"],
        layers: Float[np.ndarray, "sizes"],
        dims: Float[np.ndarray, "sizes"],
        level: float,
    ) -> None:
        best = values.argmax(axis=1)
        self.level = level
        self.logs = [np.log(axis[best]) for axis in (layers, dims)]
        self.orders: list[Int[np.ndarray, draws]] = [np.argsort(logs, kind="stable") for logs in self.logs]

    def __call__(self, weights: Float[np.ndarray, "outcomes draws"]) -> Float[np.ndarray, "outcomes"]:
        total = np.zeros(len(weights))
        for logs, order in zip(self.logs, self.orders, strict=True):
            share = np.cumsum(weights[:, order], axis=1)
            low, high = (
                np.minimum((share < part).sum(axis=1), len(order) - 1)
                for part in ((1 - self.level) / 2, (1 + self.level) / 2)
            )
            total += logs[order][high] - logs[order][low]
        return total


def _spread(count: int, most: int) -> Int[np.ndarray, "some"]:
    """Numbers of at most so many of `count` things, evenly through their order."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
