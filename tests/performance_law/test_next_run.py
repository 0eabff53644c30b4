"""The next run: against its definition written out, what must hold of it, and against chance on planted laws."""

import dataclasses

import numpy as np
import pytest

from tests.performance_law.planted_law import certain, grid_runs, least_squares_law, peak
from wukong_jax.errors import ConfigError
from wukong_jax.performance_law import next_run as module
from wukong_jax.performance_law.next_run import next_run
from wukong_jax.performance_law.noise import Noise
from wukong_jax.performance_law.search import Search

SIGMA = 0.004
NOISE = Noise(SIGMA, "given")
LAYERS, DIMS = (
    axis.reshape(-1) for axis in np.meshgrid(np.arange(4.0, 33, 4), np.arange(25.0, 101, 12.5), indexing="ij")
)
FEW = grid_runs((4, 8, 16), (25, 50, 75))


def first_law(seed=0, draws=200):
    rng = np.random.default_rng(seed)
    truth = certain(FEW, "quadratic", peak(14, 55))
    y = truth.predict(FEW.layers, FEW.dim) + SIGMA * rng.standard_normal(len(FEW.y))
    return least_squares_law(dataclasses.replace(FEW, y=y), sigma=SIGMA, draws=draws, seed=seed)


def written_out(law, target, candidate, seed):
    """Expected value after one run, by loops over outcomes and draws."""
    rng = np.random.default_rng(seed)
    values = law.predict_draws(LAYERS, DIMS)
    at = law.predict_draws(*(np.array([one]) for one in candidate))[:, 0]
    supposed = rng.integers(0, len(at), module.OUTCOMES)
    shocks = SIGMA * rng.standard_normal(module.OUTCOMES)
    after = []
    for draw, shock in zip(supposed, shocks, strict=True):
        weights = np.array([np.exp(-((at[draw] + shock - one) ** 2) / (2 * SIGMA**2)) for one in at])
        weights /= weights.sum()
        if target == "regret":
            mean = sum(w * f for w, f in zip(weights, values, strict=True))
            chosen = int(np.argmax(mean))
            after.append(sum(w * (f.max() - f[chosen]) for w, f in zip(weights, values, strict=True)))
        else:
            best = values.argmax(axis=1)
            total = 0.0
            for axis in (LAYERS, DIMS):
                order = np.argsort(axis[best], kind="stable")
                share = np.cumsum(weights[order])
                low, high = (axis[best][order][np.argmax(share >= part)] for part in (0.025, 0.975))
                total += np.log(high / low)
            after.append(total)
    return np.mean(after)


@pytest.mark.parametrize("target", ["regret", "interval"])
def test_candidates_are_judged_as_the_docstring_says(target):
    law = first_law()
    found = next_run(Search(law), LAYERS, DIMS, NOISE, target=target, seed=5)
    for number in (0, 7, len(found.expected) - 1):
        expected = written_out(law, target, (found.layers[number], found.dims[number]), 5)
        assert found.expected[number] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert np.all(np.diff(found.expected) >= 0)
    assert {*zip(found.layers, found.dims, strict=True)} == {*zip(LAYERS, DIMS, strict=True)}
    np.testing.assert_allclose(found.reduction, found.now - found.expected)


def test_a_run_where_all_draws_agree_tells_nothing():
    """Draws with other d*, all with one value at d = 50: a run there is wasted."""
    law = first_law()
    best = np.geomspace(40, 80, 100)
    drawn = np.stack([peak(14, d, top=0.3, width=0.05) for d in best])
    drawn[:, 0] += 0.05 * np.log(50 / best) ** 2
    search = Search(dataclasses.replace(law, drawn=drawn, coefficients=drawn.mean(axis=0)))
    candidates = np.array([14.0, 14.0]), np.array([50.0, 100.0])
    for target in ("regret", "interval"):
        found = next_run(search, LAYERS, DIMS, NOISE, target=target, candidates=candidates)
        assert found.dims[0] == 100
        assert found.expected[1] == pytest.approx(found.now, rel=1e-6)


