"""The best size under planted laws: among the runs, beyond them, nowhere; regions, budgets, what is promised."""

import dataclasses

import numpy as np
import pytest

from tests.performance_law.planted_law import certain, grid_runs, least_squares_law, peak
from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.answers import Fixed, Flat, Inside, NoInterior, Outside, Side, Unbounded, plain_answer
from wukong_jax.performance_law.budgets import Budget, size
from wukong_jax.performance_law.fit import fit
from wukong_jax.performance_law.lattice import Lattice
from wukong_jax.performance_law.noise import noise_of
from wukong_jax.performance_law.optimum import optimum
from wukong_jax.performance_law.search import Search

RUNS = grid_runs()


def answers(curves, coefficients, units=(1.0, 1.0), lattice=None, runs=RUNS):
    found = optimum(Search(certain(runs, curves, coefficients, units)), lattice)
    return found.layers, found.dim


def test_an_optimum_among_the_runs_is_found():
    depth, width = answers("quadratic", peak(17.8, 51.7))
    assert isinstance(depth, Inside)
    assert isinstance(width, Inside)
    assert (depth.at.value, width.at.value) == (18, 52)
    assert depth.share == width.share == 1


@pytest.mark.parametrize(("n", "d"), [(6.3, 90.2), (16.0, 40.0), (30.7, 27.5)])
def test_the_released_form_is_best_where_its_closed_form_says(n, d):
    # p1^(1/w3) in units of the logarithms, which are chosen so that this is (n, d)
    units = (n / 2 ** (1 / 0.8), d / 2 ** (1 / 0.4))
    depth, width = answers("released", [0.3, 0.05, 0.07], units)
    assert abs(depth.at.value - n) <= 0.5
    assert abs(width.at.value - d) <= 0.5


def test_the_search_agrees_with_the_closed_form_of_a_fit():
    n_star, d_star = 17.8, 51.7
    w3, w4 = -np.log(2) / np.log(n_star), -np.log(2) / np.log(d_star)
    rng = np.random.default_rng(3)

    def planted(n, d):
        depth, width = (-w * np.log(x) - 0.5 * x**-w for w, x in ((w3, n), (w4, d)))
        return 1.0 + 0.24 * depth + 2.25 * width + 0.001 * rng.standard_normal(len(n))

    law = fit(grid_runs(y=planted), "released", draws=200)
    closed = law.closed_form_optimum()
    found = optimum(Search(law))
    for searched, formula in ((found.layers, closed.layers), (found.dim, closed.dim)):
        assert isinstance(searched, Inside)
        np.testing.assert_allclose(searched.at, formula, atol=0.6, rtol=0.05)


@pytest.mark.parametrize(("n", "side"), [(85, Side.LARGER), (700, Side.LARGER), (2, Side.SMALLER)])
def test_an_optimum_beyond_the_runs_is_said_to_be_there(n, side):
    depth, width = answers("quadratic", peak(n, 51.7))
    assert isinstance(width, Inside)
    assert isinstance(depth, Outside)
    assert depth.side is side
    assert depth.edge == (32 if side is Side.LARGER else 4)
    assert depth.at.value == pytest.approx(n, rel=0.02)
    assert "outside the measured range" in depth.text("N")


@pytest.mark.parametrize(
    ("curves", "coefficients", "expected"),
    [
        ("log-linear", [0.3, 0.01, 0.01], Unbounded(1.0)),
        ("log-linear", [0.3, -0.01, 0.01], NoInterior(Side.SMALLER, 1.0)),
        ("log-linear", [0.3, 0.0, 0.01], Flat(1.0)),
        ("power", [0.3, 0.1, 0.1], NoInterior(Side.LARGER, 1.0)),
        ("power", [0.3, -0.1, 0.1], NoInterior(Side.SMALLER, 1.0)),
        ("quadratic", peak(8, 50, depth=-0.01), Unbounded(1.0)),  # a valley among the runs, higher at its far end
        ("quadratic", peak(16, 50, depth=-0.01), NoInterior(Side.SMALLER, 1.0)),
        ("released", [0.3, -0.01, 0.01], Unbounded(1.0)),
    ],
)
def test_a_law_without_an_optimum_gets_an_answer_that_is_no_number(curves, coefficients, expected):
    depth, _ = answers(curves, coefficients, (1.0, 8.0) if curves == "released" else (1.0, 1.0))
    assert depth == expected
    assert not any(isinstance(value, int | float) for name, value in plain_answer(depth).items() if name != "share")


