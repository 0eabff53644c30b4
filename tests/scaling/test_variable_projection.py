"""Variable projection against closed forms and scipy."""

import numpy as np
import pytest
import scipy.optimize

from wukong_jax.scaling.variable_projection import (
    Separable,
    least_squares,
    search,
    search_basins,
    search_without_each,
    unidentified,
)


def exponentials(x, count, nonnegative=None):
    """1 and x^-t for each of `count` exponents."""
    logs = np.log(x)

    def design(exponents):
        powers = np.exp(-exponents[:, :, None] * logs)
        return np.concatenate([np.ones((len(exponents), 1, len(x))), powers], axis=1)

    axis = np.geomspace(0.01, 3, 40)
    names = tuple(f"t{k}" for k in range(count))
    columns = ("c", *(f"a{k}" for k in range(count)))
    return Separable(design, (axis,) * count, names, columns, nonnegative or (False,) * (count + 1))


@pytest.mark.parametrize("signs", [(False,) * 3, (True,) * 3, (True, False, True), (False, False, True)])
def test_coefficients_are_those_of_scipy(rng, signs):
    design, targets = rng.normal(size=(20, 3, 9)), rng.normal(size=(20, 9))
    weights = rng.uniform(0.1, 2, (20, 9))
    found, objective = least_squares(signs)(design, targets, weights)
    for one in range(20):
        root = np.sqrt(weights[one])
        lower = np.where(signs, 0.0, -np.inf)
        best = scipy.optimize.lsq_linear((design[one] * root).T, targets[one] * root, (lower, np.inf), tol=1e-14)
        np.testing.assert_allclose(found[one], best.x, atol=1e-6)
        np.testing.assert_allclose(objective[one], 2 * best.cost, rtol=1e-9)


def test_leading_axes_broadcast(rng):
    design, targets = rng.normal(size=(4, 1, 2, 6)), rng.normal(size=(1, 5, 6))
    found, objective = least_squares((False, False))(design, targets, None)
    assert found.shape == (4, 5, 2)
    for i in range(4):
        for j in range(5):
            best, squares, *_ = np.linalg.lstsq(design[i, 0].T, targets[0, j], rcond=None)
            np.testing.assert_allclose(found[i, j], best, rtol=1e-9)
            np.testing.assert_allclose(objective[i, j], squares[0], rtol=1e-9)


def test_nearly_parallel_columns_lose_no_digits():
    x = np.linspace(0, 1, 8)
    design = np.stack([np.ones(8), 1 + 1e-6 * x])[None]
    found, _ = least_squares((False, False))(design, (2 + 3e-6 * x)[None], None)
    np.testing.assert_allclose(found[0], [-1.0, 3.0], rtol=1e-7)


@pytest.mark.parametrize("exponent", [0.0113, 0.2, 0.777, 2.9])
def test_exact_data_give_back_their_parameters(exponent):
    x = np.geomspace(0.5, 80, 9)
    found = search(exponentials(x, 1), (0.4 + 0.3 * x**-exponent)[None])
    np.testing.assert_allclose(found.nonlinear, [[exponent]], rtol=1e-5)
    np.testing.assert_allclose(found.linear, [[0.4, 0.3]], rtol=1e-4)
    assert not found.at_bound.any()


def test_two_exponents_on_one_axis_each(rng):
    x, z = np.geomspace(0.5, 80, 6).repeat(5), np.tile(np.geomspace(1, 1e3, 5), 6)

    def design(exponents):
        columns = [np.ones((len(exponents), 30)), x ** -exponents[:, :1], z ** -exponents[:, 1:]]
        return np.stack(columns, axis=1)

    axis = np.geomspace(0.01, 3, 30)
    model = Separable(design, (axis, axis), ("a", "b"), ("E", "A", "B"), (True,) * 3)
    found = search(model, (0.4 + 0.3 * x**-0.35 + 0.9 * z**-0.6)[None])
    np.testing.assert_allclose(found.nonlinear, [[0.35, 0.6]], rtol=1e-4)
    np.testing.assert_allclose(found.linear, [[0.4, 0.3, 0.9]], rtol=1e-3)


