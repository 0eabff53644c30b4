"""Figures of a report over compute and over examples: the ladder and the data sizes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wukong_jax.scaling.report_data import Setting, Study
from wukong_jax.scaling.report_effects import shown_value
from wukong_jax.scaling.report_laws import CurveLaws, JointLaws, law_over
from wukong_jax.scaling.report_style import (
    COMPUTE,
    finish,
    legend_below,
    logarithmic,
    lost_marks,
    markers,
    panels_of,
    style,
)


def ladder_figure(study: Study, laws: CurveLaws) -> Figure:
    """LogLoss over compute with the best law of each series and its interval; also the gap to a known floor."""
    floors = [0.0] if study.floor is None else [0.0, study.floor]
    figure, panels = panels_of(len(floors))
    for axes, floor in zip(panels, floors, strict=True):
        for index, series in enumerate(study.series):
            look = style(index)
            settings = [setting for setting in study.settings if setting.first.series == series]
            x = [setting.first.compute for setting in settings]
            fit = laws.best(series)
            if fit is not None:
                at, law, low, high = law_over(fit)
                axes.fill_between(at, low - floor, high - floor, color=look.grey, alpha=0.13, lw=0)
                axes.plot(at, law - floor, color=look.grey, ls=look.line, lw=1.2)
            name = f"{series}: no law fitted" if fit is None else f"{series}: {fit.law.formula}"
            markers(axes, x, [s.logloss for s in settings], floor, look, name, joined=fit is None)
        lost_marks(axes, study.lost, {series: style(index) for index, series in enumerate(study.series)})
        logarithmic(axes.xaxis)
        _y_axis(axes, study, floor, COMPUTE)
    legend_below(figure, panels[0])
    return figure


def data_figure(study: Study, laws: JointLaws | None) -> Figure:
    """LogLoss, or the gap to a known floor, over the examples trained on, a curve for each series and size."""
    figure, (axes,) = panels_of(1, 8.0)
    floor = study.floor or 0.0
    curves = data_curves(study.settings)
    for index, (name, settings) in enumerate(curves.items()):
        look, first = style(index), settings[0].first
        x = [setting.examples for setting in settings]
        fit = None if laws is None else laws.of(first.series)
        if fit is not None:
            at = np.geomspace(min(x), max(x), 100)
            axes.plot(at, fit.predict(np.full(100, first.compute), at) - floor, color=look.grey, ls=look.line, lw=1.2)
        markers(axes, x, [s.logloss for s in settings], floor, look, name, joined=fit is None)
    logarithmic(axes.xaxis)
    _y_axis(axes, study, floor, "examples trained on")
    legend_below(figure, axes)
    return figure


def data_curves(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """Settings that differ in their examples only, by the name of their curve, in the order of the examples."""
    sizes: dict[str, dict[str, list[Setting]]] = {}
    for setting in settings:
        run = setting.first
        rest = [f"{name} {shown_value(value)}" for name, value in run.varied.items() if name != "examples"]
        curves = sizes.setdefault(f"{run.series}, {run.compute:.4g} MFLOP", {})
        curves.setdefault(", ".join(rest), []).append(setting)
    return {
        name if len(curves) == 1 else f"{name}, {rest}": sorted(curve, key=lambda setting: setting.examples)
        for name, curves in sizes.items()
        for rest, curve in curves.items()
    }


def _y_axis(axes: Axes, study: Study, floor: float, xlabel: str) -> None:
    if floor:
        logarithmic(axes.yaxis)
        finish(axes, xlabel, f"test LogLoss minus the floor, {floor:.5f}")
    else:
        finish(axes, xlabel, "test LogLoss")