@pytest.mark.parametrize("depths", [None, (4, 64)])
def test_runs_over_a_huge_range_are_searched_whole_or_in_part(depths):
    runs = grid_runs(layers=(4, 40, 400, 4000, 40_000, 200_000), dims=(25, 50, 100))
    search = Search(certain(runs, "quadratic", peak(20.0, 51.0)))
    found = optimum(search, search.measured.lattice(depths))
    assert (found.best.layers, found.layers.at.value) == (20, 20), "no multiple of 1,024"
    assert found.dim.at.value == 51


def test_a_loss_is_best_where_it_is_lowest():
    runs = grid_runs(rising=False)
    law = certain(runs, "quadratic", -peak(17.8, 51.7, top=-2.0))
    found = optimum(Search(law))
    assert (found.best.layers, found.best.dim) == (18, 52)
    assert found.best.metric.value == pytest.approx(2.0, abs=1e-4)
    assert found.region.metric[0] == found.region.metric.min()


def test_intervals_hold_the_draws_and_may_have_no_end():
    law = certain(RUNS, "quadratic", peak(17.8, 51.7))
    drawn = np.stack([peak(n, 51.7) for n in np.linspace(12, 26, 60)])
    found = optimum(Search(dataclasses.replace(law, drawn=drawn)))
    assert found.layers.at == (18, 12, 26)
    rising = np.tile([0.2, 0.01, 0, 0.01, -0.001], (6, 1))
    found = optimum(Search(dataclasses.replace(law, drawn=np.concatenate([drawn, rising]))))
    assert found.layers.at.low == 12
    assert found.layers.at.high == np.inf
    assert found.layers.share == pytest.approx(60 / 66)
    assert "unbounded" in found.layers.text("N")


def test_the_region_is_all_sizes_within_the_tolerance():
    law = certain(RUNS, "quadratic", peak(17.8, 51.7), spread=0.002)
    found = optimum(Search(law), tolerance=0.004, sigma=0.001)
    layers, dims = (axis.reshape(-1) for axis in np.meshgrid(np.arange(4.0, 33), np.arange(25.0, 101), indexing="ij"))
    values = law.predict(layers, dims)
    kept = values >= values.max() - 0.004
    assert {*zip(found.region.layers, found.region.dims, strict=True)} == {*zip(layers[kept], dims[kept], strict=True)}
    assert np.all(np.diff(found.region.metric) <= 0)
    assert found.region.of == len(layers)
    drawn = law.predict_draws(layers, dims)
    share = np.mean(drawn[:, kept] >= drawn.max(axis=1, keepdims=True) - 0.004, axis=0)
    np.testing.assert_allclose(np.sort(found.region.share), np.sort(share))
    cost = layers[kept] * dims[kept]
    assert found.cheapest.layers * found.cheapest.dim == cost.min()


def test_the_cheapest_size_is_that_by_the_first_budget():
    law = certain(RUNS, "quadratic", peak(17.8, 51.7), spread=0.002)
    wide = Budget("d", 1e9, lambda layers, dim: dim)
    found = optimum(Search(law), budgets=[wide, Budget("N d", 1e9, size)], tolerance=0.004, sigma=0.001)
    assert found.cheapest.dim == found.region.dims.min()
    by_size = optimum(Search(law), budgets=[Budget("N d", 1e9, size), wide], tolerance=0.004, sigma=0.001)
    assert by_size.cheapest.layers * by_size.cheapest.dim == (found.region.layers * found.region.dims).min()
    assert by_size.cheapest.dim > found.cheapest.dim, "the two differ here"


def test_noise_above_the_tolerance_takes_its_place():
    law = certain(RUNS, "quadratic", peak(17.8, 51.7))
    assert optimum(Search(law), tolerance=0.004, sigma=0.001).region.tolerance == (0.004, "given")
    assert optimum(Search(law), tolerance=0.004, sigma=0.01).region.tolerance == (0.01, "the noise of one run, given")
    assert optimum(Search(law)).region.tolerance.value == 0.002  # of the residuals


