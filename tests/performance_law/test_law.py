"""The forms: their curves, their own parameters, their optima, against the formulas written out."""

import numpy as np
import pytest

from tests.performance_law.made_runs import DIMS, LAYERS, grid, pooled, runs_of
from tests.performance_law.made_runs import log_linear as planted_line
from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.law import FORMS, data_freedom, form_named, inputs_of, law_of, p1_of

P1 = {"released": 0.7, "performance-law": -0.6}
EXPONENTS = {
    "performance-law": [(-0.3, 0.4), (1e-3, -2.9)],
    "released": [(-0.3, 0.4), (1e-3, -2.9)],
    "power": [(0.3, 1.4), (1e-3, 2.9)],
}


def formula(form, p, n, d):
    """Every form as its docstring has it."""
    x, z = np.log(n), np.log(d)
    match form:
        case "performance-law":
            p1 = P1[form]
            return p["w1"] * (x + p1 * n ** -p["w3"]) + p["w2"] * (z + p1 * d ** -p["w4"]) + p["c"]
        case "released":
            depth, width = (-p[w] * v - P1[form] * np.exp(-p[w] * v) for w, v in (("w3", x), ("w4", z)))
            return p["w1"] * depth + p["w2"] * width + p["b"]
        case "power":
            return p["c"] - p["A"] * n ** -p["alpha"] - p["B"] * d ** -p["beta"]
        case "log-linear":
            return p["a"] * x + p["b"] * z + p["c"]
    bent = p["a1"] * x + p["a2"] * x**2 + p["b1"] * z + p["b2"] * z**2 + p["c"]
    return bent + p.get("g", 0.0) * x * z


@pytest.mark.parametrize("form", FORMS)
def test_the_columns_are_the_formula_with_its_own_parameters(form, rng):
    law = law_of(FORMS[form], runs_of(planted_line), P1.get(form))
    exponents = np.array(EXPONENTS.get(form, [(), ()]), float).reshape(2, -1)
    linear = rng.uniform(0.1, 1.0, (2, len(law.linear)))
    n, d = grid((2, *LAYERS, 64), (10, *DIMS, 200))
    found = law.values(exponents, linear, np.stack([n, d]), np.zeros(len(n), int))
    natural = law.natural(exponents, linear)
    for k in range(2):
        parameters = dict(zip(law.parameters, natural[k], strict=True))
        expected = formula(form, parameters, n, d)
        np.testing.assert_allclose(found[k], expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_the_design_is_that_of_the_values(form, rng):
    runs = pooled(planted_line)
    law = law_of(FORMS[form], runs, None)
    model = law.separable(inputs_of(law, runs), runs.panel)
    exponents = np.array([[axis[3] for axis in model.axes], [axis[-2] for axis in model.axes]]).reshape(2, -1)
    linear = rng.normal(size=(2, len(law.linear)))
    by_design = np.einsum("fc,fcn->fn", linear, model.design(exponents))
    np.testing.assert_allclose(law.values(exponents, linear, inputs_of(law, runs), runs.panel), by_design, rtol=1e-12)
    assert law.linear[:3] == tuple(f"{law.form.constant}[{name}]" for name in runs.panels)


@pytest.mark.parametrize("form", ["performance-law", "released", "power"])
def test_the_exponents_searched_are_increasing_and_leave_no_gap_between_shapes(form):
    """Between neighbours a curve's shape turns by a tenth at most, so that no basin lies between two of them."""
    law = law_of(FORMS[form], runs_of(planted_line), None)
    for term in law.terms:
        axis = term.axis(40)
        assert np.all(np.diff(axis) > 0)
        assert np.abs(axis).max() == pytest.approx(3.0)
        curves = term.columns(axis, np.linspace(term.range.low, term.range.high, 50))[0]
        shapes = curves - curves.mean(axis=1, keepdims=True)
        shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
        cosines = np.abs(np.sum(shapes[1:] * shapes[:-1], axis=1))
        assert cosines.min() > 0.99


@pytest.mark.parametrize("dims", [(1000, 1001, 1003), (1, 10**6), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize("form", ["performance-law", "released", "power"])
def test_no_exponent_overflows_however_wide_or_narrow_the_range(form, dims):
    runs = runs_of(planted_line, dims=dims)
    law = law_of(FORMS[form], runs, None)
    model = law.separable(inputs_of(law, runs), runs.panel)
    for first in model.axes[0][[0, -1]]:
        exponents = np.stack([np.full(len(model.axes[1]), first), model.axes[1]], axis=1)
        assert np.all(np.isfinite(model.design(exponents)))
        far = np.array([[1.0, 1e4], [1e-3, 1e9]])
        assert np.all(np.isfinite(law.values(exponents, np.ones((len(exponents), 3)), far, np.zeros(2, int))))


def test_the_data_term_is_there_only_where_data_vary_within_a_panel():
    n = 12
    by_panel = np.repeat([1e6, 2e6, 3e6], n)
    within = np.tile(np.repeat([1e6, 2e6], n // 2), 3)
    many = np.tile(np.repeat([1e6, 2e6, 4e6, 8e6], n // 4), 3)
    expected = [(None, 0, ()), (by_panel, 0, ()), (within, 1, ()), (many, 3, ("w5",))]
    for data, freedom, exponents in expected:
        runs = pooled(planted_line, data=data)
        assert data_freedom(runs) == freedom
        law = law_of(FORMS["released"], runs, None)
        assert law.exponents == ("w3", "w4", *exponents)
        assert len(law.terms) == (3 if freedom else 2)
    two = pooled(planted_line, data=within).only(0)
    law = law_of(FORMS["released"], two, None)
    assert law.exponents == ("w3", "w4")
    assert law.linear[-1] == "w_data"


@pytest.mark.parametrize(
    ("form", "p1", "message"),
    [
        ("released", 1.0, "one layer whatever the runs say"),
        ("released", -0.5, "expected a positive number"),
        ("performance-law", 0.0, "would bend nothing"),
        ("performance-law", np.nan, "expected a number from 1e-6 to 1e6"),
        ("performance-law", 1e300, "expected a number from 1e-6 to 1e6"),
    ],
)
def test_a_p1_without_sense_is_refused(form, p1, message):
    with pytest.raises(ConfigError, match=message):
        p1_of(FORMS[form], p1)


def test_p1_is_the_forms_own_unless_given():
    assert p1_of(FORMS["released"], None) == 0.5
    assert p1_of(FORMS["released"], 2.0) == 2.0
    assert p1_of(FORMS["performance-law"], 0.5) == 0.5
    assert p1_of(FORMS["quadratic"], 0.5) is None


def test_an_unknown_form_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match="received 'cubic', expected one of performance-law, released, quadratic"):
        form_named("cubic")
