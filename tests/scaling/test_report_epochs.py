"""The section on epochs: the turning points that were planted are those that are told and drawn."""

import numpy as np
import pytest

from tests.scaling.report_made import BATCH, ROWS, Made, write_made
from wukong_jax.scaling.report import make_report

AN_EPOCH = ROWS / BATCH
TURNS = {("Wukong", 1.0): 6, ("Wukong", 10.0): 3, ("DLRM", 1.0): 2}
EPOCHS = 8


def course(turn, shift=0.0):
    """A parabola around its turning point, and a training loss that goes on falling."""
    valid = [0.5 + shift + 0.01 * (epoch - turn) ** 2 for epoch in range(1, EPOCHS + 1)]
    points = [{"split": "valid", "step": epoch * AN_EPOCH, "logloss": loss} for epoch, loss in enumerate(valid, 1)]
    training = [
        {"split": "train", "step": (epoch - 0.5) * AN_EPOCH, "logloss": 1 / epoch} for epoch in range(1, EPOCHS + 1)
    ]
    return points + training


def runs(turns=TURNS, seeds=(0, 1)):
    for (series, size), turn in turns.items():
        for seed in seeds:
            history = course(turn + seed, shift=0.1 * seed)
            yield Made(series, "ladder", {"budget_mflop": size}, size, 0.5, seed, changes={"history": history})


def test_best_epoch_least_and_last_logloss_are_those_of_the_records(tmp_path):
    section = make_report(write_made(tmp_path, runs())).section("epochs")
    (table,) = section.tables
    rows = {(row[0], row[1]): row for row in table.rows}
    row = rows["Wukong", "budget_mflop 10.0"]
    assert row[3:6] == ("2", "3.5 ± 0.71", "8")
    least, last = (0.5 + 0.6) / 2, (0.5 + 0.01 * 25 + 0.6 + 0.01 * 16) / 2
    assert row[6].startswith(f"{least:.5f} ± ")
    assert row[7].startswith(f"{last:.5f} ± ")
    assert row[8].startswith(f"{np.mean([100 * 0.25 / 0.5, 100 * 0.16 / 0.6]):+.3f}")
    assert row[9] == "0.12500 ± 0.00000"


def test_the_figure_has_a_panel_a_series_and_marks_the_turning_points(tmp_path):
    figure = make_report(write_made(tmp_path, runs(seeds=(0,)))).section("epochs").figure
    assert [axes.get_title() for axes in figure.axes] == ["Wukong", "DLRM"]
    found = {}
    for axes in figure.axes:
        marks = [line for line in axes.lines if line.get_linestyle() == "None"]
        found[axes.get_title()] = sorted(float(line.get_xdata()[0]) for line in marks)
        for line in axes.lines:
            if len(line.get_xdata()) == EPOCHS:
                np.testing.assert_allclose(line.get_xdata(), range(1, EPOCHS + 1))
    assert found == {"Wukong": [3.0, 6.0], "DLRM": [2.0]}


@pytest.mark.parametrize("history", [[], course(1)[:1], [{"split": "valid", "step": 1, "logloss": 0.4}] * 2])
def test_runs_of_one_pass_are_left_out(tmp_path, history):
    made = [Made("Wukong", "ladder", {"budget_mflop": 1.0}, 1.0, 0.5, changes={"history": history})]
    section = make_report(write_made(tmp_path, made)).section("epochs")
    assert section.figure is None
    assert section.text[0].startswith("Left out")
