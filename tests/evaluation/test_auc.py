import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from wukong_jax.evaluation.auc import BINS, RECENT, AucState, compute_auc, init_auc, merge_auc, rank_key, update_auc

ROWS = 1_000_000
update = jax.jit(update_auc, donate_argnums=0)
merge = jax.jit(merge_auc)


def stream(state: AucState, logits: np.ndarray, labels: np.ndarray, batch: int = 16_384) -> AucState:
    """The whole stream in batches of one shape, the last filled up with rows that are not present."""
    padded = -len(logits) % batch
    present = np.arange(len(logits) + padded) < len(logits)
    logits, labels = (np.pad(x, (0, padded), constant_values=np.nan).astype(np.float32) for x in (logits, labels))
    for start in range(0, len(logits), batch):
        rows = slice(start, start + batch)
        state = update(state, logits[rows], labels[rows], present[rows])
    return state


def distribution(name: str, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Float32 logits and labels that depend on them."""
    normal, uniform, left = rng.normal(size=rows), rng.random(rows) - 0.5, rng.random(rows) < 0.5
    growing = np.geomspace(1e-4, 10, rows)
    spiked = normal.copy()
    spiked[rows // 5 :: rows // 50] = 1e9
    spiked[rows // 7 :: rows // 50] = -1e30
    logits, log_odds = {
        "normal": (normal, normal),
        "rounded to 0.2": (np.round(normal * 5) / 5, normal),
        "half of them tied": (np.where(left, np.round(normal), normal), normal),
        "narrow at 0": (0.01 * uniform, 8 * uniform),
        "narrow at 3.7": (3.7 + 0.01 * uniform, 8 * uniform),
        "narrow at -20": (-20 + 0.01 * uniform, 8 * uniform),
        "shifted to 20": (normal + 20, normal),
        "shifted to -20": (normal - 20, normal),
        "bimodal": (np.where(left, -8, 8) + 0.01 * uniform, np.where(left, -0.5, 0.5) + 8 * uniform),
        "spread growing from 1e-4 to 10": (normal * growing, normal),
        "spread growing off centre": (normal * growing - 3.2, normal),
        "spread shrinking": (normal * growing[::-1] + 3.2, normal),
        "outliers": (spiked, normal),
        "few positives": (normal - 6, normal - 6),
        "rising in the stream": (np.sort(normal), np.sort(normal)),
        "separable": (normal, np.where(normal > 0.3, 100, -100)),
    }[name]
    return logits.astype(np.float32), (rng.random(rows) < expit(log_odds)).astype(np.float32)


DISTRIBUTIONS = [
    *("normal", "rounded to 0.2", "half of them tied", "narrow at 0", "narrow at 3.7", "narrow at -20"),
    *("shifted to 20", "shifted to -20", "bimodal", "spread growing from 1e-4 to 10", "spread growing off centre"),
    *("spread shrinking", "outliers", "few positives", "rising in the stream", "separable"),
]


HARDEST = ("normal", "half of them tied", "narrow at -20", "bimodal", "spread growing off centre", "few positives")


@pytest.mark.parametrize(
    "name", [name if name in HARDEST else pytest.param(name, marks=pytest.mark.slow) for name in DISTRIBUTIONS]
)
def test_auc_agrees_with_scikit_learn_on_a_million_scores(name, rng):
    logits, labels = distribution(name, ROWS, rng)
    assert abs(compute_auc(stream(init_auc(), logits, labels)) - roc_auc_score(labels, logits)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "few positives", "spread growing off centre"])
def test_auc_agrees_with_scikit_learn_on_twenty_million_scores(name, rng):
    logits, labels = distribution(name, 20 * ROWS, rng)
    assert abs(compute_auc(stream(init_auc(), logits, labels)) - roc_auc_score(labels, logits)) < 1e-6


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_auc_is_exact_while_the_examples_fit(name, rng):
    logits, labels = distribution(name, 5_000, rng)
    assert compute_auc(stream(init_auc(8_192, 16), logits, labels, 512)) == pytest.approx(
        roc_auc_score(labels, logits), abs=1e-14
    )


@pytest.mark.parametrize("distinct", [2, 63, 64])
def test_few_distinct_values_are_exact_after_any_number_of_merges_into_bins(distinct, rng):
    logits = rng.normal(size=distinct)[rng.integers(distinct, size=40_000)].astype(np.float32)
    labels = (rng.random(40_000) < expit(logits)).astype(np.float32)
    state = stream(init_auc(1_024, 64), logits, labels, 300)
    assert compute_auc(state) == pytest.approx(roc_auc_score(labels, logits), abs=1e-14)


@pytest.mark.parametrize("batch", [100, 4_096])
def test_bins_stay_ascending_and_lose_no_example(batch, rng):
    logits, labels = distribution("half of them tied", 50_000, rng)
    state = stream(init_auc(1_024, 256), logits, labels, batch)
    recent = np.asarray(state.recent)[: int(state.filled)]
    recent = recent[recent < 2**32 - 1]
    used = np.asarray(state.positives) + np.asarray(state.negatives) > 0
    assert (np.diff(np.asarray(state.bins)[used].astype(np.int64)) > 0).all()
    assert state.positives.sum() + (recent & 1).sum() == labels.sum()
    assert state.negatives.sum() + (1 - (recent & 1)).sum() == (1 - labels).sum()
    assert 100 < used.sum() <= 256


def test_a_frequent_value_is_not_mixed_with_its_neighbours(rng):
    logits = np.where(rng.random(40_000) < 0.3, 0.25, rng.normal(size=40_000)).astype(np.float32)
    labels = rng.integers(2, size=40_000).astype(np.float32)
    state = stream(init_auc(1_024, 256), logits, labels, 1_024)
    entry = 2 * int(rank_key(jnp.array([0.25]))[0])
    recent = np.asarray(state.recent)[: int(state.filled)]
    tied = np.asarray(state.bins) == entry
    assert state.positives[tied].sum() + (recent == entry + 1).sum() == labels[logits == 0.25].sum()
    assert state.negatives[tied].sum() + (recent == entry).sum() == (1 - labels)[logits == 0.25].sum()


@pytest.mark.parametrize("examples", [1, 500])
@pytest.mark.parametrize("rare", [0, 1])
def test_bins_never_span_an_example_of_a_very_rare_class(rare, examples, rng):
    logits = rng.normal(size=100_000).astype(np.float32)
    labels = np.full(100_000, 1 - rare, np.float32)
    labels[rng.choice(8_000, examples, replace=False)] = rare
    state = stream(init_auc(8_192, 4_096), logits, labels, 1_000)
    assert compute_auc(state) == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)


def test_bins_of_rare_positives_that_stop_being_rare_are_not_biased(rng):
    logits = rng.normal(-6, 1, 400_000).astype(np.float32)
    labels = (rng.random(400_000) < expit(logits + 1)).astype(np.float32)
    state = stream(init_auc(8_192, 8_192), logits, labels, 4_096)
    assert labels.sum() > 2 * 8_192 / 8
    assert abs(compute_auc(state) - roc_auc_score(labels, logits)) < 5e-6


@pytest.mark.parametrize(
    "shards", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(7, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", ["normal", "half of them tied", "spread growing off centre"])
def test_merged_shards_equal_the_single_stream(name, shards, rng):
    logits, labels = distribution(name, 60_000, rng)
    shard = rng.choice(shards, size=len(logits), p=rng.dirichlet(np.ones(shards)))
    states = [stream(init_auc(4_096, 2_048), logits[shard == i], labels[shard == i], 1_000) for i in range(shards)]
    whole = states[0]
    for state in states[1:]:
        whole = merge(whole, state)
    expected = roc_auc_score(labels, logits)
    assert compute_auc(whole) == pytest.approx(expected, abs=1e-4)  # 2^11 bins, not 2^17
    assert compute_auc(merge(states[0], states[1])) == compute_auc(merge(states[1], states[0]))


@pytest.mark.parametrize(("first", "second"), [(0, 3_000), (1_000, 2_000), (3_000, 4_000)])
def test_a_merge_is_exact_where_the_examples_fit_or_have_few_values(first, second, rng):
    logits = np.round(rng.normal(size=first + second) * 4).astype(np.float32)
    labels = (rng.random(first + second) < expit(logits / 4)).astype(np.float32)
    a = stream(init_auc(4_096, 64), logits[:first], labels[:first], 500)
    b = stream(init_auc(4_096, 64), logits[first:], labels[first:], 500)
    assert compute_auc(merge(a, b)) == pytest.approx(roc_auc_score(labels, logits), abs=1e-14)


@pytest.mark.slow
def test_million_score_shards_merge_within_1e_6(rng):
    logits, labels = distribution("normal", 2 * ROWS, rng)
    cut = 700_000
    a, b = (stream(init_auc(), logits[part], labels[part]) for part in (slice(cut), slice(cut, None)))
    assert abs(compute_auc(merge(a, b)) - roc_auc_score(labels, logits)) < 1e-6


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_has_no_auc(label):
    assert math.isnan(compute_auc(stream(init_auc(64, 8), np.arange(100.0), np.full(100, label), 32)))


def test_no_examples_have_no_auc():
    assert math.isnan(compute_auc(init_auc(64, 8)))
    assert math.isnan(compute_auc(merge(init_auc(64, 8), init_auc(64, 8))))


def test_rank_keys_are_ordered_as_the_logits_to_the_last_bit():
    halves = np.geomspace(2.0**-62, 2.0**63, 5_000, dtype=np.float32)
    halves = np.unique(np.concatenate([halves, np.nextafter(halves, np.float32(0))]))
    keys = np.asarray(rank_key(jnp.asarray(np.concatenate([-halves[::-1], np.float32([0]), halves])))).astype(np.int64)
    assert (np.diff(keys) > 0).all()
    equal = np.asarray(rank_key(jnp.asarray(np.float32([-0.0, 0.0, 1e-30, -1e-30]))))
    assert (equal == 2**30).all()
    far = np.asarray(rank_key(jnp.asarray(np.float32([2.0**65, 3e38, -(2.0**65), -3e38]))))
    assert far.tolist() == [2**31 - 2, 2**31 - 2, 2, 2]


def test_the_state_stays_within_8_mib():
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(init_auc())) == 4 * (RECENT + 3 * BINS + 1) < 8 * 2**20
