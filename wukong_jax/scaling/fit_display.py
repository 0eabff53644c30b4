"""Fits, the ranking of series and allocations as tables on the terminal."""

from collections.abc import Mapping, Sequence

import rich.console
import rich.table

from wukong_jax.scaling.allocation import Allocation
from wukong_jax.scaling.bootstrap import Interval
from wukong_jax.scaling.fit import Fitted
from wukong_jax.scaling.read_points import Source
from wukong_jax.scaling.saturation import STATES, Saturation
from wukong_jax.scaling.selection import Comparison


def print_left_out(source: Source, console: rich.console.Console) -> None:
    """A line for every run that is not fitted."""
    for run in source.left_out:
        console.print(f"left out: {run.series} at x = {run.x:g}: {run.reason}", markup=False, soft_wrap=True)


def print_refused(refused: Mapping[str, str], console: rich.console.Console) -> None:
    """A line for every series that could not be fitted."""
    for message in refused.values():
        console.print(f"not fitted: {message}", markup=False, soft_wrap=True)


def print_comparison(comparison: Comparison, console: rich.console.Console) -> None:
    """The table of one series and what it says about the forms."""
    print_fits(comparison.series, comparison.fits, comparison.best, console)
    console.print(f"{comparison.series}: {comparison.verdict}", markup=False, soft_wrap=True)
    for message in comparison.skipped.values():
        console.print(f"skipped: {message}", markup=False, soft_wrap=True)


def print_fits(series: str, fits: Sequence[Fitted], best: str | None, console: rich.console.Console) -> None:
    """How good each form is, the best one marked with a star, and below it the forms' parameters."""
    first = fits[0]
    runs, points = len(first.points.y), first.points.groups.max() + 1
    table = rich.table.Table(title=f"{series}: {runs} runs of {points} points", title_justify="left")
    for heading in ("form", "R2", "LOO error", "AICc", "extrapolation"):
        table.add_column(heading, overflow="fold")
    for fit in fits:
        found = fit.diagnostics
        scores = [f"{value:.4g}" for value in (found.r2, found.loo_rmse, found.aicc, found.extrapolation)]
        origin = f"{fit.origin:g} + " if fit.origin else ""
        table.add_row(f"{fit.law.name}{' *' if fit.law.name == best else ''}: {origin}{fit.law.formula}", *scores)
    console.print(table, markup=False)
    table = rich.table.Table()
    for heading in ("form", "parameter", "value", f"{first.level:.0%} interval", "remark"):
        table.add_column(heading, overflow="fold")
    for fit in fits:
        table.add_section()
        figures = dict(fit.parameters) | ({"change at the last 4x": fit.gain()} if fit.law.variables == 1 else {})
        names = [fit.law.name, *[""] * len(figures)]
        for name, (parameter, value) in zip(names, figures.items(), strict=False):
            table.add_row(name, parameter, *shown(value).split(" ", 1), _remark(fit, parameter))
    console.print(table, markup=False)


def _remark(fit: Fitted, parameter: str) -> str:
    if parameter in fit.diagnostics.unidentified:
        return "not determined"
    return "at the end of the search" if parameter in fit.diagnostics.at_bound else ""


def print_ranking(found: Sequence[Saturation], console: rich.console.Console) -> None:
    """The series by the compute up to which they improved."""
    table = rich.table.Table(
        title=f"Saturation: series by the x up to which they improved by more than their noise. {STATES}",
        title_justify="left",
    )
    for heading in ("series", "improved to", "best at", "largest", "exploded", "state", "tail per 4x, 95%"):
        table.add_column(heading, overflow="fold")
    for one in found:
        exploded = "-" if one.exploded_x is None else f"{one.exploded_x:g}"
        places = [f"{value:g}" for value in (one.reach, one.best_x, one.largest_x)]
        table.add_row(one.series, *places, exploded, one.state, shown(one.tail_gain, 3))
    console.print(table, markup=False)


def print_allocations(series: str, found: Sequence[Allocation], console: rich.console.Console) -> None:
    """One row a budget."""
    if not found:
        return
    table = rich.table.Table(title=f"{series}: best division of compute, N x D", title_justify="left")
    for heading in ("budget", "N, compute per example", "D, examples", "value", "remarks"):
        table.add_column(heading, overflow="fold")
    for one in found:
        figures = [shown(value) for value in (one.compute, one.examples, one.value)]
        table.add_row(f"{one.budget:.4g}", *figures, "\n".join(one.remarks))
    console.print(table, markup=False)


def shown(value: Interval, digits: int = 5) -> str:
    """`0.2937 [0.1112, 0.5277]`."""
    return f"{value.value:.{digits}g} [{value.low:.{digits}g}, {value.high:.{digits}g}]"
