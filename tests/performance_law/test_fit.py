"""Fits of planted laws: what is recovered, what is not determined, and the intervals."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from tests.performance_law import made_runs
from tests.performance_law.made_runs import arxiv, grid, log_linear, pooled, power, quadratic, released, runs_of
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.performance_law.fit import fit
from wukong_jax.performance_law.law import FORMS
from wukong_jax.performance_law.optimum import optimum
from wukong_jax.performance_law.problem import Problem
from wukong_jax.performance_law.search import Search
from wukong_jax.scaling.bootstrap import interval

PLANTED = {
    "performance-law": (arxiv, {"w1": 0.3, "w2": 1.0, "w3": -0.49, "w4": -0.405, "c": 0.1}),
    "released": (released, {"w1": 0.3, "w2": 2.0, "w3": -np.log(2) / np.log(17.8), "b": 0.3}),
    "quadratic": (quadratic, {"a1": 0.2, "a2": -0.035, "b1": 0.8, "b2": -0.1, "c": -1.5}),
    "quadratic-interaction": (lambda n, d: quadratic(n, d, g=0.02), {"a1": 0.2, "b1": 0.8, "g": 0.02, "c": -1.5}),
    "power": (power, {"c": 0.4, "A": 0.2, "alpha": 0.8, "B": 1.5, "beta": 0.7}),
    "log-linear": (log_linear, {"a": 0.02, "b": 0.03, "c": 0.1}),
}
FREE = {"performance-law": 5, "released": 5, "quadratic": 5, "quadratic-interaction": 6, "power": 5, "log-linear": 3}


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_exact_runs_give_back_the_law(form, rising):
    law, parameters = PLANTED[form]
    found = fit(runs_of(law, rising=rising), form, draws=200)
    for name, value in parameters.items():
        assert found.parameters[name].value == pytest.approx(value, rel=1e-3), name
    n, d = grid((1, 20, 128), (16, 64, 300))
    sign = 1 if rising else -1
    np.testing.assert_allclose(found.predict(n, d), sign * law(n, d), rtol=1e-5)
    assert found.quality.r2 == pytest.approx(1.0)
    assert found.quality.held_out.rmse < 1e-5
    assert found.quality.loo_rmse < 1e-5
    assert found.unidentified == ()
    assert len(found.parameters) == FREE[form]


@pytest.mark.parametrize("form", ["quadratic", "quadratic-interaction", "log-linear"])
def test_linear_forms_are_least_squares(form):
    runs = runs_of(quadratic, noise=0.05)
    x, z = np.log(runs.layers), np.log(runs.dim)
    columns = {"log-linear": [x, z], "quadratic": [x, x**2, z, z**2]}
    columns["quadratic-interaction"] = [*columns["quadratic"], x * z]
    design = np.stack([np.ones_like(x), *columns[form]], axis=1)
    best = np.linalg.lstsq(design, runs.y, rcond=None)[0]
    residuals = runs.y - design @ best
    hat = design @ np.linalg.pinv(design)
    found = fit(runs, form, draws=200)
    np.testing.assert_allclose([p.value for p in found.parameters.values()], best, rtol=1e-6)
    quality, n, p = found.quality, len(runs.y), design.shape[1]
    assert quality.r2 == pytest.approx(1 - residuals @ residuals / np.sum((runs.y - runs.y.mean()) ** 2))
    assert quality.mae == pytest.approx(np.abs(residuals).mean())
    assert quality.rmse == pytest.approx(np.sqrt(np.mean(residuals**2)))
    assert quality.deviation == pytest.approx(np.sqrt(residuals @ residuals / (n - p)))
    assert quality.adjusted_r2 == pytest.approx(1 - (1 - quality.r2) * (n - 1) / (n - p))
    assert quality.loo_rmse == pytest.approx(np.sqrt(np.mean((residuals / (1 - np.diag(hat))) ** 2)))
    assert quality.panel_r2 == {"all": pytest.approx(quality.r2)}


@pytest.mark.parametrize("form", ["performance-law", "released", "power"])
@pytest.mark.parametrize("seed", range(3))
def test_no_exponents_of_a_dense_grid_are_better(form, seed):
    """Brute force over 200 x 200 exponents, least squares by lstsq's formula for each; A and B as they come."""
    runs = runs_of(quadratic, noise=0.02, seed=seed, layers=(4, 8, 16, 32), dims=(32, 64, 128, 256))
    size = np.geomspace(2e-4, 3, 100)
    exponents = size if form == "power" else np.concatenate([-size[::-1], size])
    curves = []
    for values in (runs.layers, runs.dim):
        x = np.log(values)
        bent = np.exp(-exponents[:, None] * x)
        curve = {"power": -bent, "performance-law": x - 0.5 * bent, "released": -exponents[:, None] * x - 0.5 * bent}
        centred = curve[form] - curve[form].mean(axis=1, keepdims=True)
        curves.append(centred / np.linalg.norm(centred, axis=1, keepdims=True))
    y = runs.y - runs.y.mean()
    depth, width = curves
    cosine, along, across = depth @ width.T, (depth @ y)[:, None], (width @ y)[None]
    explained = (along**2 + across**2 - 2 * cosine * along * across) / (1 - cosine**2)
    if form == "power":
        both = (along - cosine * across >= 0) & (across - cosine * along >= 0)
        alone = np.maximum(np.maximum(along, 0) ** 2, np.maximum(across, 0) ** 2)
        explained = np.where(both, explained, alone)
    best = explained.max() / (y @ y)
    assert fit(runs, form, draws=200).quality.r2 >= best - 1e-6


