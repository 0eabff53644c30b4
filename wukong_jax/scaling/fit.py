"""One law fitted to one series: parameters with intervals, and how far the fit can be trusted."""

import dataclasses
import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.scaling.bootstrap import Interval, Noise, choose_noise, interval, redraw
from wukong_jax.scaling.laws import Law, huber_of_logs, law_named
from wukong_jax.scaling.points import Points
from wukong_jax.scaling.variable_projection import Separable, Solution, Solver, least_squares, search, unidentified

Loss = Literal["squares", "huber"]
BOOTSTRAP_ROUNDS, HUBER_ROUNDS = 12, 24
LEAST_POINTS = 3


class Diagnostics(NamedTuple):
    """How well a law fits its points and predicts others; in the units of the metric, NaN where undefined."""

    rmse: float
    r2: float
    """1 - SSE / SST over the runs."""
    aicc: float
    """n ln(SSE / n) + 2 k + 2 k (k + 1) / (n - k - 1), k the parameters and the noise; compare within one series."""
    loo_rmse: float
    """Error at each point from the others, all its runs left out together."""
    extrapolation: float
    """Fitted on the smaller two thirds of the points: prediction minus mean value at the largest."""
    unidentified: tuple[str, ...]
    """Parameters that the points do not determine."""
    at_bound: tuple[str, ...]
    """Exponents at the end of the searched range."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted law; its curve with `predict`, the interval of the curve with `band`."""

    points: Points
    law: Law
    loss: Loss
    level: float
    noise: Noise
    parameters: dict[str, Interval]
    draws: Float[np.ndarray, "draws parameters"]
    """Parameters of the bootstrap's fits, in the order of `law.parameters`."""
    diagnostics: Diagnostics

    def predict(self, *inputs: Float[np.ndarray, "at"]) -> Float[np.ndarray, "at"]:
        """The law's value at x, or at (N, D)."""
        best = np.array([[found.value for found in self.parameters.values()]])
        return self.law.predict(best, np.stack(inputs), known_part(self.law, self.points))[0]

    def band(self, *inputs: Float[np.ndarray, "at"]) -> tuple[Float[np.ndarray, "at"], Float[np.ndarray, "at"]]:
        """Lower and upper end of the interval of the curve; it holds the curve, not single runs."""
        values = self.law.predict(self.draws, np.stack(inputs), known_part(self.law, self.points))
        low, high = np.quantile(values, [(1 - self.level) / 2, (1 + self.level) / 2], axis=0)
        return low, high

    @property
    def origin(self) -> float:
        """What the law's formula is added to: the points' origin where the law has no constant of its own, else 0."""
        return 0.0 if self.law.has_constant or self.law.from_floor else self.points.origin

    def gain(self, factor: float = 4.0) -> Interval:
        """Change of the metric from the largest x / factor to the largest x; negative is better."""
        ends = np.array([self.points.x.max() / factor, self.points.x.max()])[None]
        values = self.law.predict(self.draws, ends, known_part(self.law, self.points))
        best = self.predict(ends[0])
        return interval(float(best[1] - best[0]), values[:, 1] - values[:, 0], self.level)


