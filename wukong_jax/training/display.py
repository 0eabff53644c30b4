"""What a person sees of a run: a live line on a terminal, plain lines elsewhere, and the final table."""

import time
from typing import Any, Protocol, runtime_checkable

import rich.console
import rich.progress
import rich.table
from rich.markup import escape

SCORES = {"logloss": "LogLoss", "auc": "AUC", "gauc": "gAUC", "ne": "NE", "calibration": "calibration"}
SCORES |= {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR", "loss": "loss"}


@runtime_checkable  # so that annotations can be checked in tests
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
            rich.progress.TextColumn(
                "{task.fields[rate]} examples/s  loss {task.fields[loss]}  input wait {task.fields[wait]}"
            ),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
        )
        self._progress = rich.progress.Progress(*columns, console=console, expand=True)
        self._task = self._progress.add_task("train", total=total, completed=start, rate="-", loss="-", wait="-")
        self._progress.start()

    def update(self, step: int, loss: float, examples_per_second: float, waiting: float) -> None:
        """Redraw."""
        rate, wait = f"{examples_per_second:,.0f}", f"{waiting:.0%}"
        fields: dict[str, Any] = {"rate": rate, "loss": f"{loss:.4f}", "wait": wait}
        self._progress.update(self._task, completed=step, **fields)

    def message(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

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
        if not self._first_step:  # what came before, compilation above all, says nothing of the pace
            self._first_step, self._start = step, now
        pace = (now - self._start) / max(step - self._first_step, 1)
        eta = f"{pace * (self._total - step):.0f} s" if step > self._first_step else "-"
        self._last = now
        self.message(
            f"step {step}/{self._total}  loss {loss:.4f}  {examples_per_second:,.0f} examples/s  "
            f"input wait {waiting:.0%}  ETA {eta}"
        )

    def message(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to leave behind."""


def make_display(console: rich.console.Console, start: int, total: int) -> Display:
    """Live on a terminal, plain otherwise, and on a quiet console, where nothing is seen of it."""
    live = console.is_terminal and not console.quiet
    return LiveDisplay(console, start, total) if live else PlainDisplay(console, total)


def final_tables(record: dict[str, Any]) -> list[rich.table.Table]:
    """Scores by split; then sizes, speed and where the checkpoint is, from a run record."""
    title = f"{record['name']}: {record['model']}, seed {record['seed']}"
    scores = rich.table.Table("", title=title, title_justify="left")
    splits = list(record["results"])
    for split in splits:
        scores.add_column(split, justify="right")
    for name in dict.fromkeys(name for split in splits for name in record["results"][split]):
        metric, _, label = name.partition("/")
        base, at, cutoff = metric.partition("@")
        if base in SCORES:
            values = (record["results"][split].get(name) for split in splits)
            scores.add_row(
                f"{SCORES[base]}{at}{cutoff} {label}".strip(),
                *("-" if value is None else f"{value:.5f}" for value in values),
            )
    floor = record["best_possible"] or {}
    for name in (name for name in SCORES if floor and all(name in floor[split] for split in splits)):
        scores.add_row(f"best possible {SCORES[name]}", *(f"{floor[split][name]:.5f}" for split in splits))
    spikes = record.get("loss_spikes", [])  # records of earlier versions have none
    facts = rich.table.Table(show_header=False)
    facts.add_column()
    facts.add_column(overflow="fold")
    for name, value in {
        "dense parameters": f"{record['dense_parameters']:,}",
        "sparse parameters": f"{record['sparse_parameters']:,}",
        "training FLOPs/example": f"{record['training_flops_per_example']:,}",
        "examples/s": f"{record['examples_per_second']:,.0f}" if record["examples_per_second"] else "-",
        "time of training and validation": f"{record['wall_seconds']:.1f} s",
        **({"loss spikes": _spikes_shown(spikes)} if spikes else {}),
        "best of steps": f"{record['best_step']} of {record['steps']}",
        "checkpoint": escape(record["checkpoint"]),
    }.items():
        facts.add_row(name, value)
    return [scores, facts]


def _spikes_shown(spikes: list[dict[str, Any]]) -> str:
    shown = ", ".join(f"step {s['step']} ({s['typical']:.4f} -> {s['loss']:.4f})" for s in spikes[:3])
    return f"{len(spikes)}: {shown}{', ...' if len(spikes) > 3 else ''}"
