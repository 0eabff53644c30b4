"""Exact AUC and gAUC (AUC within groups, such as users), on the host, in float64."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from wukong_jax.errors import DataError


class GroupedAuc(NamedTuple):
    """gAUC, the groups that it averages, their examples, and the groups left out because their labels are all equal."""

    gauc: float
    groups: int
    examples: int
    one_class_groups: int


def exact_auc(
    labels: Shaped[np.ndarray, "rows"],
    scores: Float[np.ndarray, "rows"],
    weights: Float[np.ndarray, "rows"] | None = None,
) -> float:
    """Area under the ROC curve; equal scores count 1/2; with weights, a pair counts the product of its weights.

        sum over (i positive, j negative) of w_i w_j ([s_i > s_j] + [s_i = s_j] / 2), divided by sum of w_i w_j

    NaN, without a warning, unless both classes have weight. Labels are 0 or 1. Raises `DataError` on a NaN score.
    """
    _check(scores)
    if not len(scores):
        return float("nan")
    order = np.argsort(scores)
    scores, positive = scores[order], labels[order] > 0.5
    weights = np.ones(len(scores)) if weights is None else weights[order].astype(np.float64)
    starts = _starts(scores)
    positives = np.add.reduceat(np.where(positive, weights, 0.0), starts)
    negatives = np.add.reduceat(np.where(positive, 0.0, weights), starts)
    pairs = positives.sum() * negatives.sum()
    if pairs == 0:
        return float("nan")
    return float(np.dot(positives, np.cumsum(negatives) - negatives / 2) / pairs)


def grouped_auc(
    labels: Shaped[np.ndarray, "rows"], scores: Float[np.ndarray, "rows"], groups: Shaped[np.ndarray, "rows"]
) -> GroupedAuc:
    """Mean of the groups' exact AUCs, each weighted by the group's number of examples (as in DIN and FuxiCTR).

        gAUC = sum_g n_g AUC_g / sum_g n_g      over the groups g with both classes

    NaN where no group has both. Labels are 0 or 1, groups of any sortable dtype. Raises `DataError` on a NaN score.

        >>> grouped_auc(np.array([1, 0, 1, 1]), np.array([0.9, 0.1, 0.3, 0.4]), np.array([7, 7, 7, 8]))
        GroupedAuc(gauc=1.0, groups=1, examples=3, one_class_groups=1)
    """
    _check(scores)
    if not len(scores):
        return GroupedAuc(float("nan"), 0, 0, 0)
    order = np.lexsort((scores, groups))
    positive, scores, groups = labels[order] > 0.5, scores[order], groups[order]
    group_starts, tie_starts = _starts(groups), _starts(groups, scores)

    positives = np.add.reduceat(positive, tie_starts, dtype=np.int64)
    negatives = np.diff(tie_starts, append=len(scores)) - positives
    # Where each group's runs of tied scores begin; negatives below a run are counted from the group's first run.
    first_runs = np.searchsorted(tie_starts, group_starts)
    below = np.cumsum(negatives) - negatives
    runs = np.diff(first_runs, append=len(tie_starts))
    below = below - np.repeat(below[first_runs], runs)

    wins = np.add.reduceat(positives * (below + negatives / 2), first_runs)
    sizes = np.diff(group_starts, append=len(scores))
    group_positives = np.add.reduceat(positives, first_runs)
    pairs = group_positives * (sizes - group_positives)
    both = pairs > 0
    examples = int(sizes[both].sum())
    gauc = float(np.dot(sizes[both], wins[both] / pairs[both]) / examples) if examples else float("nan")
    return GroupedAuc(gauc, int(both.sum()), examples, int((~both).sum()))


def _starts(*ordered: Shaped[np.ndarray, "rows"]) -> Shaped[np.ndarray, "runs"]:
    """Positions at which a run begins in which all of the arrays stay equal."""
    changes = np.any([column[1:] != column[:-1] for column in ordered], axis=0)
    return np.flatnonzero(np.concatenate([[True], changes]))


def _check(scores: Float[np.ndarray, "rows"]) -> None:
    missing = int(np.isnan(scores).sum())
    if missing:
        raise DataError(
            f"scores: {missing} of {len(scores)} are NaN, expected numbers; the model diverged: lower its learning rate"
        )