def test_less_noise_tells_more():
    search = Search(first_law())
    sharp, dull = (next_run(search, LAYERS, DIMS, Noise(sigma, "given")) for sigma in (0.001, 0.02))
    assert sharp.reduction.max() > 2 * dull.reduction.max() > 0


def test_where_the_choice_is_certain_no_run_is_worth_making():
    law = first_law()
    search = Search(dataclasses.replace(law, drawn=np.tile(law.coefficients, (50, 1))))
    found = next_run(search, LAYERS, DIMS, NOISE)
    assert np.all(found.expected >= 0)
    assert not found.worthwhile
    assert not next_run(search, LAYERS, DIMS, NOISE, target="interval").worthwhile
    assert next_run(Search(first_law()), LAYERS, DIMS, NOISE, target="interval").worthwhile
    assert next_run(Search(first_law()), LAYERS, DIMS, NOISE).worthwhile


def test_candidates_that_are_shown_differ():
    sizes = np.array([[16, 50], [16, 51], [20, 60], [8, 50], [8.5, 52], [16, 80]], float).T
    found = module.NextRun("regret", *sizes, np.arange(6.0), 1.0, SIGMA)
    assert found.shown(9).tolist() == [0, 3, 5]
    assert found.shown(2).tolist() == [0, 3]


def test_the_same_seed_gives_the_same_answer():
    search = Search(first_law())
    one, two = (next_run(search, LAYERS, DIMS, NOISE, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.expected, two.expected)


def test_many_sizes_are_thinned():
    layers, dims = (a.reshape(-1) for a in np.meshgrid(np.arange(4.0, 33), np.arange(25.0, 101), indexing="ij"))
    found = next_run(Search(first_law()), layers, dims, NOISE)
    assert len(found.layers) == module.MOST_CANDIDATES


@pytest.mark.parametrize("sigma", [0.0, np.nan])
def test_no_noise_is_refused(sigma):
    with pytest.raises(ConfigError, match="give --sigma"):
        next_run(Search(first_law()), LAYERS, DIMS, Noise(sigma, "from the residuals"))


def regret_and_width(seed, how, steps=3):
    """True regret of the size chosen after some runs, and how wide the intervals then are."""
    rng = np.random.default_rng(seed)
    n, d = np.exp(rng.uniform(np.log(6), np.log(24))), np.exp(rng.uniform(np.log(30), np.log(80)))
    truth = certain(FEW, "quadratic", peak(n, d))
    runs = dataclasses.replace(FEW, y=truth.predict(FEW.layers, FEW.dim) + SIGMA * rng.standard_normal(len(FEW.y)))
    for step in range(steps):
        if how == "chance":
            number = rng.integers(len(LAYERS))
            size = LAYERS[number], DIMS[number]
        else:
            law = least_squares_law(runs, sigma=SIGMA, draws=200, seed=step)
            found = next_run(Search(law), LAYERS, DIMS, NOISE, target=how)
            size = found.layers[0], found.dims[0]
        y = truth.predict(*size) + SIGMA * rng.standard_normal()
        added = {"layers": size[0], "dim": size[1], "y": y, "panel": 0}
        runs = dataclasses.replace(
            runs, **{name: np.append(getattr(runs, name), value) for name, value in added.items()}
        )
    law = least_squares_law(runs, sigma=SIGMA)
    good = truth.predict(LAYERS, DIMS)
    best = law.predict_draws(LAYERS, DIMS).argmax(axis=1)
    widths = [np.log(np.quantile(axis[best], 0.975) / np.quantile(axis[best], 0.025)) for axis in (LAYERS, DIMS)]
    return good.max() - good[np.argmax(law.predict(LAYERS, DIMS))], sum(widths)


@pytest.mark.parametrize(("target", "measure"), [("regret", 0), ("interval", 1)])
def test_it_beats_choosing_by_chance_on_planted_laws(target, measure):
    trials = 24
    chosen, chance = (
        np.array([regret_and_width(seed, how)[measure] for seed in range(trials)]) for how in (target, "chance")
    )
    assert chosen.mean() < 0.8 * chance.mean()
    if target == "interval":
        assert np.mean(chosen < chance) > 0.7
