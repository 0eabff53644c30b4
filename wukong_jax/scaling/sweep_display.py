"""What a person sees of a sweep: one live table on a terminal, a line for each change elsewhere."""

from collections import Counter
from collections.abc import Sequence

import rich.console
import rich.live
import rich.table
from rich.markup import escape

from wukong_jax.scaling.sweep_plan import PlannedRun
from wukong_jax.scaling.sweep_runner import Status

FRAME_LINES = 9
"""Lines of the terminal that the live table leaves to headings and to what stands above."""


class LiveTable:
    """The runs in a table that is redrawn in place: all of them, or those that fit, running ones first."""

    def __init__(self, console: rich.console.Console, name: str) -> None:
        """Start drawing."""
        self._name, self._console = name, console
        self._live = rich.live.Live(console=console, refresh_per_second=2)
        self._live.start()

    def show(self, statuses: list[Status]) -> None:
        """Redraw."""
        self._live.update(table(self._name, shown_first(statuses, self._console.height - FRAME_LINES), statuses))

    def close(self) -> None:
        """Leave the table as it is."""
        self._live.stop()


class PlainLines:
    """A line whenever the state of a run changes, for logs and pipes."""

    def __init__(self, console: rich.console.Console, statuses: Sequence[Status]) -> None:
        """Start from the states that are there."""
        self._console = console
        self._before = [status.state for status in statuses]

    def show(self, statuses: list[Status]) -> None:
        """Print what changed."""
        for number, status in enumerate(statuses):
            if status.state == self._before[number]:
                continue
            self._before[number] = status.state
            counts = Counter(status.state for status in statuses)
            facts = [f"{status.state} {status.run.point}"]
            facts += [f"LogLoss {status.logloss:.5f}"] if status.logloss is not None else []
            facts += [f"{duration(status.seconds)}"] if status.seconds else []
            facts += [status.said] if status.state not in ("running", "recorded") and status.said else []
            text = f"{counts['recorded']} of {len(statuses)} recorded: {', '.join(facts)}"
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def close(self) -> None:
        """Nothing to leave behind."""


def make_display(console: rich.console.Console, name: str, statuses: Sequence[Status]) -> LiveTable | PlainLines:
    """Live on a terminal, plain otherwise."""
    return LiveTable(console, name) if console.is_terminal else PlainLines(console, statuses)


def shown_first(statuses: Sequence[Status], lines: int) -> list[Status]:
    """At most `lines` runs in the sweep's order; the running ones before others, waiting and recorded ones last."""
    urgency = {"running": 0, "failed": 1, "diverged": 2, "stopped": 3, "taken": 3, "waiting": 4, "recorded": 5}
    ranked = sorted(range(len(statuses)), key=lambda index: urgency[statuses[index].state])
    return [statuses[index] for index in sorted(ranked[: max(lines, 1)])]


def table(name: str, rows: Sequence[Status], statuses: Sequence[Status]) -> rich.table.Table:
    """The rows, under a title that counts all runs."""
    counts = Counter(status.state for status in statuses)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    found = rich.table.Table(title=f"{name}: {len(statuses)} runs, {states}", title_justify="left")
    for heading in ("state", "study", "series"):
        found.add_column(heading, no_wrap=True)
    found.add_column("varied", overflow="fold")
    for heading in ("seed", "MFLOP/example", "LogLoss", "time"):
        found.add_column(heading, justify="right", no_wrap=True)
    found.add_column("last line", overflow="ellipsis", no_wrap=True, ratio=1)
    for status in rows:
        found.add_row(
            status.state,
            *cells(status.run),
            "" if status.logloss is None else f"{status.logloss:.5f}",
            duration(status.seconds) if status.seconds else "",
            escape(status.said),
        )
    return found


def cells(run: PlannedRun) -> tuple[str, ...]:
    """Study, series, what was varied, seed and training MFLOP/example."""
    point = run.point
    varied = ", ".join(f"{name} {value}" for name, value in point.varied.items())
    flops = f"{run.cost.training_flops / 1e6:,.4g}"
    return escape(point.study), escape(point.series), escape(varied), str(point.config.train.seed), flops


def duration(seconds: float) -> str:
    """`7 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