def test_predictions_broadcast_and_know_their_panel():
    found = fit(pooled(quadratic), "quadratic", draws=200)
    values = found.predict(np.array([[8], [16]]), np.array([25, 50, 100]), panel="c")
    assert values.shape == (2, 3)
    np.testing.assert_allclose(values[1, 2], quadratic(16.0, 100.0) - 0.03, rtol=1e-6)
    np.testing.assert_allclose(found.predict(16, 100.0, panel=1), quadratic(16.0, 100.0) + 0.02, rtol=1e-6)
    draws = found.predict_draws(np.array([[8], [16]]), 50, panel="c")
    assert draws.shape == (200, 2, 1)
    with pytest.raises(ConfigError, match="panel: received 'd'"):
        found.predict(8, 50, panel="d")
    with pytest.raises(ConfigError, match="layers: received 0"):
        found.predict(0, 50)


@pytest.mark.parametrize("form", FORMS)
def test_panels_share_all_but_their_constants(form):
    law, parameters = PLANTED[form]
    found = fit(pooled(law), form, draws=200)
    constant = found.form.constant
    for name, value in parameters.items():
        if name != constant:
            assert found.parameters[name].value == pytest.approx(value, rel=1e-3), name
    for panel, shift in made_runs.PANELS.items():
        assert found.parameters[f"{constant}[{panel}]"].value == pytest.approx(parameters[constant] + shift, rel=1e-3)
    assert set(found.quality.panel_r2) == set(made_runs.PANELS)


