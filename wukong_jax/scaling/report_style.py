"""How curves look, so that they differ in black and white; and figures as files, the same bytes each time."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from wukong_jax.comparison.table import Spread
from wukong_jax.scaling.report_data import Run

Format = Literal["png", "svg"]
MARKERS = "osD^v<>Ph*Xpd"
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2, 1, 2)))
GREYS = ("black", "0.4", "0.6")
FACES = (None, "white")
"""A marker is filled with its curve's grey, or hollow."""
COMPUTE = "training MFLOP/example"
TOP = 0.965
"""Height of the marks of runs that diverged, as a share of the panel."""
SALT = "wukong_jax"
"""Ids in an SVG are hashes; with a fixed salt they are the same each time."""


class Style(NamedTuple):
    """Marker, line style, grey and fill of one curve."""

    marker: str
    line: Any
    grey: str
    face: str

    def points(self) -> dict[str, Any]:
        """Arguments of a plot of markers."""
        return {"marker": self.marker, "color": self.grey, "markerfacecolor": self.face, "ms": 6, "lw": 1.2}


def style(index: int) -> Style:
    """The style of the curve number `index`: the first 65 differ in marker or line, the first 5 in both."""
    grey = GREYS[index % len(GREYS)]
    return Style(MARKERS[index % len(MARKERS)], LINES[index % len(LINES)], grey, FACES[index % len(FACES)] or grey)


def panels_of(count: int, width: float = 5.8) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels side by side, of `width` inches each."""
    figure = Figure(figsize=(width * count, 5.2), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def markers(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Spread],
    floor: float,
    look: Style,
    name: str,
    *,
    joined: bool = False,
) -> None:
    """Means above `floor` with bars of one standard deviation where there are several seeds; the legend's entry."""
    means = [value.mean - floor for value in values]
    line = look.line if joined else "none"
    axes.plot(x, means, ls=line, **look.points())
    for at, mean, value in zip(x, means, values, strict=True):
        if not math.isnan(value.std):
            axes.errorbar([at], [mean], yerr=[value.std], fmt="none", color=look.grey, capsize=3, lw=1)
    axes.plot([], [], ls=look.line, label=name, **look.points())


def lost_marks(axes: Axes, lost: Sequence[Run], looks: Mapping[str, Style]) -> None:
    """Runs that diverged, at the top edge over their compute: their curve's marker, crossed out."""
    height = axes.get_xaxis_transform()
    for index, run in enumerate(lost):
        look = looks.get(run.series, style(0))
        label = "diverged (at the top edge)" if index == 0 else None
        axes.plot([run.compute], [TOP], "x", color="black", ms=15, mew=1.4, transform=height, label=label)
        axes.plot([run.compute], [TOP], transform=height, ls="none", **look.points())


def finish(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels, and a light grid."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def logarithmic(axis: XAxis | YAxis) -> None:
    """A log scale whose ticks are plain numbers: 0.5, 20, 10k, 2M."""
    least, most = axis.get_data_interval()
    if least == most:  # one value: limits that Matplotlib would otherwise guess, with a warning
        axis.axes.set(**{f"{axis.axis_name}lim": (least / 1.5, most * 1.5)})
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    if decades < 1:  # too narrow for the digits 1, 2 and 5
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:.4g}"


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, under them, in as many columns as the width allows."""
    handles, labels = axes.get_legend_handles_labels()
    inches = 0.075 * max(map(len, labels)) + 0.9
    columns = min(len(labels), max(1, int(figure.get_figwidth() / inches)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize="small", handlelength=4)


def rendered(figure: Figure, kind: Format) -> bytes:
    """The figure as the bytes of a PNG or SVG file, without a date."""
    file = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": SALT, "svg.fonttype": "path"}):
        figure.savefig(file, format=kind, dpi=130, metadata=metadata)
    return file.getvalue()
