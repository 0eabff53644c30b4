"""Several forms of the law on the same runs: which predicts best, and whether the runs can tell the others from it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from wukong_jax.errors import DataError
from wukong_jax.performance_law.fit import Fitted, fit
from wukong_jax.performance_law.law import FORMS
from wukong_jax.performance_law.problem import Problem
from wukong_jax.performance_law.runs import Runs
from wukong_jax.scaling.bootstrap import Noise, redraw

SIMULATIONS = 500


class Rival(NamedTuple):
    """A form beside the best one."""

    form: str
    p_value: float
    """How often data drawn from this form's fit favour the best form as clearly as the runs do."""
    told_apart: bool
    """Whether that is rarer than 1 - level: the runs then speak against this form."""


class Comparison(NamedTuple):
    """All forms on the same runs."""

    fits: tuple[Fitted, ...]
    best: str
    """The form with the smallest leave-one-out error; where not all forms have one, with the largest adjusted R2."""
    best_held_out: str | None
    """The form that predicts the large runs best from the small; None where none could be tested."""
    rivals: tuple[Rival, ...]
    """The other forms against `best`."""
    skipped: dict[str, str]
    """Forms that could not be fitted, and why."""

    def fit(self, form: str) -> Fitted:
        """The fit of one form."""
        return next(fit for fit in self.fits if fit.form.name == form)

    @property
    def verdict(self) -> str:
        """What the runs say about the forms, in sentences."""
        if not self.rivals:
            return f"only {self.best} {'could be' if self.skipped else 'was'} fitted"
        alike = [rival.form for rival in self.rivals if not rival.told_apart]
        worse = [rival.form for rival in self.rivals if rival.told_apart]
        parts = [f"{self.best} predicts left-out points best"]
        if not _all_left_out(self.fits):
            parts = [f"{self.best} has the largest adjusted R2 (left-out points could not be predicted by every form)"]
        if alike:
            parts.append(f"the runs cannot tell it from {' and '.join(alike)}")
        if worse:
            parts.append(f"they speak against {' and '.join(worse)}")
        return "; ".join([*parts, self._held_out_verdict()])

    def _held_out_verdict(self) -> str:
        if self.best_held_out is None:
            return "large runs could not be held out"
        found = self.fit(self.best_held_out).quality.held_out
        assert found is not None
        if sum(fit.quality.held_out is not None for fit in self.fits) == 1:
            verdict = f"only {self.best_held_out} could be tested at larger sizes"
        else:
            which = "it also predicts" if self.best_held_out == self.best else f"{self.best_held_out} predicts"
            verdict = f"{which} the large runs best from the small"
        if found.rmse >= found.baseline_rmse:
            verdict += ", but no better than the best value seen so far, so that none of these forms extrapolates here"
        return verdict


def compare(
    runs: Runs,
    forms: Sequence[str] | None = None,
    *,
    p1: float | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    announce: Callable[[str], None] | None = None,
) -> Comparison:
    """Fit all forms (or those named) and test each against the best; raises `DataError` where none can be fitted.

    `announce` is told which form is being fitted: with many panels and draws one may take minutes.
    """
    fits, skipped = [], {}
    named = list(forms or FORMS)
    for number, form in enumerate(named, 1):
        if announce is not None:
            where = f"{len(runs.y)} runs in {len(runs.panels)} panel{'s' * (len(runs.panels) > 1)}, {draws} draws"
            announce(f"fitting {form} ({number} of {len(named)}): {where}")
        try:
            fits.append(fit(runs, form, p1=p1, draws=draws, level=level, seed=seed))
        except DataError as error:
            skipped[form] = str(error)
    if not fits:
        raise DataError("; ".join(reasons(skipped)))
    best = min(fits, key=_left_out_error) if _all_left_out(fits) else max(fits, key=_adjusted)
    tested = [fit for fit in fits if fit.quality.held_out is not None]
    if announce is not None and len(fits) > 1:
        announce(f"comparing {best.form.name} with the others")
    others = [(other.form.name, favours(best, other, seed)) for other in fits if other is not best]
    rivals = tuple(Rival(form, p_value, p_value < 1 - level) for form, p_value in others)
    furthest = min(tested, key=_held_out_error).form.name if tested else None
    return Comparison(tuple(fits), best.form.name, furthest, rivals, skipped)


def reasons(skipped: Mapping[str, str]) -> list[str]:
    """Why forms were not fitted, each reason once with the forms it is for."""
    forms: dict[str, list[str]] = {}
    for form, why in skipped.items():
        forms.setdefault(why.removeprefix(f"form {form}: "), []).append(form)
    return [f"form{'s' * (len(names) > 1)} {', '.join(names)}: {why}" for why, names in forms.items()]


def favours(best: Fitted, other: Fitted, seed: int) -> float:
    """The p-value of `other` against `best`: a parametric bootstrap of the ratio of their sums of squares.

    Data are drawn from `other`, both are fitted to them, and the ratios at least as large as the observed one counted.
    It needs no nesting and counts each form's freedom to follow noise. 1 where `other` fits no worse: it may have more
    freedom than it needs, but nothing in the runs speaks against it.
    """
    runs = best.runs
    ours, theirs = (Problem(runs, found.form, found.p1) for found in (best, other))
    ours_known, theirs_known = ours.solve(), theirs.solve()
    if theirs_known.objective[0] <= ours_known.objective[0]:
        return 1.0
    fitted = theirs.fitted(theirs_known)[0]
    count = len(theirs.law.parameters)
    rng = np.random.default_rng(seed)
    drawn = redraw(Noise.GAUSSIAN, fitted, ours.targets, ours.groups, count, SIMULATIONS, rng)
    smallest = np.finfo(float).tiny
    observed = theirs_known.objective[0] / max(ours_known.objective[0], smallest)
    simulated = theirs.solve_again(drawn, theirs_known).objective / np.maximum(
        ours.solve_again(drawn, ours_known).objective, smallest
    )
    return float((1 + np.sum(simulated >= observed)) / (1 + SIMULATIONS))


def _all_left_out(fits: Sequence[Fitted]) -> bool:
    return not any(np.isnan(found.quality.loo_rmse) for found in fits)


def _left_out_error(found: Fitted) -> tuple[float, int]:
    """Of equals the form with fewer parameters."""
    return found.quality.loo_rmse, len(found.law.parameters)


def _adjusted(found: Fitted) -> tuple[float, int]:
    return found.quality.adjusted_r2, -len(found.law.parameters)


def _held_out_error(found: Fitted) -> float:
    assert found.quality.held_out is not None
    return found.quality.held_out.rmse
