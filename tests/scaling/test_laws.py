"""The forms of a law against their formulas, and the Huber loss against scipy."""

import numpy as np
import pytest
import scipy.optimize

from wukong_jax.errors import ConfigError
from wukong_jax.scaling.laws import LAWS, huber_of_logs, law_named
from wukong_jax.scaling.variable_projection import search

FORMULAS = {
    "power": lambda x, z, alpha, A: A * x**-alpha,
    "saturating": lambda x, z, alpha, E, A: E + A * x**-alpha,
    "known-floor": lambda x, z, alpha, A: 0.2 + A * x**-alpha,
    "log-linear": lambda x, z, c, b: c + b * np.log(x),
    "joint": lambda x, z, alpha, beta, E, A, B: E + A * x**-alpha + B * z**-beta,
}
TRUE = {"alpha": 0.31, "beta": 0.44, "E": 0.35, "A": 0.21, "B": 2.5, "c": 0.5, "b": -0.02}
X, Z = np.geomspace(3e-4, 0.2, 5).repeat(5), np.tile(np.geomspace(1e4, 1e7, 5), 5)


def inputs(law):
    return np.stack([X, Z])[: law.variables]


@pytest.mark.parametrize("name", LAWS)
def test_values_are_those_of_the_formula(name):
    law = law_named(name)
    true = [TRUE[parameter] for parameter in law.parameters]
    value = law.predict(np.array([true]), inputs(law), 0.2 if law.from_floor else 0.0)
    np.testing.assert_allclose(value[0], FORMULAS[name](X, Z, *true), rtol=1e-12)


@pytest.mark.parametrize("origin", [0.0, -100.0])
@pytest.mark.parametrize("name", LAWS)
def test_exact_data_give_back_the_parameters_of_the_inputs_themselves(name, origin):
    law = law_named(name)
    true = [TRUE[parameter] for parameter in law.parameters]
    known = 0.2 if law.from_floor else 0.0
    targets = law.predict(np.array([true]), inputs(law), known) - known
    found = search(law.separable(inputs(law)), targets)
    natural = law.natural(inputs(law), found.nonlinear, found.linear, origin)[0]
    expected = np.array(true)
    for constant in {"E", "c"} & set(law.parameters):
        expected[law.parameters.index(constant)] += origin
    np.testing.assert_allclose(natural, expected, rtol=1e-3)


@pytest.mark.parametrize("rise", [-0.02, 0.0])
def test_a_power_law_may_rise_or_stay(rise):
    law = law_named("power")
    found = search(law.separable(X[None]), (0.5 * X**-rise)[None])
    np.testing.assert_allclose(found.nonlinear, [[rise]], atol=1e-7)


def test_a_rising_metric_gives_a_saturating_law_its_constant():
    law = law_named("saturating")
    y = 0.5 + 0.01 * np.log(X)
    found = search(law.separable(X[None]), y[None])
    np.testing.assert_allclose(found.linear, [[y.mean(), 0.0]], atol=1e-9)


def test_an_unknown_form_names_the_forms():
    with pytest.raises(ConfigError, match="received 'powr', expected one of power, saturating"):
        law_named("powr")


def test_huber_of_logarithms_is_the_optimum_of_scipy(rng):
    """Chinchilla's third approach, written as they do: log-sum-exp, L-BFGS from many starts."""
    x = np.geomspace(0.3, 100, 9)
    y = (0.4 + 0.1 * x**-0.3) * np.exp(0.002 * rng.normal(size=9))
    y[2] *= 1.02
    law = law_named("saturating")
    model = law.separable(x[None])
    found = search(model, y[None], solver=huber_of_logs(model.nonnegative, 0.0))

    def loss(p):
        size = np.abs(np.logaddexp(p[0], p[1] - p[2] * np.log(x)) - np.log(y))
        return 1e6 * np.sum(np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)))

    starts = [[e, a, alpha] for e in (-1.0, -0.5) for a in (-3.0, -2.0) for alpha in (0.1, 0.5, 1.0)]
    bounds = [(-5, 1), (-9, 3), (0.02, 3)]
    best = min(scipy.optimize.minimize(loss, start, method="L-BFGS-B", bounds=bounds).fun for start in starts)
    assert 1e6 * found.objective[0] <= best * (1 + 1e-4)
    natural = law.natural(x[None], found.nonlinear, found.linear, 0.0)[0]
    np.testing.assert_allclose(loss([np.log(natural[1]), np.log(natural[2]), natural[0]]), 1e6 * found.objective[0])


def test_huber_is_hardly_moved_by_an_outlier():
    x = np.geomspace(0.3, 100, 11)
    y = 0.4 + 0.1 * x**-0.3
    y[4] += 0.05
    law = law_named("saturating")
    model = law.separable(x[None])
    robust = search(model, y[None], solver=huber_of_logs(model.nonnegative, 0.0))
    plain = search(model, y[None])
    assert abs(robust.nonlinear[0, 0] - 0.3) < 0.03 < abs(plain.nonlinear[0, 0] - 0.3)


def test_huber_counts_the_known_part():
    """The logarithm is the metric's, not that of its distance from the floor."""
    x = np.geomspace(0.3, 100, 9)
    law = law_named("known-floor")
    model = law.separable(x[None])
    found = search(model, (0.1 * x**-0.3)[None], solver=huber_of_logs(model.nonnegative, 0.4))
    np.testing.assert_allclose(found.nonlinear, [[0.3]], rtol=1e-4)
    off = search(model, (0.1 * x**-0.3 + 0.001)[None], solver=huber_of_logs(model.nonnegative, 0.4))
    residual = np.log((0.4 + off.linear[0] @ model.design(off.nonlinear)[0]) / (0.4 + 0.1 * x**-0.3 + 0.001))
    size = np.abs(residual)
    np.testing.assert_allclose(
        off.objective[0], np.sum(np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4))), rtol=1e-6
    )
