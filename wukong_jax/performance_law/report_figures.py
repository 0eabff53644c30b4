"""Figures of a fitted law, readable in black and white: surface, residuals, profiles, near-optimal region."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wukong_jax.performance_law.answers import Inside, Outside
from wukong_jax.performance_law.fit import Fitted
from wukong_jax.performance_law.lattice import Lattice
from wukong_jax.performance_law.next_run import NextRun
from wukong_jax.performance_law.optimum import Optimum
from wukong_jax.performance_law.report_tables import law_values
from wukong_jax.performance_law.runs import Runs
from wukong_jax.performance_law.search import Search
from wukong_jax.scaling.report_style import finish, legend_below, logarithmic, panels_of

LEVELS = 10
"""Contour lines of a surface."""
POINTS = 60
"""Values along each axis of a surface, 120 along a profile."""
MARGIN = 1.12
"""A picture goes so far beyond the searched sizes."""
SHOWN_NEXT = 3


def surface_figure(search: Search, found: Optimum, lattice: Lattice, following: NextRun | None) -> Figure:
    """The law as a map over depth and width with the measured sizes, the near-optimal region and the best size."""
    figure, (axes,) = panels_of(1, 8.0)
    layers, dims = (
        np.geomspace(axis[0] / MARGIN, axis[-1] * MARGIN, POINTS) for axis in (lattice.layers, lattice.dims)
    )
    grid = search.sign * _over(search, layers, dims)
    shades = axes.contourf(layers, dims, grid.T, LEVELS, cmap="Greys_r" if search.sign > 0 else "Greys", alpha=0.6)
    lines = axes.contour(layers, dims, grid.T, shades.levels, colors="black", linewidths=0.7)
    axes.clabel(lines, fontsize="x-small", fmt="%.4g")
    figure.colorbar(shades, ax=axes, label=search.law.runs.metric)
    _region(axes, found, lattice, hatched=True)
    _marks(axes, search, found)
    if following is not None and following.worthwhile:
        some = following.shown(SHOWN_NEXT)
        axes.plot(following.layers[some], following.dims[some], "P", mfc="0.5", mec="black", ms=11, label="next run")
    _size_axes(axes)
    legend_below(figure, axes)
    return figure


def residuals_figure(fit: Fitted, panel: int) -> Figure:
    """Measured minus law: its size and sign at every measured size, and against the law's value."""
    figure, (plane, against) = panels_of(2)
    own = fit.runs.panel == panel
    runs, law = fit.runs.subset(own), law_values(fit)[own]
    residuals = runs.y - law
    area = 900 * np.abs(residuals) / max(float(np.abs(residuals).max()), np.finfo(float).tiny)
    for above, face, name in ((True, "black", "measured above the law"), (False, "white", "below it")):
        kept = (residuals > 0) == above
        look: dict[str, Any] = {"c": face, "edgecolors": "black", "alpha": 0.7}
        plane.scatter(runs.layers[kept], runs.dim[kept], s=area[kept] + 8, label=f"{name}; area: how far", **look)
        against.scatter(law[kept], residuals[kept], s=36, **look)
    against.axhline(0, color="black", lw=1)
    _size_axes(plane)
    finish(against, f"law, {runs.metric}", "measured minus law")
    legend_below(figure, plane)
    return figure


def profiles_figure(search: Search, found: Optimum, lattice: Lattice) -> Figure:
    """The law along each axis through the best size, with its interval, the nearest runs, and N* or d*."""
    figure, panels = panels_of(2)
    best = (found.best.layers, found.best.dim)
    low, high = (1 - search.law.level) / 2, (1 + search.law.level) / 2
    runs = _runs_asked_about(search)
    for number, (axes, answer, axis) in enumerate(
        zip(panels, (found.layers, found.dim), (lattice.layers, lattice.dims), strict=True)
    ):
        at = np.geomspace(axis[0] / MARGIN, axis[-1] * MARGIN, 2 * POINTS)
        other = np.full_like(at, best[1 - number])
        sizes = (at, other) if number == 0 else (other, at)
        band = np.quantile(search.sign * search.draws(*sizes), [low, high], axis=0)
        axes.fill_between(at, *band, color="0.85", label=f"{search.law.level:.0%} interval")
        axes.plot(at, search.sign * search.goodness(*sizes), "k-", label="law through the best size")
        measured = (runs.layers, runs.dim)
        nearest = _nearest(measured[1 - number], best[1 - number])
        axes.plot(measured[number][nearest], runs.y[nearest], "o", mfc="white", mec="black", label="nearest runs")
        if isinstance(answer, Inside | Outside):
            span = np.clip([answer.at.low, answer.at.high], at[0], at[-1])
            axes.axvspan(*span, facecolor="none", edgecolor="0.6", hatch="//", lw=0, label="interval of N* or d*")
            if at[0] <= answer.at.value <= at[-1]:
                axes.axvline(answer.at.value, color="black", ls="--", lw=1, label="N* or d*")
        axes.set_title(f"{'Nd'[number]}*: {answer.short}", fontsize="small", wrap=True)
        logarithmic(axes.xaxis)
        fixed = f"{'dN'[number]} = {best[1 - number]:g}"
        finish(axes, f"{('layers N', 'width d')[number]}, at {fixed}", search.law.runs.metric)
    legend_below(figure, max(panels, key=lambda axes: len(axes.get_legend_handles_labels()[1])))
    return figure