def test_repeated_runs_tell_the_noise():
    rng = np.random.default_rng(0)
    runs = grid_runs(repeats=3, y=lambda n, d: 0.3 + 0.005 * rng.standard_normal(len(n)))
    noise = noise_of(certain(runs, "quadratic", peak(17.8, 51.7)))
    pooled = np.sqrt(np.mean(runs.y.reshape(-1, 3).var(axis=1, ddof=1)))
    assert noise.sigma == pytest.approx(pooled)
    assert "repeated" in noise.source


@pytest.mark.parametrize("limit", [200, 512, 3000])
def test_under_a_budget_the_best_size_is_that_of_all_affordable_ones(limit):
    law = certain(RUNS, "quadratic", peak(17.8, 51.7), spread=0.001)
    found = optimum(Search(law), budgets=[Budget("N d", float(limit), size)])
    sizes = [(n, d) for n in range(4, 33) for d in range(25, 101) if n * d <= limit]
    values = [float(law.predict(float(n), float(d))) for n, d in sizes]
    assert (found.best.layers, found.best.dim) == sizes[int(np.argmax(values))]
    assert found.best.metric.value == pytest.approx(max(values))
    assert found.region.of == len(sizes)
    assert (found.layers.at.value, found.dim.at.value) == (found.best.layers, found.best.dim)


def test_a_budget_stops_a_law_that_would_rise_without_end():
    law = certain(RUNS, "log-linear", [0.3, 0.01, 0.02])
    found = optimum(Search(law), budgets=[Budget("N d", 1600.0, size)])
    assert isinstance(found.layers, Inside)
    assert isinstance(found.dim, Outside)  # with d beyond 100 for the same N d the law is better
    assert found.best.layers * found.best.dim <= 1600


def test_the_end_of_the_budget_is_no_turn_of_the_law():
    rising = certain(RUNS, "log-linear", [0.3, 0.01, 0.02])
    found = optimum(Search(rising), budgets=[Budget("d", 130.0, lambda layers, dim: dim + 0 * layers)])
    assert isinstance(found.dim, Outside)
    assert found.dim.by_budget
    assert "the budget ends at 130" in found.dim.text("d")
    turning = certain(RUNS, "quadratic", peak(12, 120))
    found = optimum(Search(turning), budgets=[Budget("d", 200.0, lambda layers, dim: dim + 0 * layers)])
    assert isinstance(found.dim, Outside)
    assert not found.dim.by_budget
    assert "the extrapolated law turns at 120" in found.dim.text("d")


def test_several_budgets_hold_together():
    law = certain(RUNS, "quadratic", peak(30, 90))
    deep = Budget("layers", 10.0, lambda layers, dim: layers + 0 * dim)
    found = optimum(Search(law), budgets=[deep, Budget("N d", 500.0, size)])
    assert found.best.layers <= 10
    assert found.best.layers * found.best.dim <= 500
    narrow, wide = Budget("d", 40.0, lambda layers, dim: dim), Budget("120 - d", 60.0, lambda layers, dim: 120 - dim)
    with pytest.raises(ConfigError, match="no size that is searched keeps to all of them"):
        optimum(Search(law), budgets=[narrow, wide])


def test_a_budget_below_the_smallest_size_is_refused():
    search = Search(certain(RUNS, "quadratic", peak(17.8, 51.7)))
    with pytest.raises(ConfigError, match=r"received 99, but the smallest model .* N = 4, d = 25, costs 100"):
        optimum(search, budgets=[Budget("N d", 99.0, size)])


def test_a_fixed_depth_leaves_the_width_to_be_found():
    lattice = Lattice(np.array([64.0]), np.arange(25.0, 101))
    depth, width = answers("interaction", [*peak(17.8, 51.7), 0.002], lattice=lattice)
    assert depth == Fixed(64.0)
    best = np.exp(np.log(51.7) + 0.002 * np.log(64) / (2 * 0.02))
    assert width.at.value == pytest.approx(best, abs=0.5)


