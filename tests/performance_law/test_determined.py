"""Parameters that runs hardly determine are named and given no number; those that they do determine keep theirs."""

import numpy as np
import pytest

from tests.performance_law.made_runs import arxiv, log_linear, pooled, power, quadratic, released, runs_of
from wukong_jax.performance_law.fit import fit

NOISE = 0.002
LAWS = {"released": released, "performance-law": arxiv, "power": power}


def noisy(law, seed=0):
    return runs_of(law, noise=NOISE, seed=seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("form", "names", "constant"),
    [
        ("released", {"w1", "w2", "w3", "w4"}, "b"),
        ("power", {"A", "B", "alpha", "beta"}, "c"),
        ("performance-law", {"w1", "w2", "w3", "w4"}, None),
    ],
)
def test_noisy_straight_lines_determine_no_exponent_nor_what_grows_with_it(form, names, constant, seed):
    found = fit(noisy(log_linear, seed), form, draws=200)
    assert set(found.unidentified) == names | ({constant} if constant else set())
    for name, value in found.parameters.items():
        assert np.isnan(value.value) == (name in found.unidentified), name
    assert sum("straight line" in note for note in found.notes) == 2
    np.testing.assert_allclose(found.predict(16, 60), log_linear(16, 60), atol=2 * NOISE)


@pytest.mark.parametrize("form", LAWS)
def test_bent_curves_determine_theirs(form):
    found = fit(noisy(LAWS[form]), form, draws=200)
    assert found.unidentified == ()
    assert found.notes == () or not any("draws" in note for note in found.notes)


def test_one_straight_input_leaves_the_other_its_parameters():
    found = fit(noisy(lambda n, d: log_linear(n, 1.0) + quadratic(8.0, d)), "performance-law", draws=200)
    assert set(found.unidentified) == {"w1", "w3"}
    assert all(np.isfinite(found.parameters[name]).all() for name in ("w2", "w4", "c"))


def test_panels_lose_their_constants_together():
    found = fit(pooled(log_linear, noise=NOISE), "power", draws=200)
    assert {"c[a]", "c[b]", "c[c]"} <= set(found.unidentified)


def test_a_weight_of_0_in_some_draws_leaves_its_exponent_open():
    found = fit(noisy(lambda n, d: power(n, 1e9) + 0 * d), "power", draws=200)
    assert "beta" in found.unidentified
    assert np.isfinite(found.parameters["alpha"]).all()
