import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.errors import ConfigError
from wukong_jax.evaluation.ranking import (
    Ranked,
    compute_ranking,
    init_ranking,
    merge_ranking,
    rank_targets,
    update_ranking,
)

pytestmark = pytest.mark.usefixtures("compile_quickly")

BATCH, ITEMS, WIDTH = 40, 23, 3
KS = (1, 5, 10)
rank = jax.jit(rank_targets, static_argnames="item_chunk")


def batch(rng):
    """Small whole numbers: every score is exact, and many are equal."""
    users, items = (rng.integers(-2, 3, (n, WIDTH)).astype(np.float32) for n in (BATCH, ITEMS))
    targets = rng.integers(0, ITEMS, BATCH).astype(np.int32)
    history = rng.integers(-1, ITEMS, (BATCH, 9)).astype(np.int32)  # repeated items, padding in between
    history[:5, 0] = targets[:5]
    return users, items, targets, history


def brute_force(users, items, targets, history):
    """Sort the candidates by score, the target behind its equals; NaN above everything."""
    ranks = []
    for row, user in enumerate(users):
        scores = items.astype(np.float64) @ user.astype(np.float64)
        removed = set() if history is None else set(history[row].tolist()) - {int(targets[row])}
        candidates = [item for item in range(len(items)) if item not in removed]
        scores = np.where(np.isnan(scores), np.inf, scores)
        key = functools.partial(lambda item, row, scores: (-scores[item], item == targets[row]), row=row, scores=scores)
        ranks.append(1 + sorted(candidates, key=key).index(targets[row]))
    return np.array(ranks)


@pytest.mark.parametrize("item_chunk", [1, 5, 22, 100])
@pytest.mark.parametrize("remove", [False, True])
def test_ranks_are_those_of_a_sort_in_chunks_of_any_size(remove, item_chunk, rng):
    users, items, targets, history = batch(rng)
    history = history if remove else None
    ranked = rank(*map(jnp.asarray, (users, items, targets)), history, item_chunk=item_chunk)
    np.testing.assert_array_equal(ranked.ranks, brute_force(users, items, targets, history))
    scores = users.astype(np.float64) @ items.T
    expected = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(BATCH), targets]
    np.testing.assert_allclose(ranked.losses, expected, rtol=1e-5, atol=1e-5)
    assert not np.any(ranked.nonfinite)


@pytest.mark.parametrize("item_chunk", [7, 300])
def test_equal_vectors_tie_to_the_last_bit(item_chunk, rng):
    users = rng.normal(size=(BATCH, 50)).astype(np.float32)
    items = np.tile(rng.normal(size=(1, 50)), (300, 1)).astype(np.float32)
    ranked = rank(*map(jnp.asarray, (users, items, rng.integers(0, 300, BATCH))), item_chunk=item_chunk)
    np.testing.assert_array_equal(ranked.ranks, 300)


@pytest.mark.parametrize("item_chunk", [5, 23])
def test_scores_that_are_no_numbers_are_never_good(item_chunk, rng):
    users, items, targets, history = batch(rng)
    items[3] = np.nan
    users[7], users[8, 0] = np.nan, np.inf
    targets[9] = 3
    ranked = rank(*map(jnp.asarray, (users, items, targets, history)), item_chunk=item_chunk)
    sound = np.isin(np.arange(BATCH), [7, 8]) | (targets == 3)
    candidates = [len(set(range(ITEMS)) - set(h.tolist()) | {int(t)}) for h, t in zip(history, targets, strict=True)]
    np.testing.assert_array_equal(np.asarray(ranked.nonfinite)[sound], True)
    np.testing.assert_array_equal(np.asarray(ranked.ranks)[sound], np.array(candidates)[sound])
    expected = brute_force(users[~sound], items, targets[~sound], history[~sound])
    np.testing.assert_array_equal(np.asarray(ranked.ranks)[~sound], expected)
    assert np.isnan(ranked.losses).all()


def made(rng, size=500):
    ranks, losses = rng.integers(1, 30, size), rng.gamma(2, size=size).astype(np.float32)
    weights = rng.choice([0, 0.5, 1, 3], size).astype(np.float32)
    return Ranked(*map(jnp.asarray, (ranks.astype(np.int32), losses, np.zeros(size, bool)))), jnp.asarray(weights)


def expected_metrics(ranks, losses, weights):
    ranks, losses, weights = (np.asarray(x, np.float64) for x in (ranks, losses, weights))
    mean = functools.partial(np.average, weights=weights)
    found = {f"hr@{k}": mean(ranks <= k) for k in KS}
    found |= {f"ndcg@{k}": mean(np.where(ranks <= k, np.log(2) / np.log(1 + ranks), 0)) for k in KS}
    return found | {"mrr": mean(1 / ranks), "loss": mean(losses), "examples": (weights != 0).sum(), "nonfinite": 0}


def test_metrics_are_the_weighted_means_whatever_the_batches(rng):
    ranked, weights = made(rng)
    update = jax.jit(update_ranking, static_argnames="ks")
    states = []
    for first in range(0, 500, 100):
        part = jax.tree.map(lambda x, first=first: x[first : first + 100], (ranked, weights))
        states.append(update(init_ranking(KS), *part, ks=KS))
    together = functools.reduce(merge_ranking, states)
    one = init_ranking(KS)
    for first in range(0, 500, 100):
        one = update(one, *jax.tree.map(lambda x, first=first: x[first : first + 100], (ranked, weights)), ks=KS)
    for state in (together, functools.reduce(merge_ranking, states[::-1]), one):
        found = compute_ranking(state, KS)
        expected = expected_metrics(ranked.ranks, ranked.losses, weights)
        assert list(found) == list(expected)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-6)


def test_many_batches_cost_no_precision(rng):
    ranked, weights = made(rng, 64)
    add = jax.jit(
        lambda state: jax.lax.fori_loop(0, 50_000, lambda _, s: update_ranking(s, ranked, weights, ks=KS), state)
    )
    found = compute_ranking(add(init_ranking(KS)), KS)
    expected = expected_metrics(ranked.ranks, ranked.losses, weights)
    for name in expected:
        if name != "examples":
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
    assert found["examples"] == 50_000 * expected["examples"]


def test_padding_rows_are_nowhere_counted_and_lost_ones_are():
    ranked = Ranked(
        jnp.asarray([1, 9, 1], jnp.int32), jnp.asarray([0.5, math.nan, math.nan]), jnp.asarray([False, True, True])
    )
    found = compute_ranking(update_ranking(init_ranking((5,)), ranked, jnp.asarray([1.0, 0, 0]), ks=(5,)), (5,))
    assert found == {"hr@5": 1, "ndcg@5": 1, "mrr": 1, "loss": 0.5, "examples": 1, "nonfinite": 0}
    found = compute_ranking(update_ranking(init_ranking((5,)), ranked, jnp.asarray([1.0, 1, 0]), ks=(5,)), (5,))
    assert (found["hr@5"], found["examples"], found["nonfinite"]) == (0.5, 2, 1)
    assert math.isnan(found["loss"])


def test_without_an_example_only_the_counts_are_numbers():
    found = compute_ranking(init_ranking(KS), KS)
    assert found.pop("examples") == found.pop("nonfinite") == 0
    assert all(map(math.isnan, found.values()))


@pytest.mark.parametrize("ks", [(), (0, 5), (10, 10)])
def test_cut_offs_that_cannot_be_are_refused(ks):
    with pytest.raises(ConfigError, match="ks: received"):
        init_ranking(ks)