def fit_series(
    points: Points,
    form: str,
    *,
    loss: Loss = "squares",
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Fitted:
    """Fit one form to one series; raises `DataError` or `ConfigError` where points, form and loss do not fit.

    `squares` minimises the squared error of the metric; `huber` Huber's loss (delta 1e-3) of the error of its
    logarithm, which outliers hardly move. Both over all exponents of a dense grid, by variable projection.
    """
    law = law_named(form)
    check_fit(points, law)
    check_bootstrap(draws, level)
    problem = Problem(points, law, loss)
    solution = problem.solve(problem.targets[None])
    redrawn = problem.redraw(solution, draws, np.random.default_rng(seed))
    boot = problem.solve_again(redrawn, solution)
    best, drawn = problem.natural(solution)[0], problem.natural(boot)
    intervals = {name: interval(float(best[k]), drawn[:, k], level) for k, name in enumerate(law.parameters)}
    return Fitted(points, law, loss, level, problem.noise, intervals, drawn, _diagnostics(problem, solution))


def check_fit(points: Points, law: Law) -> None:
    """Raise `DataError` unless the points can determine the law, with at least one left for the noise."""
    where = f"series {points.series!r}, form {law.name}"
    if law.variables != len(points.inputs):
        raise DataError(f"{where}: takes {law.variables} input(s), the points have {len(points.inputs)}")
    for values in points.inputs:
        distinct = len(np.unique(values))
        if distinct < LEAST_POINTS:
            raise DataError(f"{where}: {distinct} distinct x, expected at least {LEAST_POINTS}; run more sizes")
    parameters = len(law.parameters)
    if len(points.y) <= parameters or points.groups.max() + 1 < parameters:
        raise DataError(
            f"{where}: {len(points.y)} runs of {points.groups.max() + 1} points for {parameters} parameters, expected "
            f"at least {parameters + 1} runs of {parameters} points; run more sizes or choose a form with fewer"
        )
    if law.from_floor:
        if points.floor is None:
            raise DataError(f"{where}: the floor is not known; give it with --floor, or choose the form saturating")
        if points.y.min() <= points.floor:
            raise DataError(
                f"{where}: a value is {points.y.min():g}, not above the floor {points.floor:g}; give a lower floor, or "
                "choose the form saturating"
            )


def check_bootstrap(draws: int, level: float) -> None:
    """Raise `ConfigError` unless the interval can be taken from so many draws."""
    if not 0.5 <= level < 1:
        raise ConfigError(f"level: received {level}, expected at least 0.5 and below 1")
    least = math.ceil(10 / (1 - level))
    if draws < least:
        raise ConfigError(f"draws: received {draws}, expected at least {least} for intervals of level {level}")


def known_part(law: Law, points: Points) -> float:
    """The constant of a law that fits none, and the least that one may fit: the floor where it is known, or the origin.

    A power law without a constant falls to the origin whatever the floor is: that is what it says.
    """
    bounded = law.from_floor or law.has_constant
    return points.floor if bounded and points.floor is not None else points.origin


class Problem:
    """The numerical problem of one law and one series, its targets without what is known."""

    def __init__(self, points: Points, law: Law, loss: Loss) -> None:
        self.points, self.law, self.loss = points, law, loss
        self.model: Separable = law.separable(points.inputs)
        self.known = known_part(law, points)
        self.targets = points.y - self.known
        self.noise = choose_noise(points.groups, robust=loss == "huber")
        self.squares: Solver = least_squares(self.model.nonnegative)
        # logarithms are those of the metric above its origin, whatever part of it the law knows
        self.above_origin = self.known - points.origin
        self.solver = self.squares
        if loss == "huber":
            self.solver = huber_of_logs(self.model.nonnegative, self.above_origin)

    def solve(
        self,
        targets: Float[np.ndarray, "problems points"],
        weights: Float[np.ndarray, "problems points"] | None = None,
    ) -> Solution:
        """The optimum of each set of targets, searched on the whole grid."""
        return search(self.model, targets, weights, solver=self.solver)

    def solve_again(self, targets: Float[np.ndarray, "problems points"], known: Solution) -> Solution:
        """The optimum of each redrawn set of targets; with Huber's loss, which is slow, from a known solution on."""
        if self.loss == "squares":
            return search(self.model, targets, solver=self.solver, rounds=BOOTSTRAP_ROUNDS)
        starts = known.nonlinear.repeat(len(targets), axis=0)
        return search(self.model, targets, solver=self.solver, starts=starts, rounds=HUBER_ROUNDS)

    def fitted(self, solution: Solution) -> Float[np.ndarray, "problems points"]:
        """What each solution predicts for the targets."""
        return np.einsum("bp,bpn->bn", solution.linear, self.model.design(solution.nonlinear))

    def natural(self, solution: Solution) -> Float[np.ndarray, "problems parameters"]:
        """The law's own parameters of each solution."""
        return self.law.natural(self.points.inputs, solution.nonlinear, solution.linear, self.known)

    def redraw(self, solution: Solution, size: int, rng: np.random.Generator) -> Float[np.ndarray, "size points"]:
        """Sets of targets drawn from the first solution and its noise."""
        fit = self.fitted(solution)[0] + self.above_origin
        count = len(self.law.parameters)
        drawn = redraw(self.noise, fit, self.targets + self.above_origin, self.points.groups, count, size, rng)
        if self.loss == "huber":
            drawn = np.maximum(drawn, 1e-6 * fit)
        return drawn - self.above_origin


def _diagnostics(problem: Problem, solution: Solution) -> Diagnostics:
    points, law = problem.points, problem.law
    residuals = problem.targets - problem.fitted(solution)[0]
    count, squares = len(residuals), float(residuals @ residuals)
    total = float(np.sum((points.y - points.y.mean()) ** 2))
    k = len(law.parameters) + 1
    defined = count > k + 1 and squares > 0
    aicc = count * math.log(squares / count) + 2 * k + 2 * k * (k + 1) / (count - k - 1) if defined else math.nan
    return Diagnostics(
        math.sqrt(squares / count),
        1 - squares / total if total > 0 else math.nan,
        aicc,
        _leave_one_out(problem, solution),
        _extrapolation(problem),
        unidentified(problem.model, solution.nonlinear[0], solution.linear[0]),
        tuple(name for name, bound in zip(problem.model.nonlinear, solution.at_bound[0], strict=True) if bound),
    )


def _leave_one_out(problem: Problem, solution: Solution) -> float:
    groups = problem.points.groups
    count = groups.max() + 1
    if count - 1 < len(problem.law.parameters):
        return math.nan
    weights = (groups[None] != np.arange(count)[:, None]).astype(float)
    left_out = problem.solve(np.tile(problem.targets, (count, 1)), weights)
    errors = problem.fitted(left_out)[groups, np.arange(len(groups))] - problem.targets
    return float(np.sqrt(np.mean(errors**2)))


def _extrapolation(problem: Problem) -> float:
    """Only for laws of one variable: a grid of two has no one largest point."""
    if problem.law.variables > 1:
        return math.nan
    groups = problem.points.groups
    count = int(groups.max()) + 1
    small = groups < max(len(problem.law.parameters), math.ceil(2 * count / 3))
    if small.all():
        return math.nan
    solution = problem.solve(problem.targets[None], small[None].astype(float))
    largest = groups == count - 1
    return float(np.mean(problem.fitted(solution)[0, largest] - problem.targets[largest]))