def test_the_promise_is_measured_against_the_best_run_and_its_noise():
    runs = grid_runs(y=lambda n, d: np.where((n == 12) & (d == 75), 0.32, 0.3), repeats=2)
    law = certain(runs, "quadratic", peak(17.8, 51.7, top=0.33), spread=0.0)
    promise = optimum(Search(law), sigma=0.004).promise
    assert (promise.layers, promise.dim, promise.repeats) == (12, 75, 2)
    assert promise.gain.value == pytest.approx(0.01, abs=1e-4)
    by_law = law.predict(18.0, 52.0) - law.predict(12.0, 75.0)
    assert promise.gain_by_law.value == pytest.approx(float(by_law))
    assert promise.error == pytest.approx(0.004 * np.sqrt(1.5))


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        (0.0005, "more than the noise"),
        (0.005, "about the noise"),
        (0.02, "less than the noise of such a comparison, so no better model is promised"),
    ],
)
def test_the_gain_is_judged_beside_the_noise(sigma, words):
    runs = grid_runs(y=lambda n, d: np.full(len(n), 0.32))
    promise = optimum(Search(certain(runs, "quadratic", peak(17.8, 51.7, top=0.33))), sigma=sigma).promise
    assert words in promise.verdict
    assert words in promise.text


def test_no_gain_over_a_lucky_run_is_said():
    runs = grid_runs(y=lambda n, d: np.full(len(n), 0.34))
    promise = optimum(Search(certain(runs, "quadratic", peak(17.8, 51.7, top=0.33)))).promise
    assert promise.gain.value < 0
    assert "no gain is promised" in promise.verdict


def test_under_a_budget_the_promise_is_against_what_it_allows():
    runs = grid_runs(y=lambda n, d: 0.3 + 0.0001 * n)
    law = certain(runs, "quadratic", peak(17.8, 51.7))
    promise = optimum(Search(law), budgets=[Budget("N d", 205.0, size)]).promise
    assert (promise.layers, promise.dim, promise.affordable) == (8, 25, True)
    lattice = Lattice(np.arange(1.0, 33), np.arange(2.0, 101))
    promise = optimum(Search(law), lattice, [Budget("N d", 50.0, size)]).promise
    assert (promise.layers, promise.affordable) == (32, False)
    assert "no measured size keeps to the budget" in promise.text


def test_intervals_cover_the_planted_optimum():
    covered = 0
    trials = 30
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        n, d = np.exp(rng.uniform(np.log(8), np.log(20))), np.exp(rng.uniform(np.log(40), np.log(70)))
        truth = certain(RUNS, "quadratic", peak(n, d))
        noise = 0.001 * rng.standard_normal(len(RUNS.y))
        runs = dataclasses.replace(RUNS, y=truth.predict(RUNS.layers, RUNS.dim) + noise)
        found = optimum(Search(least_squares_law(runs, sigma=0.001, seed=seed)))
        covered += found.layers.at.low - 0.5 <= n <= found.layers.at.high + 0.5
        covered += found.dim.at.low - 0.5 <= d <= found.dim.at.high + 0.5
    assert covered >= 0.9 * 2 * trials


@pytest.mark.parametrize(("name", "value"), [("tolerance", 0.0), ("tolerance", np.nan), ("sigma", -1.0)])
def test_wrong_settings_are_named(name, value):
    with pytest.raises(ConfigError, match=f"--{name}: received"):
        optimum(Search(certain(RUNS, "quadratic", peak(17.8, 51.7))), **{name: value})


def with_data():
    """The planted metric grows by .03 ln D'; every size has its own D' of two in turn."""
    runs = grid_runs()
    data = np.where(np.arange(len(runs.y)) % 2 == 0, 1e4, 3e5)
    return dataclasses.replace(runs, data=data, y=runs.y + 0.03 * np.log(data))


@pytest.mark.parametrize(("data", "measured"), [(1e4, True), (3e5, True), (3e6, False)])
def test_the_gain_over_a_measured_size_is_at_the_same_data(data, measured):
    law = fit(with_data(), "quadratic", draws=200)
    search = Search(law, 0, data)
    promise = optimum(search).promise
    assert promise.same_data == measured
    assert promise.gain_by_law.value < 0.03
    if measured:
        assert promise.gain.value < 0.05, "thirty times the data are worth .1"
    else:
        assert "only the law's own value there can be compared" in promise.text
    inside = search.measured.within(np.array([8.0]), np.array([50.0]))
    assert inside.tolist() == [measured]
