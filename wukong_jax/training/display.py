"""What a person sees of a run: a live line on a terminal, plain lines elsewhere, and the final table."""

import time
from typing import Any, Protocol

import rich.console
import rich.progress
import rich.table


class Display(Protocol):
    """Shows the progress of training."""

    def update(self, step: int, loss: float, examples_per_second: float, waiting: float) -> None:
        """A point of the training curve; `waiting` is the share of time spent waiting for input."""

    def message(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """The training part has ended."""


class LiveDisplay:
    """A progress bar that is redrawn in place."""

    def __init__(self, console: rich.console.Console, start: int, total: int) -> None:
        """Start at a step of `total`."""
        columns = (
            rich.progress.TextColumn("step {task.completed}/{task.total}"),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.TextColumn("{task.fields[rate]} examples/s  loss {task.fields[loss]}  input wait {task.fields[wait]}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
        )
        self._progress = rich.progress.Progress(*columns, console=console, expand=True)
        self._task = self._progress.add_task("train", total=total, completed=start, rate="-", loss="-", wait="-")
        self._progress.start()

    def update(self, step: int, loss: float, examples_per_second: float, waiting: float) -> None:
        """Redraw."""
        fields = {"rate": f"{examples_per_second:,.0f}", "loss": f"{loss:.4f}", "wait": f"{waiting:.0%}"}
        self._progress.update(self._task, completed=step, **fields)

    def message(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, highlight=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class PlainDisplay:
    """A line now and then, for logs and pipes."""

    def __init__(self, console: rich.console.Console, total: int, seconds_between: float = 5.0) -> None:
        """Print at most one progress line per `seconds_between`."""
        self._console, self._total, self._between = console, total, seconds_between
        self._start, self._first_step, self._last = time.monotonic(), 0, 0.0

    def update(self, step: int, loss: float, examples_per_second: float, waiting: float) -> None:
        """Print a line if the last one is old enough."""
        now = time.monotonic()
        if now - self._last < self._between and step < self._total:
            return
        self._first_step = self._first_step or step
        pace = (now - self._start) / max(step - self._first_step, 1)
        eta = f"{pace * (self._total - step):.0f} s" if step > self._first_step else "-"
        self._last = now
        self.message(
            f"step {step}/{self._total}  loss {loss:.4f}  {examples_per_second:,.0f} examples/s  "
            f"input wait {waiting:.0%}  ETA {eta}"
        )

    def message(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to leave behind."""


def make_display(console: rich.console.Console, start: int, total: int) -> Display:
    """Live on a terminal, plain otherwise."""
    return LiveDisplay(console, start, total) if console.is_terminal else PlainDisplay(console, total)


def final_table(record: dict[str, Any]) -> rich.table.Table:
    """Scores by split, sizes, speed and where the checkpoint is, from a run record."""
    table = rich.table.Table(title=f"{record['name']}: {record['model']}, seed {record['seed']}", title_justify="left")
    splits = list(record["results"])
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    names = dict.fromkeys(name for split in splits for name in record["results"][split])
    labels = {"logloss": "LogLoss", "auc": "AUC", "gauc": "gAUC", "ne": "NE", "calibration": "calibration"}
    for name in names:
        base, _, task = name.partition("/")
        if base in labels:
            values = [f"{record['results'][split].get(name, float('nan')):.5f}" for split in splits]
            table.add_row(labels[base] + (f" {task}" if task else ""), *values)
    table.add_section()
    facts = {
        "best step": record["best_step"],
        "dense parameters": f"{record['dense_parameters']:,}",
        "sparse parameters": f"{record['sparse_parameters']:,}",
        "training FLOPs/example": f"{record['training_flops_per_example']:,}",
        "examples/s": f"{record['examples_per_second']:,.0f}",
        "wall time": f"{record['wall_seconds']:.1f} s",
        "checkpoint": record["checkpoint"],
    }
    for name, value in facts.items():
        table.add_row(name, str(value), *[""] * (len(splits) - 1))
    return table
