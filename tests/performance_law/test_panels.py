"""Fits with a constant a panel against least squares that has a column for each."""

import numpy as np
import pytest

from tests.performance_law.made_runs import pooled, power, quadratic
from wukong_jax.performance_law.held_out import leave_one_out
from wukong_jax.performance_law.law import FORMS
from wukong_jax.performance_law.panels import Panels
from wukong_jax.performance_law.problem import REDRAWN_ROUNDS, Problem, better
from wukong_jax.scaling.variable_projection import least_squares, search

MADE = {"released": quadratic, "performance-law": quadratic, "power": power}


def problem_of(form):
    """Three panels of different sizes, with noise."""
    runs = pooled(MADE[form], noise=0.01, seed=3)
    return Problem(runs.subset(np.arange(36) != 30), FORMS[form], None)


@pytest.mark.parametrize("form", MADE)
def test_redrawn_targets_have_the_optimum_of_all_columns(form):
    problem = problem_of(form)
    known = problem.solve()
    targets = problem.redraw(known, 20, np.random.default_rng(0))
    found = problem.solve_again(targets, known)
    starts = known.nonlinear.repeat(20, axis=0)
    expected = better(
        search(problem.model, targets, rounds=REDRAWN_ROUNDS),
        search(problem.model, targets, starts=starts, rounds=REDRAWN_ROUNDS),
    )
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-9)
    np.testing.assert_allclose(problem.fitted(found), problem.fitted(expected), atol=1e-7)


@pytest.mark.parametrize("form", MADE)
def test_left_out_errors_are_those_of_all_columns(form, monkeypatch):
    problem = problem_of(form)
    known = problem.solve()
    errors = leave_one_out(problem, known)
    monkeypatch.setattr(Panels, "count", 1)  # the way of a single panel, which has all columns
    np.testing.assert_allclose(errors, leave_one_out(problem, known), atol=1e-7)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_solver_is_least_squares_with_a_column_a_panel(weighted, nonnegative, rng):
    form = "power" if nonnegative else "released"
    problem = problem_of(form)
    exponents = np.array([[0.3, 0.5], [1.0, 0.2]])
    design = problem.model.design(exponents)[:, None]
    targets = problem.targets + 0.01 * rng.normal(size=(3, 35))
    weights = rng.integers(0, 2, (3, 35)).astype(float) if weighted else None
    if weights is not None:
        weights[1, problem.runs.panel == 2] = 0  # a panel without a run has no constant
    found, objective = problem.panels.solver(design, targets, weights)
    expected, least = least_squares(problem.model.nonnegative)(design, targets, weights)
    np.testing.assert_allclose(objective, least, rtol=1e-9)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_a_column_that_is_constant_in_every_panel_is_none(rng):
    panels = problem_of("released").panels
    levels = panels.member @ np.array([0.1, 0.2, 0.7])
    assert not panels.centred(levels, None).any()
    values = levels + rng.normal(size=35)
    np.testing.assert_allclose(panels.centred(values, None) @ panels.member, 0, atol=1e-12)
