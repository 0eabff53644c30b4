"""Compute-optimal allocation against a direct minimum."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.scaling.allocation import allocate
from wukong_jax.scaling.fit import fit_series
from wukong_jax.scaling.points import Points, curve

TRUE = {"alpha": 0.3, "beta": 0.4, "E": 0.4, "A": 0.1, "B": 3.0}
N, D = (g.ravel() for g in np.meshgrid(np.geomspace(0.3, 100, 5), np.geomspace(1e5, 1e7, 4)))


def law(n, d, alpha=0.3, beta=0.4, E=0.4, A=0.1, B=3.0):
    return E + A * n**-alpha + B * d**-beta


def joint_fit(y):
    return fit_series(Points("mine", np.stack([N, D]), y), "joint", draws=200)


@pytest.fixture(scope="module")
def noisy():
    return joint_fit(law(N, D) + 0.0005 * np.random.default_rng(1).normal(size=20))


@pytest.mark.parametrize("budget", [5e6, 3e7])
def test_the_optimum_is_the_minimum_at_that_compute(budget):
    found = allocate(joint_fit(law(N, D)), [budget])[0]
    best = scipy.optimize.minimize_scalar(
        lambda t: law(np.exp(t), budget / np.exp(t)), bounds=(-9, 12), method="bounded", options={"xatol": 1e-9}
    )
    np.testing.assert_allclose(found.compute.value, np.exp(best.x), rtol=1e-3)
    np.testing.assert_allclose(found.value.value, best.fun, rtol=1e-6)
    np.testing.assert_allclose(found.compute.value * found.examples.value, budget)
    assert found.remarks == ()


def test_intervals_hold_the_planted_optimum_and_mirror_each_other(noisy):
    found = allocate(noisy, [1e7])[0]
    alpha, beta, _, a, b = TRUE.values()
    best = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * 1e7 ** (beta / (alpha + beta))
    assert found.compute.low < best < found.compute.high < 3 * best
    assert found.value.low < law(best, 1e7 / best) < found.value.high
    np.testing.assert_allclose(found.examples.low * found.compute.high, 1e7, rtol=0.05)


def test_an_optimum_outside_the_measured_range_is_said(noisy):
    remarks = allocate(noisy, [1e12])[0].remarks
    assert any("the best compute per example lies above the measured 0.3 to 100" in remark for remark in remarks)
    assert any("the best number of examples lies above the measured 1e+05 to 1e+07" in remark for remark in remarks)


def test_without_an_effect_of_compute_there_is_no_optimum():
    found = allocate(joint_fit(0.4 + 3 * D**-0.4 + 0.001 * np.log(N)), [1e7])[0]
    assert any(
        remark.startswith("no optimum: of compute and examples the fit has examples") for remark in found.remarks
    )


@pytest.mark.parametrize(("without", "said"), [(1, "under 1%"), (2, "1%"), (50, "25%")])
def test_the_share_of_fits_without_an_optimum_is_never_told_as_0(noisy, without, said):
    draws = noisy.draws.copy()
    draws[:without, 3] = 0  # A: compute has no effect
    remarks = allocate(dataclasses.replace(noisy, draws=draws), [1e7])[0].remarks
    assert f"{said} of the bootstrap's fits have no optimum: one input has no effect in them" in remarks


def test_a_curve_has_no_allocation():
    fit = fit_series(curve("mine", np.arange(1.0, 6), np.linspace(0.5, 0.4, 5)), "power", draws=200)
    with pytest.raises(DataError, match="received a fit of the form power, expected joint"):
        allocate(fit, [1.0])


def test_a_budget_must_be_positive(noisy):
    with pytest.raises(ConfigError, match="budgets: received 0"):
        allocate(noisy, [0.0])


def test_a_flat_table_has_no_optimum_and_says_so():
    found = allocate(joint_fit(np.full(20, 0.5)), [40.0])[0]
    assert np.isnan([*found.compute, *found.examples, *found.value]).all()
    assert found.remarks == (
        "no optimum: of compute and examples the fit has neither lower the metric",
        "the points do not determine alpha, beta",
    )
