"""Runs: what they check, their points, their panels."""

import dataclasses

import numpy as np
import pytest

from tests.performance_law.made_runs import PANELS, log_linear, pooled, runs_of
from wukong_jax.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", 0.0, "layers: received 0"),
        ("dim", -3.0, "dim: received -3"),
        ("dim", np.inf, "dim"),
        ("y", np.nan, "hr10: holds NaN"),
    ],
)
def test_a_number_that_no_law_can_take_is_an_error(field, value, message):
    runs = runs_of(log_linear)
    values = getattr(runs, field).copy()
    values[3] = value
    with pytest.raises(DataError, match=message):
        dataclasses.replace(runs, **{field: values})


def test_no_run_is_an_error():
    runs = runs_of(log_linear)
    with pytest.raises(DataError, match="no run has a value"):
        runs.subset(np.zeros(len(runs.y), bool))


def test_a_panel_number_without_panel_is_an_error():
    runs = runs_of(log_linear)
    with pytest.raises(DataError, match="1 panels"):
        dataclasses.replace(runs, panel=runs.panel + 1)


def test_repetitions_share_a_point_and_give_the_deviation_between_seeds():
    runs = runs_of(log_linear, layers=(4, 8), dims=(16,), repeats=3)
    runs = dataclasses.replace(runs, y=np.array([1.0, 2.0, 3.0, 5.0, 5.0, 8.0]))
    np.testing.assert_array_equal(runs.groups, [0, 0, 0, 1, 1, 1])
    expected = np.sqrt((2 * np.var([1, 2, 3], ddof=1) + 2 * np.var([5, 5, 8], ddof=1)) / 4)
    assert runs.seed_deviation == pytest.approx(expected)
    assert runs_of(log_linear).seed_deviation is None


def test_equal_sizes_of_two_panels_or_two_amounts_of_data_are_two_points():
    runs = pooled(log_linear)
    assert len(np.unique(runs.groups)) == len(runs.y)
    one = runs_of(log_linear, repeats=2)
    assert len(np.unique(one.groups)) == len(one.y) // 2
    data = np.tile([1e6, 2e6], len(one.y) // 2)
    assert len(np.unique(dataclasses.replace(one, data=data).groups)) == len(one.y)


def test_goodness_rises_whatever_the_metric_does():
    np.testing.assert_array_equal(runs_of(log_linear).goodness, runs_of(log_linear, rising=False).goodness)


def test_one_panel_is_taken_by_name_or_number():
    runs = pooled(log_linear)
    for chosen in ("b", 1):
        alone = runs.only(chosen)
        assert alone.panels == ("b",)
        np.testing.assert_array_equal(alone.y, runs.y[runs.panel == 1])
    for wrong in ("d", 3, -1):
        with pytest.raises(ConfigError, match=f"expected one of {', '.join(map(repr, PANELS))}"):
            runs.only(wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": np.full(24, 1e300)}, "layers: received 1e\\+300, expected at most 1e\\+09"),
        ({"y": np.full(24, 1e299)}, "hr10: the largest value is 1e\\+299 in size"),
        ({"y": np.full(24, 1e-201)}, "hr10: the largest value is 1e-201 in size"),
    ],
)
def test_numbers_that_leave_what_floats_hold_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        dataclasses.replace(runs_of(log_linear), **changes)
