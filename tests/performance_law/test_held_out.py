"""Leave-one-out against refits of the runs that are left, and large sizes from small ones."""

import dataclasses

import numpy as np
import pytest

from tests.performance_law.made_runs import log_linear, pooled, quadratic, runs_of
from wukong_jax.performance_law.fit import fit
from wukong_jax.performance_law.held_out import leave_one_out, small_to_large, smaller_runs
from wukong_jax.performance_law.law import FORMS
from wukong_jax.performance_law.problem import Problem


@pytest.mark.parametrize("form", ["released", "power", "quadratic"])
def test_leaving_a_point_out_is_fitting_the_others(form):
    """A point has two runs; both are left out together. Sizes at the ends stay, so that the searched range does."""
    runs = runs_of(quadratic, noise=0.01, layers=(4, 8, 16, 32), dims=(25, 50, 100), repeats=2)
    problem = Problem(runs, FORMS[form], None)
    errors = leave_one_out(problem, problem.solve())
    for point in (1, 4, 7, 11):
        here = runs.groups == point
        others = Problem(runs.subset(~here), FORMS[form], None)
        solution = others.solve()
        inputs = np.stack([runs.layers[here], runs.dim[here]])
        predicted = others.law.values(solution.nonlinear, solution.linear, inputs, runs.panel[here])[0]
        np.testing.assert_allclose(errors[here], predicted - runs.y[here], atol=2e-5)


def test_a_point_that_alone_determines_something_gives_no_left_out_error():
    runs = runs_of(log_linear, noise=0.01, layers=(4, 8), dims=(25, 50))
    alone = runs.subset(np.array([True, True, False, True]))
    more = dataclasses.replace(alone, **{n: np.tile(getattr(alone, n), 2) for n in ("layers", "dim", "y", "panel")})
    found = fit(more, "log-linear", draws=200)
    assert np.isnan(found.quality.loo_rmse)
    assert any(note.startswith("no leave-one-out error") for note in found.notes)


def test_the_smaller_two_thirds_of_each_axis_are_kept():
    """The papers' rule: of depths 4..32 up to 16, of widths 25..100 up to 75; in each panel by its own sizes."""
    runs = runs_of(log_linear)
    np.testing.assert_array_equal(smaller_runs(runs), (runs.layers <= 16) & (runs.dim <= 75))
    two = pooled(log_linear)
    wide = dataclasses.replace(two, layers=np.where(two.panel == 1, 10 * two.layers, two.layers))
    np.testing.assert_array_equal(smaller_runs(wide), smaller_runs(two))


def test_large_runs_are_predicted_from_small_ones():
    runs = runs_of(quadratic, noise=0.01)
    small = (runs.layers <= 16) & (runs.dim <= 75)
    x, z = np.log(runs.layers), np.log(runs.dim)
    design = np.stack([np.ones_like(x), x, x**2, z, z**2], axis=1)
    errors = (design @ np.linalg.lstsq(design[small], runs.y[small], rcond=None)[0] - runs.y)[~small]
    found = small_to_large(Problem(runs, FORMS["quadratic"], None))
    assert found.rmse == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert found.runs == 12
    assert found.baseline_rmse == pytest.approx(np.sqrt(np.mean((runs.y[small].max() - runs.y[~small]) ** 2)))


@pytest.mark.parametrize("rising", [True, False])
def test_the_best_so_far_is_the_lowest_of_a_loss(rising):
    runs = runs_of(quadratic, noise=0.01, rising=rising)
    best = small_to_large(Problem(runs_of(quadratic, noise=0.01), FORMS["quadratic"], None)).baseline_rmse
    assert small_to_large(Problem(runs, FORMS["quadratic"], None)).baseline_rmse == pytest.approx(best)


def few_small(runs):
    """The small runs of the first width and of the first depth only."""
    small = smaller_runs(runs)
    return runs.subset(~small | (runs.layers == 4) | (runs.dim == 25))


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (
            runs_of(quadratic, noise=0.01, layers=(4, 8, 16)),
            "of the smaller runs, form quadratic: the runs have 2 values",
        ),
        (few_small(runs_of(quadratic, noise=0.01, layers=(4, 8, 12, 16))), "5 smaller runs do not determine the form"),
    ],
)
def test_too_few_small_runs_are_said(runs, message):
    found = small_to_large(Problem(runs, FORMS["quadratic"], None))
    assert isinstance(found, str)
    assert message in found
    assert found in fit(runs, "quadratic", draws=200).notes
