"""A pass over a split: every row once, padding never, exact scores on request."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tests.tiny import SCHEMA, write_store
from wukong_jax.evaluation.evaluator import evaluate_split
from wukong_jax.evaluation.grouped import grouped_auc
from wukong_jax.evaluation.metrics import update_metrics


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    schema = dataclasses.replace(SCHEMA, labels=("click", "buy"), weight="weight")
    return write_store(tmp_path_factory.mktemp("evaluator") / "store", schema).split("test")


def linear(ids, numeric):
    """Logits of a made-up model, with ties; padding rows would get a large one."""
    first = (ids[:, 0] % 3 - 1.0) + 0.5 * numeric[:, 0].round()
    return jnp.stack([first, -0.5 * first + 0.25 * (ids[:, 1] % 2)], axis=1)


@jax.jit
def eval_step(states, batch):
    logits = linear(jnp.asarray(batch.ids), jnp.asarray(batch.numeric))
    logits = jnp.where(jnp.asarray(batch.ids[:, :1]) < 0, 100.0, logits)
    updated = tuple(
        update_metrics(state, logits[:, i], jnp.asarray(batch.labels)[:, i], jnp.asarray(batch.weights))
        for i, state in enumerate(states)
    )
    return updated, logits


@pytest.fixture(scope="module")
def expected(split):
    logits = np.asarray(linear(split.columns["ids"], split.columns["numeric"]), np.float64)
    return logits, np.asarray(split.columns["labels"]), np.asarray(split.columns["weights"], np.float64)


@pytest.mark.parametrize("batch_size", [7, 10, 30, 64])
@pytest.mark.parametrize("exact", [False, True])
def test_metrics_are_those_of_the_rows_whatever_the_batch(split, expected, batch_size, exact):
    metrics = evaluate_split(eval_step, split, batch_size, exact=exact)
    logits, labels, weights = expected
    for task, name in enumerate(("click", "buy")):
        scores = logits[:, task]
        assert metrics[f"examples/{name}"] == split.rows == 30
        assert metrics[f"auc/{name}"] == pytest.approx(
            roc_auc_score(labels[:, task], scores), abs=1e-6 if not exact else 1e-12
        )
        loss = log_loss(labels[:, task], 1 / (1 + np.exp(-scores)), sample_weight=weights)
        assert metrics[f"logloss/{name}"] == pytest.approx(loss, abs=1e-6)
    assert not [name for name in metrics if "/" not in name]


def test_gauc_is_the_mean_auc_of_the_groups_with_both_labels(split, expected):
    metrics = evaluate_split(eval_step, split, 16, exact=True)
    logits, labels, _ = expected
    groups = np.asarray(split.columns["group"])
    for task, name in enumerate(("click", "buy")):
        parts = [(groups == group, (groups == group).sum()) for group in np.unique(groups)]
        usable = [(rows, count) for rows, count in parts if len(np.unique(labels[rows, task])) == 2]
        aucs = [roc_auc_score(labels[rows, task], logits[rows, task]) for rows, _ in usable]
        assert len(usable) > 2
        assert metrics[f"gauc/{name}"] == pytest.approx(
            np.average(aucs, weights=[count for _, count in usable]), abs=1e-12
        )


def test_gauc_needs_a_group_and_exactness(split, tmp_path):
    assert not [name for name in evaluate_split(eval_step, split, 16) if name.startswith("gauc")]
    ungrouped = dataclasses.replace(split, columns={k: v for k, v in split.columns.items() if k != "group"})
    assert not [name for name in evaluate_split(eval_step, ungrouped, 16, exact=True) if name.startswith("gauc")]


def test_one_label_gives_plain_names(tmp_path):
    store = write_store(tmp_path / "store")
    metrics = evaluate_split(eval_step, store.split("valid"), 16, exact=True)
    assert {"auc", "logloss", "ne", "calibration", "gauc"} <= set(metrics)
    assert metrics["examples"] == 25


@pytest.mark.parametrize("exact", [False, True])
def test_rows_of_weight_zero_count_nowhere(split, expected, exact):
    logits, labels, weights = expected
    weights = np.where(np.arange(split.rows) < 9, 0, weights).astype(np.float32)
    weighted = dataclasses.replace(split, columns=split.columns | {"weights": weights})
    metrics = evaluate_split(eval_step, weighted, 10, exact=exact)
    assert metrics["examples/click"] == split.rows - 9
    assert metrics["auc/click"] == pytest.approx(roc_auc_score(labels[9:, 0], logits[9:, 0]), abs=1e-6)
    if exact:
        groups = np.asarray(split.columns["group"])[9:]
        assert metrics["gauc/click"] == pytest.approx(grouped_auc(labels[9:, 0], logits[9:, 0], groups).gauc, abs=1e-9)
