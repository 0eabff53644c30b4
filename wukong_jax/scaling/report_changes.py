"""Figures of a report against a base: one knob at a time, and the ablation."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wukong_jax.comparison.table import Spread
from wukong_jax.scaling.report_effects import PUBLISHED, Effect, Effects, label, shown_value
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

HATCHES = ("", "..", "xx")
"""Of the bars of each series; the paper's have slanted lines."""


def knob_figure(found: Sequence[Effects]) -> Figure:
    """Change of LogLoss in percent over compute, one line a knob (or knobs changed together) from the base on."""
    figure, panels = panels_of(len(found), 7.5 if len(found) == 1 else 5.8)
    names = sorted({name for one in found for name in knob_lines(one)})
    looks = {name: style(index) for index, name in enumerate(names)}
    for axes, one in zip(panels, found, strict=True):
        base = one.base.first.compute
        axes.axhline(0, color="0.5", lw=0.8)
        for name in names:
            points = knob_lines(one).get(name, [])
            steps = sorted([(base, 0.0), *((e.setting.first.compute, e.change.mean) for e in points)])
            look = looks[name]
            axes.plot(*zip(*steps, strict=True), color=look.grey, ls=look.line, lw=1.2)
            markers(axes, [e.setting.first.compute for e in points], [e.change for e in points], 0.0, look, name)
            for effect in points:
                text = ", ".join(shown_value(value) for value in effect.changed.values())
                at = (effect.setting.first.compute, effect.change.mean)
                axes.annotate(text, at, (5, 4), textcoords="offset points", fontsize=7, color="0.2")
        axes.plot([base], [0], marker="+", color="black", ms=11, mew=1.5, ls="none", label="base")
        lost = [run._replace(series=" + ".join(changes)) for changes, run in one.lost]
        lost_marks(axes, lost, looks)
        logarithmic(axes.xaxis)
        axes.set_title(one.series, fontsize="medium")
        finish(axes, COMPUTE, "LogLoss change against the base, %")
    legend_below(figure, panels[0])
    return figure


def knob_lines(one: Effects) -> dict[str, list[Effect]]:
    """Settings by what they change: one knob, or several together."""
    lines: dict[str, list[Effect]] = {}
    for effect in one.others:
        lines.setdefault(" + ".join(effect.changed), []).append(effect)
    return lines


def ablation_figure(found: Sequence[Effects]) -> Figure:
    """Bars of the LogLoss change in percent against the full model, beside the paper's."""
    names = ablation_labels(found)
    figure, (axes,) = panels_of(1, max(7.0, 1.7 * len(names) + 1.5))
    axes.axhline(0, color="black", lw=0.8)
    published = {name: Spread(PUBLISHED[name], math.nan, 1) for name in names if name in PUBLISHED}
    bars = [(one.series, {effect.label: effect.change for effect in one.others}) for one in found]
    bars += [("paper, figure 4", published)] if published else []
    width = 0.8 / len(bars)
    for index, (series, changes) in enumerate(bars):
        offset = (index - (len(bars) - 1) / 2) * width
        places = [place + offset for place, name in enumerate(names) if name in changes]
        shown = [changes[name] for name in names if name in changes]
        grey = 0.35 + 0.5 * index / len(bars)
        color, hatch = str(grey), HATCHES[index % len(HATCHES)]
        if published and index == len(bars) - 1:
            color, hatch = "white", "//"
        heights = [change.mean for change in shown]
        axes.bar(places, heights, width, label=series, edgecolor="black", color=color, hatch=hatch)
        _whiskers(axes, places, shown)
    _lost_bars(axes, found, names, width, len(bars))
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.15)
    finish(axes, "", "LogLoss change against the full model, %")
    axes.grid(visible=False, axis="x")
    legend_below(figure, axes)
    return figure


def ablation_labels(found: Sequence[Effects]) -> list[str]:
    """The paper's variants in its order, then others."""
    there = {effect.label for one in found for effect in one.others}
    there |= {label(changes) for one in found for changes, _ in one.lost}
    return [name for name in PUBLISHED if name in there] + sorted(there - set(PUBLISHED))


def _whiskers(axes: Axes, places: Sequence[float], changes: Sequence[Spread]) -> None:
    """Deviations over the seeds, and each bar's figure above or below all of it."""
    for place, change in zip(places, changes, strict=True):
        std = 0.0 if math.isnan(change.std) else change.std
        if std:
            axes.errorbar([place], [change.mean], yerr=[std], color="black", fmt="none", capsize=4, lw=1.2)
        up = change.mean >= 0
        at = (place, change.mean + (std if up else -std))
        axes.annotate(
            f"{change.mean:+.2f}",
            at,
            (0, 3 if up else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if up else "top",
            fontsize=8,
        )


def _lost_bars(axes: Axes, found: Sequence[Effects], names: list[str], width: float, bars: int) -> None:
    """The word where a bar is missing as its runs diverged."""
    for index, one in enumerate(found):
        kept = {effect.label for effect in one.others}
        for name in {label(changes) for changes, _ in one.lost} - kept:
            place = names.index(name) + (index - (bars - 1) / 2) * width
            axes.text(place, 0, " diverged", rotation=90, ha="center", va="bottom", fontsize=8)
