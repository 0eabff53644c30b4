import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from wukong_jax.evaluation.metrics import MetricState, compute_metrics, init_metrics, merge_metrics, update_metrics

update = jax.jit(update_metrics, donate_argnums=0)
merge = jax.jit(merge_metrics)
BATCH = 8_192


def stream(
    state: MetricState, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> MetricState:
    weights = np.ones(len(logits)) if weights is None else weights
    padded = [np.pad(x, (0, -len(logits) % BATCH)).astype(np.float32) for x in (logits, labels, weights)]
    for start in range(0, len(padded[0]), BATCH):
        state = update(state, *(x[start : start + BATCH] for x in padded))
    return state


def examples(rows: int, rng: np.random.Generator, centre: float = -1.0) -> tuple[np.ndarray, np.ndarray]:
    logits = rng.normal(centre, 1.5, rows).astype(np.float32)
    return logits, (rng.random(rows) < expit(logits.astype(np.float64) * 0.7)).astype(np.float32)


def expected(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
    """The same metrics from scikit-learn and float64 NumPy."""
    weights = np.ones(len(logits)) if weights is None else weights.astype(np.float64)
    logits, labels, weights = (x[weights > 0] for x in (logits.astype(np.float64), labels, weights))
    probabilities = expit(logits)
    rate = np.average(labels, weights=weights)
    logloss = log_loss(labels, probabilities, sample_weight=weights)
    return {
        "logloss": logloss,
        "auc": roc_auc_score(labels, logits),
        "ne": logloss / log_loss(labels, np.full(len(labels), rate), sample_weight=weights),
        "calibration": np.dot(weights, probabilities) / np.dot(weights, labels),
        "examples": len(labels),
        "positive_rate": rate,
        "nonfinite": 0,
    }


@pytest.mark.parametrize("centre", [-20.0, -1.0, 20.0])
def test_a_million_examples_agree_with_scikit_learn(centre, rng):
    logits, labels = examples(1_000_000, rng, centre)
    labels[:2] = [0, 1]
    found, wanted = compute_metrics(stream(init_metrics(), logits, labels)), expected(logits, labels)
    assert found.keys() == wanted.keys()
    assert abs(found["logloss"] - wanted["logloss"]) < 1e-6
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_twenty_million_examples_agree_with_scikit_learn(rng):
    logits, labels = examples(20_000_000, rng)
    found, wanted = compute_metrics(stream(init_metrics(), logits, labels)), expected(logits, labels)
    assert abs(found["logloss"] - wanted["logloss"]) < 1e-6
    assert found == pytest.approx(wanted, rel=1e-6)


def test_weights_count_in_the_means_and_not_in_the_auc(rng):
    logits, labels = examples(30_000, rng)
    weights = (rng.exponential(size=30_000) * (rng.random(30_000) < 0.7)).astype(np.float32)
    found = compute_metrics(stream(init_metrics(), logits, labels, weights))
    assert found == pytest.approx(expected(logits, labels, weights), rel=1e-6)


def test_rows_of_weight_zero_are_nowhere_counted(rng):
    logits, labels = examples(BATCH, rng)
    weights = np.where(np.arange(BATCH) < 5_000, 1, 0).astype(np.float32)
    logits[5_000:], labels[5_000:] = 1e6, 1
    found = compute_metrics(stream(init_metrics(), logits, labels, weights))
    assert found == pytest.approx(expected(logits[:5_000], labels[:5_000]), rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_logits_and_weights_are_counted_and_left_out(value, rng):
    logits, labels = examples(10_000, rng)
    weights = np.ones(10_000, np.float32)
    wanted = expected(logits[20:], labels[20:]) | {"nonfinite": 20}
    logits[:12] = value
    weights[12:20] = value
    assert compute_metrics(stream(init_metrics(), logits, labels, weights)) == pytest.approx(wanted, rel=1e-6)


def test_sums_lose_nothing_to_rounding_from_batch_to_batch():
    state = stream(init_metrics(), np.zeros(1), np.ones(1), np.full(1, 2.0**24))
    for _ in range(500):
        state = stream(state, np.zeros(1), np.ones(1))
    _, prediction, label, weight, count = np.asarray(state.sums, np.float64).sum(axis=0)
    assert (prediction, label, weight, count) == (2**23 + 250, 2**24 + 500, 2**24 + 500, 501)


def test_sums_lose_nothing_to_rounding_within_a_batch():
    weights = np.array([2.0**24] + [1.0] * 4_094)
    state = stream(init_metrics(), np.zeros(4_095), np.ones(4_095), weights)
    assert np.asarray(state.sums, np.float64).sum(axis=0)[3] == 2**24 + 4_094


@pytest.mark.parametrize("shards", [2, 5])
def test_merged_shards_equal_the_single_stream(shards, rng):
    logits, labels = examples(50_000, rng)
    logits[7] = np.nan
    shard = rng.choice(shards, size=len(logits), p=rng.dirichlet(np.ones(shards)))
    states = [stream(init_metrics(), logits[shard == i], labels[shard == i]) for i in range(shards)]
    whole = states[0]
    for state in states[1:]:
        whole = merge(whole, state)
    assert compute_metrics(whole) == pytest.approx(compute_metrics(stream(init_metrics(), logits, labels)), rel=1e-9)
    assert compute_metrics(merge(states[0], states[1])) == compute_metrics(merge(states[1], states[0]))


@pytest.mark.parametrize(("label", "calibration"), [(0.0, math.nan), (1.0, 0.5)])
def test_one_class_has_no_auc_and_no_ne(label, calibration):
    found = compute_metrics(stream(init_metrics(), np.zeros(100), np.full(100, label)))
    wanted = {"logloss": math.log(2), "auc": math.nan, "ne": math.nan, "calibration": calibration}
    assert found == pytest.approx(
        wanted | {"examples": 100, "positive_rate": label, "nonfinite": 0}, nan_ok=True, rel=1e-6
    )


def test_no_examples_have_no_metrics():
    found = compute_metrics(init_metrics())
    assert (found.pop("examples"), found.pop("nonfinite")) == (0, 0)
    assert all(math.isnan(value) for value in found.values())


def test_auc_is_withheld_beyond_the_counters():
    state = init_metrics()
    state = state._replace(sums=state.sums.at[0, 4].set(2.0**32))
    assert math.isnan(compute_metrics(stream(state, np.array([0.0, 1.0]), np.array([0.0, 1.0])))["auc"])


def test_a_stream_taken_up_from_a_checkpoint_ends_bit_identically(rng):
    logits, labels = examples(900_000, rng)
    whole = stream(init_metrics(), logits, labels)
    cut = 40 * BATCH
    saved = jax.tree.map(np.array, stream(init_metrics(), logits[:cut], labels[:cut]))
    restored = stream(jax.tree.map(jnp.asarray, saved), logits[cut:], labels[cut:])
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_donated_state_is_used_up_and_the_result_is_the_same(rng):
    logits, labels = examples(BATCH, rng)
    plain = jax.jit(update_metrics)(init_metrics(), logits, labels, np.ones(BATCH, np.float32))
    state = init_metrics()
    donated = update(state, logits, labels, np.ones(BATCH, np.float32))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert compute_metrics(donated) == compute_metrics(plain)


def test_bfloat16_logits_and_32_bit_state(rng):
    assert not jax.config.jax_enable_x64
    logits, labels = examples(BATCH, rng)
    rounded = jnp.asarray(logits, jnp.bfloat16)
    state = update(init_metrics(), rounded, jnp.asarray(labels), jnp.ones(BATCH))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32", "uint32", "int32"}
    assert compute_metrics(state) == pytest.approx(expected(np.asarray(rounded, np.float32), labels), rel=1e-6)
