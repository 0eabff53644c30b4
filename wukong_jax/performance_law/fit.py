"""One form of the performance law fitted to runs: parameters with intervals, and how far the fit can be trusted."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.determined import undetermined
from wukong_jax.performance_law.held_out import HeldOut, leave_one_out, small_to_large
from wukong_jax.performance_law.law import Form, Law, data_freedom, form_named, p1_of
from wukong_jax.performance_law.problem import Problem
from wukong_jax.performance_law.runs import Runs
from wukong_jax.scaling.bootstrap import Interval, interval
from wukong_jax.scaling.fit import check_bootstrap
from wukong_jax.scaling.variable_projection import Solution

NORMALISATION = (
    "w1 and w2 weigh blocks -(t + p1 e^-t), t = w3 ln N or w4 ln d, whose one maximum is -(1 + ln p1) whatever w3 and "
    "w4 are; they are in units of the metric and can be compared between fits of one p1"
)
UNDEFINED = Interval(math.nan, math.nan, math.nan)


class Quality(NamedTuple):
    """How well a law fits its runs and predicts others; in the units of the metric, NaN where undefined."""

    r2: float
    """1 - SSE / SST over all runs, as the paper has it."""
    adjusted_r2: float
    """1 - (SSE / (n - p)) / (SST / (n - 1)), p the free parameters."""
    mae: float
    rmse: float
    """sqrt(SSE / n)."""
    deviation: float
    """sqrt(SSE / (n - p)): the size of the noise, if the form is right."""
    loo_rmse: float
    """Error at each point from the others, all its runs left out together and everything fitted anew."""
    held_out: HeldOut | None
    """Large runs predicted from small ones."""
    panel_r2: dict[str, float]
    """1 - SSE / SST over the runs of each panel, by its name."""


class Optimum(NamedTuple):
    """Depth and width where the law is highest, of any size; None where it is highest at no finite size, and why."""

    layers: Interval | None
    dim: Interval | None
    reason: dict[str, str]
    """By axis (layers, dim), for those without an optimum."""


class ScalingPotential(NamedTuple):
    """The paper's scaling potential of a backbone: weights of the depth and of the width term."""

    w1: Interval
    w2: Interval
    normalisation: str


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted law. Its parameters are those of the goodness: of the metric, or of minus a metric that falls."""

    runs: Runs
    law: Law
    p1: float | None
    level: float
    parameters: dict[str, Interval]
    """By name; NaN for those that the runs do not determine."""
    unidentified: tuple[str, ...]
    notes: tuple[str, ...]
    """What a reader of the numbers must know, in sentences."""
    quality: Quality
    exponents: Float[np.ndarray, "fits nonlinear"]
    """Of the fit (first) and of the bootstrap's fits, for the columns of `law`."""
    linear: Float[np.ndarray, "fits columns"]

    @property
    def form(self) -> Form:
        """The form."""
        return self.law.form

    @property
    def has_data_term(self) -> bool:
        """Whether D' enters."""
        return len(self.law.terms) > 2

    def predict(
        self,
        layers: Num[np.ndarray, "*a"] | float | int,
        dim: Num[np.ndarray, "*b"] | float | int,
        *,
        panel: int | str = 0,
        data: Num[np.ndarray, "*c"] | float | int | None = None,
    ) -> Float[np.ndarray, "*shape"]:
        """The metric at depths and widths that broadcast; raises `ConfigError` for an unknown panel or missing D'."""
        return np.asarray(self._values(slice(0, 1), layers, dim, panel, data)[0])

    def predict_draws(
        self,
        layers: Num[np.ndarray, "*a"] | float | int,
        dim: Num[np.ndarray, "*b"] | float | int,
        *,
        panel: int | str = 0,
        data: Num[np.ndarray, "*c"] | float | int | None = None,
    ) -> Float[np.ndarray, "draws *shape"]:
        """The same for each fit of the bootstrap: the curve's uncertainty, without the noise of a single run."""
        return self._values(slice(1, None), layers, dim, panel, data)

    def closed_form_optimum(self) -> Optimum:
        """The maximum of each term, for forms that separate; bootstrap draws without one count as 0 or infinite.

        released: p1^(1/w3) where w1 > 0; performance-law: (p1 w3)^(1/w3) where w1 p1 < 0; quadratic: exp(-a1 / (2 a2))
        where a2 < 0. Raises `ConfigError` for a form with interaction.
        """
        if self.form.interaction:
            raise ConfigError(f"form {self.form.name}: depth and width interact, so search for the optimum")
        found: dict[str, Interval | None] = {"layers": None, "dim": None}
        reason = {}
        for term, exponent, coefficients in self.law.split(self.exponents, self.linear)[:2]:
            tops = term.maximum(exponent, coefficients)
            if term.exponent is not None and term.at_limit(exponent)[0]:
                reason[term.variable] = f"no maximum: the term is at its limit, {term.limit(float(exponent[0]))}"
            elif np.isfinite(tops[0]):
                with np.errstate(over="ignore"):
                    sizes = np.exp(tops)
                found[term.variable] = interval(float(sizes[0]), sizes[1:], self.level)
            else:
                side = "rises" if tops[0] > 0 else "falls"
                reason[term.variable] = f"no maximum: the term {side} with {term.variable} and does not turn"
        return Optimum(found["layers"], found["dim"], reason)

    def scaling_potential(self) -> ScalingPotential:
        """w1 and w2 of the released form; raises `ConfigError` for others, whose weights mean something else."""
        if self.form.kind != "released":
            raise ConfigError(f"scaling potential: received the form {self.form.name}, expected released")
        return ScalingPotential(self.parameters["w1"], self.parameters["w2"], NORMALISATION)

    def _values(
        self,
        fits: slice,
        layers: Num[np.ndarray, "*a"] | float | int,
        dim: Num[np.ndarray, "*b"] | float | int,
        panel: int | str,
        data: Num[np.ndarray, "*c"] | float | int | None,
    ) -> Float[np.ndarray, "fits *shape"]:
        number = self.runs.panel_number(panel)
        inputs = [np.asarray(layers, float), np.asarray(dim, float)]
        if self.has_data_term:
            inputs.append(np.asarray(self._data_of(number) if data is None else data, float))
        for term, values in zip(self.law.terms, inputs, strict=True):
            if values.size and not (np.all(np.isfinite(values)) and values.min() > 0):
                raise ConfigError(f"{term.variable}: received {values.min():g}, expected finite numbers above 0")
        flat = np.broadcast_arrays(*inputs)
        points = np.stack([values.ravel() for values in flat])
        panels = np.full(points.shape[1], number)
        goodness = self.law.values(self.exponents[fits], self.linear[fits], points, panels)
        return (goodness if self.runs.rising else -goodness).reshape(-1, *flat[0].shape)

    def _data_of(self, panel: int) -> float:
        assert self.runs.data is not None
        values = np.unique(self.runs.data[self.runs.panel == panel])
        if len(values) != 1:
            raise ConfigError(
                f"data: panel {self.runs.panels[panel]!r} has {len(values)} values of D', give the one to predict for"
            )
        return float(values[0])


