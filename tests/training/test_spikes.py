"""Loss spikes: planted ones are found, noise and trends are not."""

import numpy as np
import pytest

from wukong_jax.training.spikes import FEWEST, POINTS, WINDOW, SpikeDetector, detector_after, find_spikes

POINTS_OF_A_CURVE = 400
TIME = np.arange(POINTS_OF_A_CURVE)
CURVES = {
    "stationary": (np.full(POINTS_OF_A_CURVE, 0.45), 0.01),
    "falling exponentially": (0.40 + 0.29 * np.exp(-TIME / 60), 0.01),
    "falling as a power": (0.38 + 0.3 * (TIME + 1.0) ** -0.3, 0.002),
    "rising slowly": (0.40 + 0.0005 * TIME, 0.01),
    "a step down at each epoch": (0.45 - 0.03 * (TIME // 40), 0.005),
}


def history(curve, every=50):
    return [{"split": "train", "step": every * (i + 1), "logloss": float(loss)} for i, loss in enumerate(curve)]


@pytest.mark.parametrize(("base", "noise"), CURVES.values(), ids=CURVES.keys())
def test_no_false_alarm_on_a_noisy_curve(base, noise):
    """None in 40 seeds of 400 points; 300 seeds gave none either."""
    for seed in range(40):
        curve = base + np.random.default_rng(seed).normal(0, noise, POINTS_OF_A_CURVE)
        assert find_spikes(history(curve), 50) == [], seed


@pytest.mark.parametrize("slope", [1e-6, 1e-3, 1.0])
def test_a_straight_rise_is_none_however_steep(slope):
    assert find_spikes(history(0.5 + slope * TIME), 50) == []


@pytest.mark.parametrize("length", [POINTS, 5, WINDOW // 2 - 2])
@pytest.mark.parametrize(("base", "noise"), CURVES.values(), ids=CURVES.keys())
def test_a_planted_spike_is_found_once(base, noise, length):
    curve = base + np.random.default_rng(length).normal(0, noise, POINTS_OF_A_CURVE)
    curve[200 : 200 + length] += np.linspace(0.5, 0.3, length)
    assert find_spikes(history(curve), 50) == [
        {
            "step": 201 * 50,
            "loss": pytest.approx(curve[200 : 200 + length].max()),
            "typical": pytest.approx(np.median(curve[200 - WINDOW : 200])),
        }
    ]


def test_a_single_high_point_is_none():
    curve = 0.45 + np.random.default_rng(0).normal(0, 0.01, POINTS_OF_A_CURVE)
    curve[[100, 102, 200]] += 1
    assert find_spikes(history(curve), 50) == []


def test_a_rise_below_a_hundredth_is_none_on_a_quiet_curve():
    curve = np.full(POINTS_OF_A_CURVE, 0.45)
    curve[100:105] *= 1.0099
    curve[200:205] *= 1.0101
    assert [spike["step"] for spike in find_spikes(history(curve), 50)] == [201 * 50]


def test_a_level_that_stays_high_is_one_spike_and_then_the_typical_loss():
    curve = 0.4 + np.random.default_rng(0).normal(0, 0.01, POINTS_OF_A_CURVE)
    curve[100:] += 0.3
    curve[300:310] += 0.5
    assert [(s["step"], round(s["typical"], 1)) for s in find_spikes(history(curve), 50)] == [
        (101 * 50, 0.4),
        (301 * 50, 0.7),
    ]


def test_nothing_is_said_before_there_are_enough_points():
    curve = [0.5] * FEWEST
    assert find_spikes(history([*curve[1:], 1, 1]), 50) == []
    assert len(find_spikes(history([*curve, 1, 1]), 50)) == 1


def test_each_spike_is_announced_once_at_the_point_that_makes_it_certain():
    curve = [0.5] * 20 + [1.0, 1.2, 1.1, 0.9] + [0.5] * 20 + [1.0, 1.0] + [0.5]
    detector = SpikeDetector()
    told = [(i, spike.step, spike.loss) for i, loss in enumerate(curve) if (spike := detector.see(i, loss))]
    assert told == [(21, 20, 1.2), (45, 44, 1.0)]
    assert [spike.loss for spike in detector.spikes] == [1.2, 1.0]


def test_the_peak_is_the_highest_of_all_its_points():
    assert find_spikes(history([0.5] * 20 + [1.0, 1.2, 3.0, 0.9, 0.5]), 1)[0]["loss"] == 3.0


def test_a_run_that_was_stopped_goes_on_in_the_middle_of_a_spike():
    points = history([0.5] * 20 + [1.0, 1.2, 3.0, 0.9, 0.5])
    for stop in range(len(points)):
        detector = detector_after(points[:stop], 50)
        for point in points[stop:]:
            detector.see(point["step"], point["logloss"])
        assert detector.spikes == detector_after(points, 50).spikes


def test_other_splits_and_a_shorter_last_point_do_not_count():
    points = history([0.5] * 20 + [1.0])
    points += [{"split": "valid", "step": 1050, "logloss": 9.0}, {"split": "train", "step": 1051, "logloss": 9.0}]
    assert find_spikes(points, 50) == []
