"""The published grid refitted: R2 as in the project's notes on the paper, found by other code with other settings."""

import numpy as np
import pytest

from tests.performance_law.made_runs import published_grid  # noqa: F401
from wukong_jax.performance_law.held_out import small_to_large
from wukong_jax.performance_law.law import FORMS
from wukong_jax.performance_law.problem import Problem
from wukong_jax.performance_law.read_runs import read_runs

COLUMNS = ("released", "quadratic", "quadratic-interaction", "log-linear", "power")
R2 = {
    "ML-1M 100": (0.8943, 0.8926, 0.9463, 0.5524, 0.814),
    "ML-1M 150": (0.9154, 0.9146, 0.9441, 0.7655, 0.899),
    "ML-1M 200": (0.8929, 0.8933, 0.9231, 0.1902, 0.446),
    "AMZ-Books 25": (0.9238, 0.9240, 0.9273, 0.8533, 0.868),
    "AMZ-Books 50": (0.8378, 0.8375, 0.8390, 0.8318, 0.835),
    "KR-Pure 25": (0.7868, 0.7854, 0.8118, 0.6727, 0.771),
    "KR-Pure 50": (0.9392, 0.9383, 0.9570, 0.4671, 0.782),
    "KR-Pure 100": (0.6271, 0.6185, 0.6312, 0.1727, 0.219),
    "Industrial 25": (0.9811, 0.9823, 0.9841, 0.9056, 0.986),
    "Industrial 50": (0.9746, 0.9739, 0.9816, 0.8037, 0.884),
}
HELD_OUT = {"ML-1M 200": (0.0060, 0.0061, 0.0133, 0.0164), "Industrial 50": (0.0044, 0.0046, 0.0069, 0.0114)}


def problem(path, panel, form):
    runs = read_runs(path, "hr10", panel=["dataset", "max_len"])
    return Problem(runs.only(panel), FORMS[form], None)


@pytest.mark.parametrize("panel", R2)
def test_every_form_fits_as_well_as_published_values_allow(published_grid, panel):  # noqa: F811
    for form, expected in zip(COLUMNS, R2[panel], strict=True):
        fitted = problem(published_grid, panel, form)
        total = np.sum((fitted.targets - fitted.targets.mean()) ** 2)
        assert 1 - fitted.solve().objective[0] / total == pytest.approx(expected, abs=0.003), form


@pytest.mark.parametrize("panel", HELD_OUT)
def test_large_runs_from_small_ones(published_grid, panel):  # noqa: F811
    *errors, baseline = HELD_OUT[panel]
    for form, expected in zip(("released", "quadratic", "power"), errors, strict=True):
        found = small_to_large(problem(published_grid, panel, form))
        assert found.rmse == pytest.approx(expected, abs=1.5e-4), form
        assert found.baseline_rmse == pytest.approx(baseline, abs=1e-4)


def test_p1_hardly_matters(published_grid):  # noqa: F811
    """R2 is flat in p1: it cannot be read from such runs, and is given rather than fitted."""
    runs = read_runs(published_grid, "hr10", panel=["dataset", "max_len"]).only("ML-1M 200")
    squares = [Problem(runs, FORMS["released"], p1).solve().objective[0] for p1 in (0.1, 0.5, 0.9, 2.0, 5.0)]
    total = np.sum((runs.y - runs.y.mean()) ** 2)
    assert np.ptp(squares) / total < 0.01
