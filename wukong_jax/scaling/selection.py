"""Several forms of a law on one series: which predicts best, and whether the data can tell the others from it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wukong_jax.errors import DataError
from wukong_jax.scaling.bootstrap import Noise, redraw
from wukong_jax.scaling.fit import Fitted, Loss, Problem, fit_series
from wukong_jax.scaling.laws import KNOWN_FLOOR, LAWS
from wukong_jax.scaling.points import Points
from wukong_jax.scaling.run_noise import RunNoise, given_noise, noise_of_seeds

FORMS = ("power", "saturating", "log-linear")
SIMULATIONS = 500


class Rival(NamedTuple):
    """A form beside the best one."""

    form: str
    p_value: float
    """How often data drawn from this form's fit favour the best form as clearly as the points do."""
    told_apart: bool
    """Whether that is rarer than (1 - level) / number of rivals: the points then speak against this form."""


class Comparison(NamedTuple):
    """All forms of one series."""

    series: str
    fits: tuple[Fitted, ...]
    best: str
    """The form with the smallest leave-one-out error."""
    rivals: tuple[Rival, ...]
    skipped: dict[str, str]
    """Forms that could not be fitted, and why."""

    def fit(self, form: str) -> Fitted:
        """The fit of one form."""
        return next(fit for fit in self.fits if fit.law.name == form)

    @property
    def verdict(self) -> str:
        """What the points say about the forms."""
        alike = [rival.form for rival in self.rivals if not rival.told_apart]
        worse = [rival.form for rival in self.rivals if rival.told_apart]
        if not self.rivals:
            return f"only {self.best} could be fitted"
        parts = []
        if alike:
            parts.append(f"cannot tell {self.best} from {' and '.join(alike)} apart")
        if worse:
            parts.append(f"speak for {self.best} and against {' and '.join(worse)}")
        return f"the data {' but '.join(parts)}"


def default_forms(points: Points) -> tuple[str, ...]:
    """The forms of one variable that the points allow: the one above the floor only where that is known."""
    return FORMS if points.floor is None else (*FORMS, KNOWN_FLOOR.name)


def compare_forms(
    points: Points,
    forms: Sequence[str] | None = None,
    *,
    loss: Loss = "squares",
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Fit all forms and test each against the best; raises `DataError` where none can be fitted."""
    fits, skipped = [], {}
    for form in forms or default_forms(points):
        try:
            fits.append(fit_series(points, form, loss=loss, draws=draws, level=level, seed=seed))
        except DataError as error:
            skipped[form] = str(error)
    if not fits:
        raise DataError("; ".join(skipped.values()))
    best = min(fits, key=_predicts)
    others = [fit for fit in fits if fit is not best]
    tested = [(fit.law.name, favours(best, fit, np.random.default_rng(seed))) for fit in others]
    # the best was chosen among them: at 1 - level each, one of several true forms would be spoken against too often
    rivals = tuple(Rival(form, p_value, p_value < (1 - level) / len(tested)) for form, p_value in tested)
    return Comparison(points.series, tuple(fits), best.law.name, rivals, skipped)


def favours(best: Fitted, other: Fitted, rng: np.random.Generator) -> float:
    """The p-value of `other` against `best`: a parametric bootstrap of the ratio of their losses.

    Data are drawn from `other`, both are fitted to them, and the ratios at least as large as the observed one counted.
    It needs no nesting and counts each form's freedom to follow noise.
    """
    points = best.points
    ours, theirs = (Problem(points, fit.law, fit.loss) for fit in (best, other))
    solutions = [problem.solve(problem.targets[None]) for problem in (ours, theirs)]
    fitted = theirs.fitted(solutions[1])[0] + theirs.above_origin
    above = theirs.targets + theirs.above_origin
    noise = Noise.RESIDUALS if theirs.loss == "huber" else Noise.GAUSSIAN
    drawn = redraw(noise, fitted, above, points.groups, len(other.law.parameters), SIMULATIONS, rng)
    if theirs.loss == "huber":
        drawn = np.maximum(drawn, fitted * 1e-6)
    ratios = [
        problem.solve_again(drawn - problem.above_origin, solution).objective
        for problem, solution in ((ours, solutions[0]), (theirs, solutions[1]))
    ]
    smallest = np.finfo(float).tiny
    observed = solutions[1].objective[0] / max(solutions[0].objective[0], smallest)
    return float((1 + np.sum(ratios[1] / np.maximum(ratios[0], smallest) >= observed)) / (1 + SIMULATIONS))


def _predicts(fit: Fitted) -> tuple[bool, float, int]:
    error = fit.diagnostics.loo_rmse
    return bool(np.isnan(error)), error, list(LAWS).index(fit.law.name)


def run_noise(points: Points, comparison: Comparison) -> RunNoise:
    """The noise of one run at each x: from repeated runs, else from the best form's residuals."""
    sizes, groups = np.unique(points.x, return_inverse=True)
    by_seeds = noise_of_seeds(points.y, groups)
    if by_seeds is not None:
        return by_seeds
    best = comparison.fit(comparison.best)
    spare = len(points.y) - len(best.parameters)
    return given_noise(best.diagnostics.rmse * math.sqrt(len(points.y) / spare), len(sizes), spare)
