"""Forms side by side: which predicts best, and what the runs cannot tell."""

import dataclasses

import numpy as np
import pytest

from tests.performance_law.made_runs import log_linear, pooled, quadratic, runs_of
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.performance_law.comparison import compare, favours, reasons
from wukong_jax.performance_law.fit import fit

LINEAR = ("quadratic", "quadratic-interaction", "log-linear")


def test_a_bent_grid_speaks_against_straight_lines_and_knows_no_interaction():
    found = compare(runs_of(quadratic, noise=0.003), LINEAR, draws=200)
    assert found.best == "quadratic"
    told = {rival.form: rival.told_apart for rival in found.rivals}
    assert told == {"quadratic-interaction": False, "log-linear": True}
    assert "quadratic predicts left-out points best" in found.verdict
    assert "cannot tell it from quadratic-interaction" in found.verdict
    assert "speak against log-linear" in found.verdict
    assert found.fit("log-linear").form.name == "log-linear"


def test_a_panel_of_one_run_does_not_make_the_worst_form_the_best():
    runs = pooled(quadratic, noise=0.003)
    some = runs.subset((runs.panel == 0) | (np.arange(len(runs.y)) == 12))
    found = compare(dataclasses.replace(some, panels=runs.panels[:2]), LINEAR, draws=200)
    assert all(np.isnan(fit.quality.loo_rmse) for fit in found.fits)
    assert found.best == "quadratic"
    assert "left-out points best" not in found.verdict
    assert (
        "quadratic has the largest adjusted R2 (left-out points could not be predicted by every form)" in found.verdict
    )


def test_an_interaction_is_found():
    found = compare(runs_of(lambda n, d: quadratic(n, d, g=0.05), noise=0.003), LINEAR, draws=200)
    assert found.best == found.best_held_out == "quadratic-interaction"
    assert all(rival.told_apart for rival in found.rivals)
    assert "it also predicts the large runs best" in found.verdict


def test_noise_alone_tells_no_forms_apart():
    runs = runs_of(lambda n, d: 0.3 + 0 * n, noise=0.01)
    found = compare(runs, LINEAR, draws=200)
    assert not any(rival.told_apart for rival in found.rivals)
    assert found.best_held_out == "log-linear"
    assert "but no better than the best value seen so far" in found.verdict


@pytest.mark.slow
def test_the_test_of_a_true_form_is_rarely_significant():
    """Straight lines are true, the quadratic has two parameters more: p-values are uniform, 5 % below 0.05."""
    p_values = []
    for seed in range(40):
        runs = runs_of(log_linear, noise=0.01, seed=seed)
        best, other = (fit(runs, form, draws=200) for form in ("quadratic", "log-linear"))
        p_values.append(favours(best, other, seed))
    assert np.mean(np.array(p_values) < 0.05) < 0.15
    assert 0.3 < np.mean(np.array(p_values) < 0.5) < 0.7


def test_all_forms_are_compared_unless_some_are_named_and_those_that_fail_are_listed():
    runs = runs_of(log_linear, noise=0.01, layers=(4, 8))
    found = compare(runs, draws=200)
    assert [one.form.name for one in found.fits] == ["log-linear"]
    assert set(found.skipped) == {"performance-law", "released", "quadratic", "quadratic-interaction", "power"}
    assert found.verdict == "only log-linear could be fitted"
    assert compare(runs, ["log-linear"], draws=200).verdict == "only log-linear was fitted"
    with pytest.raises(DataError, match="2 values of depth"):
        compare(runs, ["quadratic"], draws=200)
    with pytest.raises(ConfigError, match="received 'cubic'"):
        compare(runs, ["cubic"], draws=200)


def test_without_large_runs_there_is_no_best_extrapolation():
    found = compare(runs_of(log_linear, noise=0.01, layers=(4, 8), dims=(25, 50), repeats=2), ["log-linear"], draws=200)
    assert found.best_held_out is None
    assert any("no run is larger than those that are fitted" in note for note in found.fits[0].notes)


def test_one_form_alone_tested_at_larger_sizes_is_not_called_the_best():
    found = compare(runs_of(quadratic, noise=0.003), ("quadratic", "log-linear"), draws=200)
    bent, straight = found.fits
    untested = dataclasses.replace(straight, quality=straight.quality._replace(held_out=None))
    verdict = found._replace(fits=(bent, untested), best_held_out="quadratic").verdict
    assert "only quadratic could be tested at larger sizes" in verdict
    assert "best from the small" not in verdict


def test_a_reason_is_told_once_for_all_its_forms():
    skipped = {"a": "form a: too few runs", "b": "form b: too few runs", "c": "form c: one depth"}
    assert reasons(skipped) == ["forms a, b: too few runs", "form c: one depth"]


def test_every_fit_is_announced():
    said = []
    compare(runs_of(log_linear, noise=0.01), ("quadratic", "log-linear"), draws=200, announce=said.append)
    assert said[0] == "fitting quadratic (1 of 2): 24 runs in 1 panel, 200 draws"
    assert len(said) == 3


def test_nothing_speaks_against_a_form_that_fits_no_worse():
    runs = runs_of(log_linear, noise=0.01)
    best, other = (fit(runs, form, draws=200) for form in ("log-linear", "quadratic"))
    assert favours(best, other, 0) == 1.0