def with_data(law, amounts, weight=0.01):
    """Three panels, in each of which D' takes these amounts in turn; the metric grows by weight ln D'."""
    data = np.random.default_rng(0).permuted(np.repeat(np.array(amounts), 12 // len(amounts)))
    data = np.tile(data, 3)
    runs = pooled(law, data=data)
    return dataclasses.replace(runs, y=runs.y + weight * np.log(data))


@pytest.mark.parametrize("form", ["quadratic", "released", "log-linear"])
def test_the_weight_of_the_data_is_recovered(form):
    law, _ = PLANTED[form]
    found = fit(with_data(law, [1e6, 3e6]), form, draws=200)
    assert found.has_data_term
    if "w5" not in found.parameters:
        assert found.parameters["w_data"].value == pytest.approx(0.01, rel=1e-3)
    rise = found.predict(8, 50, data=3e6) - found.predict(8, 50, data=1e6)
    assert rise == pytest.approx(0.01 * np.log(3), rel=1e-3)
    with pytest.raises(ConfigError, match="2 values of D', give the one to predict for"):
        found.predict(8, 50)


def test_data_that_vary_only_between_panels_are_said_to_be_unidentified():
    data = np.repeat([1e6, 2e6, 3e6], 12)
    found = fit(pooled(quadratic, data=data), "quadratic", draws=200)
    assert not found.has_data_term
    assert "w_data" not in found.parameters
    assert found.notes[0].startswith("D' is the same in all runs of each panel")


def test_the_released_form_names_its_optimum_and_potential():
    found = fit(runs_of(released, noise=0.001), "released", draws=200)
    best = found.closed_form_optimum()
    w3, w4 = (found.parameters[name].value for name in ("w3", "w4"))
    assert best.layers.value == pytest.approx(0.5 ** (1 / w3))
    assert best.dim.value == pytest.approx(0.5 ** (1 / w4))
    assert best.layers.low < 17.8 < best.layers.high
    assert best.reason == {}
    potential = found.scaling_potential()
    assert potential.w1 == found.parameters["w1"]
    assert potential.w2.low < 2.0 < potential.w2.high
    assert "-(1 + ln p1)" in potential.normalisation


@pytest.mark.parametrize("form", ["performance-law", "released", "quadratic"])
@pytest.mark.parametrize("rising", [True, False])
def test_the_closed_optimum_is_where_the_curve_is_best(form, rising):
    law, _ = PLANTED[form]
    found = fit(runs_of(law, noise=0.001, rising=rising), form, draws=200)
    best = found.closed_form_optimum()
    sizes = np.geomspace(0.5, 5000, 20_001)
    sign = 1 if rising else -1
    assert best.layers.value == pytest.approx(sizes[np.argmax(sign * found.predict(sizes, 50))], rel=1e-3)
    assert best.dim.value == pytest.approx(sizes[np.argmax(sign * found.predict(8, sizes))], rel=1e-3)


@pytest.mark.parametrize(("slope", "side"), [(0.02, "rises"), (-0.02, "falls")])
def test_a_curve_without_maximum_says_so(slope, side):
    def law(n, d):
        x = np.log(n)
        return slope * x + 0.01 * (x - 2.5) ** 2 + quadratic(4.0, d)

    best = fit(runs_of(law), "quadratic", draws=200).closed_form_optimum()
    assert best.layers is None
    assert best.reason == {"layers": f"no maximum: the term {side} with layers and does not turn"}
    assert best.dim is not None


def test_a_straight_line_has_no_exponent_of_its_own():
    found = fit(runs_of(log_linear), "power", draws=200)
    assert {"alpha", "A", "beta", "B"} <= set(found.unidentified)
    assert all(np.isnan(found.parameters["alpha"]))
    assert any("a straight line in the logarithm" in note for note in found.notes)
    np.testing.assert_allclose(found.predict(64, 200), log_linear(64, 200), rtol=1e-3)
    best = fit(runs_of(log_linear), "released", draws=200).closed_form_optimum()
    assert best.layers is None
    assert "straight line" in best.reason["layers"]


def test_an_input_without_effect_leaves_its_exponent_open():
    found = fit(runs_of(lambda n, d: 0.4 - 0.2 * n**-0.8 - 0.01 * np.log(d / 50)), "power", draws=200)
    assert "beta" in found.unidentified
    assert "B is 0, so that beta has no effect" in found.notes
    assert found.parameters["B"].value == 0
    assert found.parameters["alpha"].value == pytest.approx(0.8, rel=0.02)


def test_only_the_released_form_has_a_potential_and_interaction_no_closed_form():
    with pytest.raises(ConfigError, match="expected released"):
        fit(runs_of(quadratic), "quadratic", draws=200).scaling_potential()
    with pytest.raises(ConfigError, match="interact"):
        fit(runs_of(quadratic), "quadratic-interaction", draws=200).closed_form_optimum()


def diagonal():
    sizes = np.array([2.0, 4, 8, 16, 32, 64, 128])
    runs = runs_of(log_linear, layers=sizes, dims=(32.0,))
    return dataclasses.replace(runs, dim=8 * sizes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (runs_of(log_linear, layers=(8,), dims=range(16, 48)), "all runs have the depth 8, expected at least"),
        (runs_of(log_linear, dims=(64,), layers=range(2, 34)), "all runs have the width 64, expected at least"),
        (diagonal(), "open, as they vary together"),
        (runs_of(lambda n, d: 0.3 + 0 * n), "hr10: 0.3 in every run"),
    ],
)
def test_runs_that_cannot_determine_a_form_are_an_error(form, runs, message):
    with pytest.raises(DataError, match=message):
        fit(runs, form, draws=200)


@pytest.mark.parametrize("form", ["released", "quadratic", "power"])
def test_two_depths_do_not_bend(form):
    with pytest.raises(DataError, match="2 values of depth, expected at least 3; run more sizes or choose log-linear"):
        fit(runs_of(log_linear, layers=(4, 8)), form, draws=200)
    fit(runs_of(log_linear, layers=(4, 8)), "log-linear", draws=200)


def test_fewer_runs_than_parameters_are_an_error():
    runs = runs_of(quadratic)
    few = runs.subset(np.isin(np.arange(24), [0, 5, 10, 15, 23]))
    with pytest.raises(DataError, match="5 runs of 5 points for 5 parameters, expected at least 6 runs of 5 points"):
        fit(few, "quadratic", draws=200)
    many = runs_of(quadratic, layers=(4, 8, 16), repeats=6)
    points = np.isin(many.groups, [0, 2, 5, 8, 11])
    with pytest.raises(DataError, match="30 runs of 5 points for 6 parameters, expected at least 7 runs of 6 points"):
        fit(many.subset(points), "quadratic-interaction", draws=200)


def test_the_same_seed_gives_the_same_intervals():
    runs = runs_of(released, noise=0.002)
    one, two, other = (fit(runs, "released", draws=200, seed=seed) for seed in (3, 3, 4))
    assert one.parameters == two.parameters
    assert one.parameters != other.parameters
    assert one.quality == other.quality


def test_with_five_seeds_runs_are_resampled_within_points():
    """One point has 10 times the noise of the others: only resampling within points leaves it there."""
    runs = runs_of(quadratic, noise=0.0005, layers=(4, 8, 16), dims=(25, 50, 100), repeats=5)
    loud = runs.groups == 8
    runs = dataclasses.replace(runs, y=runs.y + loud * 0.05 * np.tile([-2, -1, 0, 1, 2], 9))
    spread = fit(runs, "quadratic-interaction", draws=400).predict_draws(runs.layers, runs.dim).std(axis=0)
    few = runs.subset(np.arange(45) % 5 < 4)
    other = fit(few, "quadratic-interaction", draws=400).predict_draws(runs.layers, runs.dim).std(axis=0)
    assert spread[loud][0] / spread[0] > 2 * other[loud][0] / other[0]


def test_intervals_of_linear_forms_are_students():
    runs = runs_of(log_linear, noise=0.01)
    found = fit(runs, "log-linear", draws=4000)
    design = np.stack([np.ones(24), np.log(runs.layers), np.log(runs.dim)], axis=1)
    variance = found.quality.deviation**2 * np.linalg.inv(design.T @ design).diagonal()
    half = scipy.stats.t.ppf(0.975, 21) * np.sqrt(variance)
    for k, name in enumerate(("c", "a", "b")):
        low, high = found.parameters[name][1:]
        assert (high - low) / 2 == pytest.approx(half[k], rel=0.08)


def optimum_intervals(form, runs, draws, seed):
    """Intervals of N* and d* by the bootstrap alone, without the leave-one-out refits."""
    problem = Problem(runs, FORMS[form], None)
    solution = problem.solve()
    boot = problem.solve_again(problem.redraw(solution, draws, np.random.default_rng(seed)), solution)
    law = problem.law
    best, drawn = (law.split(found.nonlinear, found.linear) for found in (solution, boot))
    tops = [
        (term.maximum(*ours)[0], term.maximum(*theirs)) for (term, *ours), (_, *theirs) in zip(best, drawn, strict=True)
    ]
    with np.errstate(over="ignore"):  # the end of an interval that has none is infinite
        return [interval(float(np.exp(top)), np.exp(draws), 0.95) for top, draws in tops]


def hits(form, law, trials, draws, noise, best):
    found = []
    for seed in range(trials):
        intervals = optimum_intervals(form, runs_of(law, noise=noise, seed=100 + seed), draws, seed)
        found.append([one.low <= true <= one.high for one, true in zip(intervals, best, strict=True)])
    return np.mean(found, axis=0)


TOP = {
    "quadratic": (np.exp(0.1 / 0.035), np.exp(4.0)),
    "released": (17.8, 51.7),
    "performance-law": tuple((1 / (0.5 * w)) ** (1 / w) for w in (0.49, 0.405)),
}


@pytest.mark.parametrize(
    ("form", "trials", "draws"),
    [("quadratic", 100, 400), pytest.param("released", 40, 150, marks=pytest.mark.slow)],
)
def test_a_planted_optimum_lies_in_its_interval(form, trials, draws):
    """The nominal level is 95 %; the slow tests count more trials."""
    shares = hits(form, PLANTED[form][0], trials, draws, 0.003, TOP[form])
    assert np.all(shares >= 0.9), shares


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.001, 0.003, 0.01])
@pytest.mark.parametrize("form", list(TOP))
def test_planted_optima_lie_in_their_intervals(form, noise):
    shares = hits(form, PLANTED[form][0], 200, 300, noise, TOP[form])
    assert np.all(shares >= 0.9), shares


@pytest.mark.slow
@pytest.mark.parametrize("form", list(TOP))
def test_the_sizes_that_are_told_have_intervals_with_the_planted_ones(form):
    """As a user asks for them: a fit, then its best size among whole ones, which may be half a layer or value off."""
    covered = []
    for seed in range(40):
        law = fit(runs_of(PLANTED[form][0], noise=0.003, seed=100 + seed), form, draws=200, seed=seed)
        found = optimum(Search(law))
        for axis, true in zip((found.layers, found.dim), TOP[form], strict=True):
            covered.append(axis.at.low - 0.5 <= true <= axis.at.high + 0.5)
    assert np.mean(covered) >= 0.9