def test_it_is_never_worse_than_many_starts_of_scipy(rng):
    x = np.geomspace(0.5, 80, 8)
    targets = 0.4 + 0.3 * x ** -rng.uniform(0.05, 2, (12, 1)) + 0.01 * rng.normal(size=(12, 8))
    found = search(exponentials(x, 1), targets)
    for one, y in enumerate(targets):
        costs = [
            scipy.optimize.least_squares(
                lambda p, y=y: p[0] + p[1] * x ** -p[2] - y, [y.min(), 0.3, start], bounds=([-9, -9, 0.01], [9, 9, 3])
            ).cost
            for start in (0.05, 0.3, 1.0, 2.0)
        ]
        assert found.objective[one] <= 2 * min(costs) * (1 + 1e-6)


def test_weights_and_problems_stay_apart(rng):
    x = np.geomspace(0.5, 80, 8)
    targets, weights = rng.normal(size=(7, 8)), rng.uniform(0.1, 1, (7, 8))
    model = exponentials(x, 1)
    together = search(model, targets, weights)
    for one in range(7):
        alone = search(model, targets[[one]], weights[[one]])
        np.testing.assert_array_equal(alone.nonlinear[0], together.nonlinear[one])


def test_a_point_of_weight_0_has_no_effect(rng):
    x = np.geomspace(0.5, 80, 8)
    y = 0.4 + 0.3 * x**-0.4 + 0.01 * rng.normal(size=8)
    spoilt = y.copy()
    spoilt[3] = 99.0
    weights = (np.arange(8) != 3).astype(float)[None]
    found, clean = (search(exponentials(x, 1), values[None], weights) for values in (spoilt, y))
    np.testing.assert_allclose(found.linear, clean.linear, rtol=1e-6)


def test_an_optimum_beyond_the_grid_is_said():
    x = np.geomspace(0.5, 80, 9)
    assert search(exponentials(x, 1), (1 + x**-5.0)[None]).at_bound.all()


def test_a_model_without_nonlinear_parameters_is_a_regression(rng):
    x, targets = rng.normal(size=9), rng.normal(size=(3, 9))
    model = Separable(
        lambda none: np.broadcast_to(np.stack([np.ones(9), x]), (len(none), 2, 9)), (), (), ("c", "b"), (False,) * 2
    )
    found = search(model, targets)
    for one in range(3):
        np.testing.assert_allclose(found.linear[one], np.polyfit(x, targets[one], 1)[::-1], rtol=1e-9)


def test_the_search_may_begin_near_a_known_optimum(rng):
    x = np.geomspace(0.5, 80, 9)
    y = (0.4 + 0.3 * x**-0.5)[None]
    near = search(exponentials(x, 1), y, starts=np.array([[0.6]]))
    np.testing.assert_allclose(near.nonlinear, [[0.5]], rtol=1e-4)


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (lambda x, t: [np.ones_like(x), x ** -t[0]], ()),
        (lambda x, t: [np.ones_like(x), 2 * np.ones_like(x), x ** -t[0]], ("c0", "c1")),
        (lambda x, t: [np.ones_like(x) * t[0] ** -0.5, np.ones_like(x)], ("t0", "c0", "c1")),
        (lambda x, t: [np.ones_like(x), 0 * x], ("t0", "c1")),
    ],
)
def test_parameters_that_the_points_do_not_determine_are_named(columns, names):
    """The third: a constant that a nonlinear parameter moves, as D does in the Performance Law's released script."""
    x = np.geomspace(0.5, 80, 9)

    def design(exponents):
        return np.stack([np.stack(columns(x, t)) for t in exponents])

    width = len(columns(x, [0.3]))
    model = Separable(
        design, (np.geomspace(0.1, 1, 5),), ("t0",), tuple(f"c{k}" for k in range(width)), (False,) * width
    )
    assert unidentified(model, np.array([0.3]), np.ones(width)) == names


