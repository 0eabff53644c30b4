"""Validation LogLoss epoch by epoch: where runs of several epochs turn from learning to overfitting."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from wukong_jax.comparison.report import shown
from wukong_jax.comparison.table import Spread, spread
from wukong_jax.scaling.page_table import Table
from wukong_jax.scaling.report_data import Run, Setting, Study
from wukong_jax.scaling.report_style import finish, legend_below, panels_of, style
from wukong_jax.scaling.report_tables import percent, varied_text


class Course(NamedTuple):
    """What one run scored on the validation split, from time to time over more than one epoch."""

    epochs: Float[np.ndarray, "evaluations"]
    logloss: Float[np.ndarray, "evaluations"]
    trained: float
    """Mean training LogLoss of the last epoch, dropout included; NaN where none was logged."""

    @property
    def best(self) -> int:
        """Which evaluation has the least LogLoss."""
        return int(self.logloss.argmin())


class Courses(NamedTuple):
    """One setting, and the course of each of its runs."""

    setting: Setting
    of_runs: tuple[Course, ...]


def courses(study: Study, metric: str) -> tuple[Courses, ...]:
    """The settings whose runs had several epochs."""
    found = []
    for setting in study.settings:
        of_runs = [course for run in setting.runs if (course := _course(run, metric)) is not None]
        if len(of_runs) == len(setting.runs):
            found.append(Courses(setting, tuple(of_runs)))
    return tuple(found)


def epochs_figure(found: Sequence[Courses]) -> Figure:
    """A panel a series, a line a size, its best epoch marked; the first seed of each."""
    series = list(dict.fromkeys(one.setting.first.series for one in found))
    by_compute = sorted(found, key=lambda one: one.setting.first.compute)
    sizes = list(dict.fromkeys(varied_text(one.setting.first) for one in by_compute))
    figure, panels = panels_of(len(series), 5.0)
    for one in found:
        run, course = one.setting.first, one.of_runs[0]
        axes, look = panels[series.index(run.series)], style(sizes.index(varied_text(run)))
        axes.plot(course.epochs, course.logloss, ls=look.line, color=look.grey, lw=1.2)
        axes.plot(course.epochs[course.best], course.logloss[course.best], ls="none", **look.points())
    for axes, name in zip(panels, series, strict=True):
        axes.set_title(name)
        finish(axes, "epoch", "validation LogLoss")
    for index, text in enumerate(sizes):
        panels[0].plot([], [], ls=style(index).line, label=text, **style(index).points())
    legend_below(figure, panels[0])
    return figure


def epochs_table(found: Sequence[Courses]) -> Table:
    """The best epoch, the LogLoss there and after the last one, and what was trained to."""
    rows = []
    for setting, of_runs in found:
        run = setting.first
        best = spread([float(course.epochs[course.best]) for course in of_runs])
        least = spread([float(course.logloss[course.best]) for course in of_runs])
        last = spread([float(course.logloss[-1]) for course in of_runs])
        risen = spread([100 * float(course.logloss[-1] / course.logloss.min() - 1) for course in of_runs])
        size = (run.series, varied_text(run), f"{run.compute:.4g}", str(len(of_runs)))
        epochs = (_epochs(best), f"{max(float(course.epochs[-1]) for course in of_runs):.3g}")
        trained = shown(spread([course.trained for course in of_runs]))
        rows.append((*size, *epochs, shown(least), shown(last), percent(risen), trained))
    headings = ("series", "varied", "MFLOP/example", "seeds", "best epoch", "epochs", "LogLoss, best", "LogLoss, last")
    return Table("Validation LogLoss by epoch", (*headings, "risen, %", "training, last epoch"), tuple(rows))


def _course(run: Run, metric: str) -> Course | None:
    record = run.recorded.record
    an_epoch = record["examples"]["train"] / run.recorded.config.train.batch_size
    points = [(point["step"] / an_epoch, point) for point in record.get("history") or () if metric in point]
    scored = [(at, point[metric]) for at, point in points if point["split"] == "valid"]
    if len(scored) < 2 or scored[-1][0] < 1.5:  # one pass has no turning point
        return None
    epochs, logloss = np.array(scored, np.float64).T
    trained = [point[metric] for at, point in points if point["split"] == "train" and at > epochs[-1] - 1]
    return Course(epochs, logloss, spread(trained).mean)


def _epochs(value: Spread) -> str:
    return f"{value.mean:.3g}" + ("" if np.isnan(value.std) else f" ± {value.std:.2g}")
