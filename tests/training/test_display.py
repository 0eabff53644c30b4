"""What is shown during training and at the end."""

import re

import pytest
import rich.console

from tests.tiny import memory_console, printed
from wukong_jax.training import display
from wukong_jax.training.display import LiveDisplay, PlainDisplay, final_tables, make_display

RECORD = {
    "name": "tiny",
    "model": "Wukong",
    "seed": 3,
    "best_possible": None,
    "results": {
        "valid": {"logloss": 0.51234567, "auc": 0.71, "ne": 0.9, "calibration": 1.01, "examples": 25.0},
        "test": {"logloss": 0.52, "auc": None, "ne": 0.91, "calibration": 0.99, "examples": 30.0, "gauc": 0.66},
    },
    "dense_parameters": 12345,
    "sparse_parameters": 6789012,
    "training_flops_per_example": 1000000,
    "examples_per_second": 54321.6,
    "wall_seconds": 12.34,
    "best_step": 80,
    "steps": 120,
    "checkpoint": "runs/[odd] name/checkpoints/80",
}


def test_plain_lines_when_not_a_terminal():
    console = memory_console(force_terminal=False)
    display = make_display(console, 0, 100)
    assert isinstance(display, PlainDisplay)
    display.update(50, 0.61234, 12345.6, 0.071)
    display.message("step 50: validation auc 0.7 [/strange] [red]brackets")
    display.update(51, 0.6, 1.0, 0.0)
    display.update(100, 0.5, 1.0, 0.0)
    display.close()
    lines = printed(console).splitlines()
    assert lines[0] == "step 50/100  loss 0.6123  12,346 examples/s  input wait 7%  ETA -"
    assert lines[1] == "step 50: validation auc 0.7 [/strange] [red]brackets"
    assert len(lines) == 3, "a line within 5 s of the one before is left out, but not the last"
    assert re.fullmatch(r"step 100/100  loss 0.5000  .*ETA 0 s", lines[2])
    assert "\x1b" not in printed(console)


def test_the_time_left_is_reckoned_from_the_first_line_on(monkeypatch):
    clock = iter([0.0, 60.0, 70.0])  # made, first line after a minute of compiling, then 100 steps in 10 s
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    console = memory_console(force_terminal=False)
    shown = PlainDisplay(console, 1000)
    shown.update(50, 0.6, 1.0, 0.0)
    shown.update(150, 0.6, 1.0, 0.0)
    assert printed(console).splitlines()[1].endswith("ETA 85 s")


def test_a_live_line_on_a_terminal():
    console = memory_console(force_terminal=True)
    display = make_display(console, 20, 100)
    assert isinstance(display, LiveDisplay)
    display.update(50, 0.61234, 12345.6, 0.071)
    display.message("a line that stays [/strange]")
    display.close()
    shown = rich.text.Text.from_ansi(printed(console)).plain
    for part in ("step 50/100", "loss 0.6123", "12,346 examples/s", "input wait 7%", "a line that stays [/strange]"):
        assert part in shown
    assert "\x1b" in printed(console)


def test_a_live_line_goes_on_from_the_step_resumed_at():
    console = memory_console(force_terminal=True)
    display = make_display(console, 20, 100)
    display.close()
    assert "step 20/100" in rich.text.Text.from_ansi(printed(console)).plain


@pytest.mark.parametrize("terminal", [True, False])
def test_a_quiet_console_shows_nothing(terminal):
    console = memory_console(force_terminal=terminal, quiet=True)
    display = make_display(console, 0, 100)
    assert isinstance(display, PlainDisplay)
    display.update(100, 0.5, 1.0, 0.0)
    display.message("unseen")
    display.close()
    assert printed(console) == ""


@pytest.mark.parametrize("width", [60, 200])
def test_the_final_tables_show_scores_sizes_and_the_checkpoint(width):
    console = memory_console()
    console.width = width
    console.print(*final_tables(RECORD))
    shown = printed(console)
    for part in (
        "tiny: Wukong, seed 3",
        "valid",
        "test",
        "LogLoss",
        "0.51235",
        "0.52000",
        "calibration",
        "gAUC",
        "0.66000",
    ):
        assert part in shown
    for part in ("12,345", "6,789,012", "1,000,000", "54,322", "12.3 s", "80"):
        assert part in shown
    assert "runs/[odd]name/checkpoints/80" in re.sub(r"[\s│]", "", shown), "long paths are folded, not cut"


def test_the_final_tables_show_loss_spikes_where_there_are_any():
    spikes = [{"step": 50 * i, "loss": 1.5, "typical": 0.5} for i in range(1, 5)]
    shown = []
    for found in ([], spikes[:1], spikes):
        console = memory_console()
        console.print(*final_tables(RECORD | {"loss_spikes": found}))
        shown.append(printed(console))
    assert "spike" not in shown[0]
    assert re.search(r"loss spikes\W+1: step 50 \(0.5000 -> 1.5000\) ", shown[1])
    assert re.search(r"loss spikes\W+4: step 50 .*step 100 .*step 150 \(0.5000 -> 1.5000\), \.\.\. ", shown[2])


def test_a_score_that_is_not_there_is_a_dash():
    console = memory_console()
    console.print(*final_tables(RECORD))
    rows = [re.split(r"\s*[│┃]\s*", line) for line in printed(console).splitlines()]
    assert any(row[1:4] == ["AUC", "0.71000", "-"] for row in rows)
    assert any(row[1:4] == ["gAUC", "-", "0.66000"] for row in rows)


def test_the_final_tables_of_a_store_without_evaluation_splits():
    console = memory_console()
    console.print(*final_tables(RECORD | {"results": {}}))
    assert "12,345" in printed(console)


def test_the_final_tables_show_the_best_possible_scores_of_made_data():
    floor = {split: {"logloss": 0.4123, "auc": 0.8123, "positive_rate": 0.25} for split in ("train", "valid", "test")}
    console = memory_console()
    console.print(*final_tables(RECORD | {"best_possible": floor}))
    assert re.search(r"best possible LogLoss\W+0.41230\W+0.41230", printed(console))
    assert re.search(r"best possible AUC\W+0.81230\W+0.81230", printed(console))
    assert "positive" not in printed(console)