def test_more_parameters_than_points_are_not_determined(rng):
    x = np.array([1.0, 10.0])
    assert unidentified(exponentials(x, 1), np.array([0.3]), np.ones(2)) != ()


@pytest.mark.parametrize("nonnegative", [(False, False), (True, True)])
def test_the_shared_factorisation_finds_what_single_problems_find(rng, nonnegative):
    """Without weights and solver all problems share one; with weights of 1 each has its own."""
    x = np.geomspace(0.5, 80, 8)
    targets = (
        0.4 - 0.3 * rng.normal(size=(20, 1)) * x ** -rng.uniform(0.05, 2, (20, 1)) + 0.05 * rng.normal(size=(20, 8))
    )
    model = exponentials(x, 1, nonnegative)
    shared, single = search(model, targets), search(model, targets, np.ones_like(targets))
    np.testing.assert_allclose(shared.objective, single.objective, rtol=1e-9)
    np.testing.assert_allclose(shared.linear, single.linear, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("nonnegative", [(False, False), (True, True)])
def test_leaving_groups_out_is_weighing_them_with_0(rng, nonnegative):
    """Without refinement: the same place of the grid; with noise only, so that signs change as points are left out."""
    x = np.geomspace(0.5, 80, 8).repeat(2)
    groups = np.arange(16) // 2
    model = exponentials(x, 1, nonnegative)
    weights = (groups != np.arange(8)[:, None]).astype(float)
    for _ in range(10):
        y = 0.02 + 0.05 * rng.normal(size=16)
        found = search_without_each(model, y, groups, rounds=0)
        expected = search(model, np.tile(y, (8, 1)), weights, rounds=0)
        np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-9)
        np.testing.assert_allclose(found.linear, expected.linear, rtol=1e-6, atol=1e-12)


def test_a_group_that_alone_carries_a_column_is_left_out_without_failing(rng):
    indicator = np.arange(6) == 5

    def design(exponents):
        columns = [np.ones(6), indicator.astype(float)]
        return np.broadcast_to(np.stack(columns), (len(exponents), 2, 6)) * exponents[:, :, None] ** 0

    model = Separable(design, (np.array([1.0, 2.0]),), ("t",), ("c", "b"), (False, False))
    y = rng.normal(size=6)
    found = search_without_each(model, y, np.arange(6))
    np.testing.assert_allclose(found.linear[5], [y[:5].mean(), 0.0], atol=1e-12)


def test_the_lowest_basin_is_found_though_the_grid_prefers_another():
    """Between two places of the grid lies an exact fit; another basin's best place is better than either of them."""

    def design(t):
        exact = np.where(np.abs(t - 2.5) < 0.5, 1 - np.abs(t - 2.5) * 1.9, 0.0)
        near = np.where(np.abs(t - 7.0) < 0.5, 0.9, 0.0)
        angle = np.arccos(np.maximum(exact, near))
        return np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=2)

    axis = np.sort(np.append(np.arange(10.0), 2.2))
    model = Separable(design, (axis,), ("t",), ("c",), (False,))
    y = np.array([1.0, 0.0, 0.0])
    assert search(model, y[None]).nonlinear[0, 0] > 6
    found = search_basins(model, y)
    assert found.nonlinear[0, 0] == pytest.approx(2.5, abs=1e-6)
    assert found.objective[0] == pytest.approx(0.0, abs=1e-9)


def test_looking_into_all_basins_minds_weights(rng):
    x = np.geomspace(0.5, 80, 8)
    y, weights = 0.4 + 0.3 * x**-0.4 + 0.05 * rng.normal(size=8), rng.uniform(0.1, 1, 8)
    model = exponentials(x, 1)
    found, expected = search_basins(model, y, weights), search(model, y[None], weights[None])
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-9)
    np.testing.assert_allclose(found.nonlinear, expected.nonlinear, rtol=1e-5)
