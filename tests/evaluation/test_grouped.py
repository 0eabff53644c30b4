import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from wukong_jax.errors import DataError
from wukong_jax.evaluation.grouped import GroupedAuc, exact_auc, grouped_auc


def examples(rows: int, rng: np.random.Generator, step: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    scores = rng.normal(size=rows)
    if step is not None:
        scores = np.round(scores / step) * step
    return (rng.random(rows) < expit(scores)).astype(np.float32), scores.astype(np.float32)


def looped(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> GroupedAuc:
    """gAUC by its definition, group by group, with scikit-learn."""
    aucs, sizes, left_out = [], [], 0
    for group in np.unique(groups):
        rows = groups == group
        if labels[rows].min() == labels[rows].max():
            left_out += 1
        else:
            aucs.append(roc_auc_score(labels[rows], scores[rows]))
            sizes.append(int(rows.sum()))
    return GroupedAuc(float(np.average(aucs, weights=sizes)), len(aucs), sum(sizes), left_out)


@pytest.mark.parametrize("step", [None, 0.1, 2.0])
@pytest.mark.parametrize("rows", [10, 1_000, 200_000])
def test_exact_auc_equals_scikit_learn(rows, step, rng):
    labels, scores = examples(rows, rng, step)
    labels[:2] = [0, 1]
    assert exact_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    weights = rng.exponential(size=rows).astype(np.float32) * (rng.random(rows) < 0.8)
    weights[:2] = 1
    wanted = roc_auc_score(labels, scores, sample_weight=weights)
    assert exact_auc(labels, scores, weights) == pytest.approx(wanted, abs=1e-9)


def test_exact_auc_by_hand():
    labels, scores = np.array([1, 0, 1, 0]), np.array([2.0, 2.0, 3.0, 1.0])
    assert exact_auc(labels, scores) == 3.5 / 4
    assert exact_auc(labels, -scores) == 0.5 / 4
    assert exact_auc(labels, np.zeros(4)) == 0.5
    assert exact_auc(labels, scores, np.array([3.0, 1.0, 1.0, 1.0])) == (3 * 1.5 + 2) / 8


@pytest.mark.parametrize("labels", [[], [1], [0, 0, 0], [1, 1]])
def test_one_class_has_no_auc(labels):
    assert math.isnan(exact_auc(np.array(labels), np.zeros(len(labels))))
    found = grouped_auc(np.array(labels), np.zeros(len(labels)), np.zeros(len(labels), np.int64))
    assert math.isnan(found.gauc)
    assert found[1:] == (0, 0, 1 if labels else 0)


def test_a_class_without_weight_is_no_class():
    assert math.isnan(exact_auc(np.array([0, 1]), np.array([0.0, 1.0]), np.array([1.0, 0.0])))


@pytest.mark.parametrize("step", [None, 0.5])
@pytest.mark.parametrize("groups", [1, 30, 700])
def test_grouped_auc_equals_the_loop_over_groups(groups, step, rng):
    labels, scores = examples(3_000, rng, step)
    group = (rng.zipf(1.3, size=3_000) % groups) - 5
    assert grouped_auc(labels, scores, group) == pytest.approx(looped(labels, scores, group), abs=1e-12)


def test_groups_may_be_names(rng):
    labels, scores = examples(500, rng)
    group = rng.choice(["a", "bb", "c d"], size=500)
    assert grouped_auc(labels, scores, group) == pytest.approx(looped(labels, scores, group), abs=1e-12)


def test_grouped_auc_by_hand():
    labels = np.array([1, 0, 1, 1, 0, 0, 1])
    scores = np.array([0.9, 0.1, 0.3, 0.4, 0.5, 0.5, 0.5])
    groups = np.array([7, 7, 7, 8, 9, 9, 9])
    assert grouped_auc(labels, scores, groups) == GroupedAuc((3 * 1.0 + 3 * 0.5) / 6, 2, 6, 1)


def test_equal_scores_of_neighbouring_groups_are_not_ties():
    found = grouped_auc(np.array([0, 1, 0, 1]), np.array([1.0, 2.0, 2.0, 3.0]), np.array([1, 1, 2, 2]))
    assert found == GroupedAuc(1.0, 2, 4, 0)


def test_a_nan_score_is_an_error_that_counts_them():
    scores = np.array([0.0, np.nan, 1.0])
    for call in (
        lambda: exact_auc(np.array([0, 1, 1]), scores),
        lambda: grouped_auc(np.array([0, 1, 1]), scores, np.zeros(3)),
    ):
        with pytest.raises(DataError, match="1 of 3 are NaN"):
            call()