def fit(
    runs: Runs, form: str, *, p1: float | None = None, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Fitted:
    """Fit one form by least squares of the metric; raises `DataError` or `ConfigError` where runs and form do not fit.

    Exponents are searched on a dense grid by variable projection, so that no start decides. Intervals: runs resampled
    within points where each has 5 seeds or more, else noise of uncertain size drawn anew around the fit.
    """
    check_bootstrap(draws, level)
    problem = Problem(runs, form_named(form), p1)
    solution = problem.solve()
    boot = problem.solve_again(problem.redraw(solution, draws, np.random.default_rng(seed)), solution)
    law = problem.law
    loose, limit_notes = undetermined(problem, solution, boot, level)
    drawn = law.natural(boot.nonlinear, boot.linear)
    best = law.natural(solution.nonlinear, solution.linear)[0]
    parameters = {
        name: UNDEFINED if name in loose else interval(float(best[k]), drawn[:, k], level)
        for k, name in enumerate(law.parameters)
    }
    quality, notes = _quality(problem, solution)
    return Fitted(
        runs,
        law,
        p1_of(law.form, p1),
        level,
        parameters,
        loose,
        (*_data_notes(runs, law), *limit_notes, *notes),
        quality,
        np.concatenate([solution.nonlinear, boot.nonlinear]),
        np.concatenate([solution.linear, boot.linear]),
    )


def _data_notes(runs: Runs, law: Law) -> list[str]:
    if runs.data is None or len(law.terms) > 2:
        return []
    if data_freedom(runs) == 0:
        where = "in all runs" if len(runs.panels) == 1 else "in all runs of each panel"
        return [f"D' is the same {where}, so its effect is part of the constant; the data term is left out"]
    return []


def _quality(problem: Problem, solution: Solution) -> tuple[Quality, list[str]]:
    runs, y = problem.runs, problem.targets
    residuals = y - problem.fitted(solution)[0]
    count, parameters = len(y), len(problem.law.parameters)
    squares, total = float(residuals @ residuals), float(np.sum((y - y.mean()) ** 2))
    notes = []
    left_out = leave_one_out(problem, solution)
    if left_out is None:
        notes.append("no leave-one-out error: without one of the points the others do not determine the form")
    large = small_to_large(problem)
    if isinstance(large, str):
        notes.append(large)
    quality = Quality(
        1 - squares / total,
        1 - (squares / (count - parameters)) / (total / (count - 1)),
        float(np.mean(np.abs(residuals))),
        math.sqrt(squares / count),
        math.sqrt(squares / (count - parameters)),
        math.nan if left_out is None else float(np.sqrt(np.mean(left_out**2))),
        None if isinstance(large, str) else large,
        {name: _r2(y, residuals, runs.panel == number) for number, name in enumerate(runs.panels)},
    )
    return quality, notes


def _r2(y: Float[np.ndarray, "runs"], residuals: Float[np.ndarray, "runs"], here: Bool[np.ndarray, "runs"]) -> float:
    total = float(np.sum((y[here] - y[here].mean()) ** 2))
    return 1 - float(residuals[here] @ residuals[here]) / total if total > 0 else math.nan