def region_figure(search: Search, found: Optimum, lattice: Lattice) -> Figure:
    """How surely each size of the near-optimal region is as good as the best: its share of the draws."""
    figure, (axes,) = panels_of(1, 8.0)
    share = _on_lattice(found, lattice, found.region.share)
    edges = [_edges(axis) for axis in (lattice.layers, lattice.dims)]
    shades = axes.pcolormesh(*edges, share.T, cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(shades, ax=axes, label="share of the draws in which the size is as good as the best")
    _region(axes, found, lattice, hatched=False)
    _marks(axes, search, found)
    _size_axes(axes)
    legend_below(figure, axes)
    return figure


def _over(
    search: Search, layers: Float[np.ndarray, "layers"], dims: Float[np.ndarray, "dims"]
) -> Float[np.ndarray, "layers dims"]:
    sizes = (grid.reshape(-1) for grid in np.meshgrid(layers, dims, indexing="ij"))
    return search.goodness(*sizes).reshape(len(layers), len(dims))


def _on_lattice(
    found: Optimum, lattice: Lattice, values: Float[np.ndarray, "sizes"]
) -> Float[np.ndarray, "layers dims"]:
    """Values of the region's sizes at their places; 0 elsewhere."""
    grid = np.zeros((len(lattice.layers), len(lattice.dims)))
    places = [
        np.searchsorted(a, b) for a, b in ((lattice.layers, found.region.layers), (lattice.dims, found.region.dims))
    ]
    grid[places[0], places[1]] = values
    return grid


def _region(axes: Axes, found: Optimum, lattice: Lattice, *, hatched: bool) -> None:
    """The outline of the region, where the lattice has an inside."""
    if min(len(lattice.layers), len(lattice.dims)) < 2:
        return
    inside = _on_lattice(found, lattice, np.ones_like(found.region.share))
    if inside.min() < 0.5:
        axes.contour(lattice.layers, lattice.dims, inside.T, [0.5], colors="black", linewidths=2)
    if hatched:
        axes.contourf(lattice.layers, lattice.dims, inside.T, [0.5, 1.5], colors="none", hatches=["//"])
    axes.plot([], [], "-", color="black", lw=2, label="as good as the best")


def _marks(axes: Axes, search: Search, found: Optimum) -> None:
    """What was measured, the best size and the cheapest that is as good."""
    measured = search.measured
    axes.plot(measured.layers, measured.dims, "o", mfc="white", mec="black", ms=6, label="measured")
    axes.plot(found.best.layers, found.best.dim, "*", mfc="white", mec="black", ms=18, label="best size searched")
    axes.plot(found.cheapest.layers, found.cheapest.dim, "D", mfc="black", mec="white", ms=9, label="cheapest as good")


def _size_axes(axes: Axes) -> None:
    logarithmic(axes.xaxis)
    logarithmic(axes.yaxis)
    finish(axes, "layers N", "width d")


def _edges(axis: Float[np.ndarray, "values"]) -> Float[np.ndarray, "edges"]:
    """Borders of the cells around values, halfway between them."""
    between = np.sqrt(axis[1:] * axis[:-1])
    return np.concatenate([axis[:1] / MARGIN, between, axis[-1:] * MARGIN])


def _runs_asked_about(search: Search) -> Runs:
    """The panel's runs; where they have several D', those of the one nearest to that asked about."""
    runs = search.law.runs.subset(search.law.runs.panel == search.panel)
    if runs.data is None or search.data is None:
        return runs
    return runs.subset(_nearest(runs.data, search.data))


def _nearest(values: Float[np.ndarray, "runs"], wanted: float) -> np.ndarray:
    """The runs whose value is the measured one nearest to the wanted, in logarithms."""
    off = np.abs(np.log(values / wanted))
    return off <= off.min() + 1e-12
