"""When a run leaves a plateau of its loss."""

from benchmarks.plateau import share_on_plateau


def points(*losses: float) -> list[dict]:
    valid = {"split": "valid", "step": 10, "logloss": 0.0}
    return [valid, *({"split": "train", "step": 10 * n, "logloss": loss} for n, loss in enumerate(losses, 1))]


def test_a_run_leaves_when_the_mean_of_four_is_below() -> None:
    assert share_on_plateau(points(0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3), steps=80, above=0.41) == 6 / 8


def test_one_low_loss_is_no_leaving() -> None:
    assert share_on_plateau(points(0.5, 0.5, 0.5, 0.5, 0.3, 0.5, 0.5, 0.5), steps=80, above=0.41) is None


def test_a_run_without_enough_points_has_not_left() -> None:
    assert share_on_plateau(points(0.1, 0.1, 0.1), steps=30, above=0.41) is None
