"""What names of metrics say."""

import math

import numpy as np
import pytest

from tests.performance_law.planted_law import grid_runs
from wukong_jax.performance_law.metric_names import falls, possible_range


@pytest.mark.parametrize(
    ("metric", "falling"),
    [
        *[(name, False) for name in ("hr10", "ndcg@10", "auc", "mrr", "tone", "valid.hr@10")],
        *[(name, True) for name in ("logloss", "val_loss", "logloss/click", "ne", "perplexity", "rmse", "valid.loss")],
    ],
)
def test_a_metric_named_for_a_loss_falls(metric, falling):
    assert falls(metric) is falling


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("hr10", 0.1, 0.3, (0, 1)),
        ("HR@10", 0.1, 0.3, (0, 1)),
        ("valid.ndcg@10", 0.0, 1.0, (0, 1)),
        ("gauc", 0.5, 0.9, (0, 1)),
        ("hr10", 10.0, 30.0, (0, 100)),  # percent
        ("hr10", -0.1, 0.3, (-math.inf, math.inf)),
        ("loss", 0.1, 9.0, (0, math.inf)),
        ("loss", -3.0, 9.0, (-math.inf, math.inf)),
        ("revenue", 0.1, 0.3, (-math.inf, math.inf)),
        ("three", 0.1, 0.3, (-math.inf, math.inf)),
    ],
)
def test_between_what_a_metric_can_lie(metric, low, high, expected):
    assert possible_range(metric, low, high) == expected


def test_runs_know_what_their_metric_can_be():
    runs = grid_runs(y=lambda n, d: 0.1 + 0.001 * np.log(n * d))
    assert [runs.possible(value) for value in (-0.01, 0.0, 0.5, 1.0, 1.01)] == [False, True, True, True, False]
