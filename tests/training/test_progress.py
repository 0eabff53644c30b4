"""How training reacts to validation scores."""

import json

import pytest

from wukong_jax.config.run import PlateauConfig
from wukong_jax.training.progress import Progress

# scores -> which of them are the best so far, rate scale after each, finished after each
CASES = {
    "rising": (PlateauConfig(0.1, 1, 1e-3, 2), (0.1, 0.2, 0.3), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    "a tie is not better": (PlateauConfig(0.1, 1, 1e-3, 2), (0.2, 0.2), (1, 0), (1, 0.1), (0, 0)),
    "stops after two in a row": (
        PlateauConfig(0.1, 1, 1e-3, 2),
        (0.2, 0.1, 0.15),
        (1, 0, 0),
        (1, 0.1, 0.01),
        (0, 0, 1),
    ),
    "a better one starts the count anew": (
        PlateauConfig(0.5, 1, 1e-3, 2),
        (0.2, 0.1, 0.3, 0.1, 0.1),
        (1, 0, 1, 0, 0),
        (1, 0.5, 0.5, 0.25, 0.125),
        (0, 0, 0, 0, 1),
    ),
    "patience of two": (
        PlateauConfig(0.5, 2, 1e-3, 5),
        (0.2, 0.1, 0.1, 0.1, 0.1, 0.1),
        (1, 0, 0, 0, 0, 0),
        (1, 1, 0.5, 0.5, 0.25, 0.25),
        (0, 0, 0, 0, 0, 1),
    ),
    "not below the least scale": (
        PlateauConfig(0.1, 1, 0.05, 9),
        (0.2, 0.1, 0.1, 0.1),
        (1, 0, 0, 0),
        (1, 0.1, 0.05, 0.05),
        (0, 0, 0, 0),
    ),
    "negative scores, as of LogLoss": (
        PlateauConfig(0.1, 1, 1e-3, 2),
        (-0.7, -0.6, -0.65),
        (1, 1, 0),
        (1, 1, 0.1),
        (0, 0, 0),
    ),
    "better by too little": (
        PlateauConfig(0.1, 1, 1e-3, 9, 0.05),
        (0.2, 0.24, 0.26),
        (1, 0, 1),
        (1, 0.1, 0.1),
        (0, 0, 0),
    ),
    "no plateau": (None, (0.2, 0.1, 0.1, 0.1), (1, 0, 0, 0), (1, 1, 1, 1), (0, 0, 0, 0)),
}


@pytest.mark.parametrize(("plateau", "scores", "best", "scales", "finished"), CASES.values(), ids=CASES.keys())
def test_reaction_to_scores(plateau, scores, best, scales, finished):
    progress = Progress()
    for number, score in enumerate(scores):
        progress.step = 10 * (number + 1)
        assert progress.see_score(score, plateau) == bool(best[number]), number
        assert progress.learning_rate_scale == pytest.approx(scales[number], rel=1e-12), number
        assert progress.finished == bool(finished[number]), number
    last_best = max(number for number, flag in enumerate(best) if flag)
    assert (progress.best_score, progress.best_step) == (scores[last_best], 10 * (last_best + 1))


def test_json_round_trip_keeps_every_field():
    progress = Progress(
        7, {"next": 3}, -0.1, 5, 1, 2, 0.1, True, [{"split": "valid", "step": 5, "auc": 1 / 3}], 0.1, 64, 9.0
    )
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress
    assert all(value for value in progress.to_json().values()), "a field at its default would prove nothing"
