"""Fits, predictions, optima and next runs as tables and sentences, for the terminal and for the page."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from wukong_jax.performance_law.answers import interval_text
from wukong_jax.performance_law.comparison import Comparison, reasons
from wukong_jax.performance_law.fit import Fitted
from wukong_jax.performance_law.next_run import NextRun
from wukong_jax.performance_law.optimum import Optimum, Size
from wukong_jax.performance_law.runs import Runs
from wukong_jax.scaling.page_table import Table

SHOWN_SIZES = 20
"""Sizes of a region that a table shows."""
SHOWN_CANDIDATES = 8
SHOWN_LEFT_OUT = 3
NO_RUN = (
    "No further run is worth making for the choice of the size: the regret of it is {now:.2g}, the noise of one run "
    "{sigma:.2g}; --target interval asks for sharper intervals."
)


def law_line(fit: Fitted, panel: int) -> str:
    """The law that answers, and the runs that it was fitted to."""
    runs, quality = fit.runs, fit.quality
    left_out = ""
    if runs.left_out:
        named = "; ".join(f"{one.where}: {one.reason}" for one in runs.left_out[:SHOWN_LEFT_OUT])
        more = "; ..." if len(runs.left_out) > SHOWN_LEFT_OUT else ""
        left_out = f", {len(runs.left_out)} left out: {named}{more}"
    return (
        f"Law: {fit.form.name}, {fit.form.formula}; panel {runs.panels[panel]}, R2 within it "
        f"{number(quality.panel_r2[runs.panels[panel]])}, leave-one-out RMSE {number(quality.loo_rmse, 3)}; "
        f"{len(runs.y)} runs{left_out}"
    )


def quality_table(comparison: Comparison) -> Table:
    """How well each form fits and predicts; the best by leave-one-out is marked."""
    rows = []
    for fit in comparison.fits:
        found, held = fit.quality, fit.quality.held_out
        mark = " *" if fit.form.name == comparison.best else ""
        scores = [number(value) for value in (found.r2, found.adjusted_r2, found.mae, found.rmse, found.loo_rmse)]
        large = "-" if held is None else f"{number(held.rmse)} ({held.runs} runs)"
        rows.append((fit.form.name + mark, fit.form.formula, str(len(fit.law.parameters)), *scores, large))
    headings = ("form", "formula", "free", "R2", "adjusted R2", "MAE", "RMSE", "LOO RMSE", "RMSE at larger sizes")
    return Table("Forms; * predicts left-out sizes best", headings, tuple(rows))


def parameters_table(fits: Sequence[Fitted]) -> Table:
    """All parameters with their intervals."""
    rows = [
        (fit.form.name, name, "-" if math.isnan(value.value) else interval_text(value, 5))
        for fit in fits
        for name, value in fit.parameters.items()
    ]
    title = f"Parameters, {fits[0].level:.0%} intervals; - where the runs do not determine one"
    return Table(title, ("form", "parameter", "value"), tuple(rows))


def panels_table(comparison: Comparison) -> Table:
    """R2 of each form in each panel of a pooled fit."""
    names = comparison.fits[0].runs.panels
    rows = [(fit.form.name, *(number(fit.quality.panel_r2[name]) for name in names)) for fit in comparison.fits]
    return Table("R2 by panel, all fitted together with a constant each", ("form", *names), tuple(rows))


def fit_lines(comparison: Comparison) -> list[str]:
    """What the runs say about the forms, and what a reader of the numbers must know."""
    runs = comparison.fits[0].runs
    lines = [f"Left out: {one.where}: {one.reason}." for one in runs.left_out]
    lines.append(f"Of the forms: {comparison.verdict}.")
    for fit in comparison.fits:
        lines += [f"{fit.form.name}: {note}." for note in fit.notes]
        if fit.form.name == "released":
            found = fit.scaling_potential()
            named = (("w1", found.w1), ("w2", found.w2))
            weights = ", ".join(
                f"{name} not determined" if math.isnan(value.value) else f"{name} = {interval_text(value)}"
                for name, value in named
            )
            lines.append(f"Scaling potential: {weights}; {found.normalisation}.")
    return lines + [f"Not fitted: {why}." for why in reasons(comparison.skipped)]


def sizes_table(sizes: Sequence[Size], runs: Runs, level: float) -> Table:
    """Predictions of single sizes."""
    rows = [
        (
            f"{one.layers:g}",
            f"{one.dim:g}",
            interval_text(one.metric, 5),
            how(one.interpolated) + impossible_text(one, runs),
        )
        for one in sizes
    ]
    return Table(
        f"Predicted {runs.metric}, {level:.0%} intervals of the curve",
        ("N", "d", runs.metric, "prediction"),
        tuple(rows),
    )


def how(interpolated: bool) -> str:
    """Whether a prediction interpolates."""
    return "interpolates" if interpolated else "extrapolates"


def impossible_text(one: Size, runs: Runs) -> str:
    """Said of a prediction that no measurement can have."""
    known = runs.possible(one.metric.value)
    return "" if known else f", to what no {runs.metric} can be: the form does not hold so far out"


def optima_table(optima: Mapping[str, Optimum], metric: str) -> Table:
    """Where the law is best for every question: overall, or under budgets."""
    rows = []
    for question, found in optima.items():
        region = found.region
        ranges = [f"{axis.min():g} to {axis.max():g}" for axis in (region.layers, region.dims)]
        rows.append(
            (
                question,
                found.layers.short,
                found.dim.short,
                size_text(found.best),
                interval_text(found.best.metric, 5),
                f"{len(region.layers)} of {region.of}: N {ranges[0]}, d {ranges[1]}",
                size_text(found.cheapest),
                interval_text(found.promise.gain, 3) if found.promise.affordable and found.promise.same_data else "-",
            )
        )
    headings = (
        "question",
        "N*",
        "d*",
        "best size searched",
        metric,
        "sizes as good",
        "cheapest of them",
        "gain promised",
    )
    return Table("Best sizes", headings, tuple(rows))


def optimum_lines(question: str, found: Optimum, runs: Runs) -> list[str]:
    """One question's answer in words."""
    tolerance = found.region.tolerance
    return [
        f"{question}: {found.layers.text('N')}; {found.dim.text('d')}.",
        f"Best of the sizes searched: {size_text(found.best)}, {interval_text(found.best.metric, 5)}"
        f"{impossible_text(found.best, runs)}. "
        f"{len(found.region.layers)} of {found.region.of} sizes are as good, to within {tolerance.value:.3g} "
        f"({tolerance.why}); the cheapest of them is {size_text(found.cheapest)}, "
        f"{interval_text(found.cheapest.metric, 5)}.",
        found.promise.text,
    ]


def region_table(question: str, found: Optimum, metric: str) -> Table:
    """The first sizes of a near-optimal region."""
    region = found.region
    rows = [
        (f"{n:g}", f"{d:g}", f"{value:.5g}", f"{share:.0%}", how(bool(inside)))
        for n, d, value, share, inside in zip(
            region.layers[:SHOWN_SIZES],
            region.dims[:SHOWN_SIZES],
            region.metric[:SHOWN_SIZES],
            region.share[:SHOWN_SIZES],
            region.interpolated[:SHOWN_SIZES],
            strict=True,
        )
    ]
    within = f"within {region.tolerance.value:.3g} of the best"
    title = f"{question}: the best {len(rows)} of {len(region.layers)} sizes {within}"
    return Table(title, ("N", "d", f"predicted {metric}", "as good in draws", "prediction"), tuple(rows))


def next_table(found: NextRun, interpolated: np.ndarray) -> Table:
    """The most telling runs, those that differ."""
    what = "regret" if found.target == "regret" else "width of ln N* and ln d*"
    some = found.shown(SHOWN_CANDIDATES)
    columns = (found.layers, found.dims, found.expected, found.reduction, interpolated)
    rows = [
        (f"{n:g}", f"{d:g}", f"{expected:.3g}", f"{reduction:.3g}", how(bool(inside)))
        for n, d, expected, reduction, inside in zip(*(column[some] for column in columns), strict=True)
    ]
    title = (
        f"Runs to make next, by the expected {what} after one of them, now {found.now:.3g}; alternatives for one next "
        "run, not a plan of several"
    )
    return Table(title, ("N", "d", f"{what} after", "less by", "prediction there"), tuple(rows))


def no_run_line(found: NextRun) -> str:
    """What is said in place of the table where no run is worth making."""
    if found.target != "regret":
        return (
            f"No run of the sizes searched would narrow the intervals: the width of ln N* and ln d* is {found.now:.2g}."
        )
    return NO_RUN.format(now=found.now, sigma=found.sigma)


def residuals_table(fit: Fitted) -> Table:
    """Every run with what the law says of it."""
    runs = fit.runs
    rows = []
    for k, value in enumerate(law_values(fit)):
        cells = (
            f"{runs.layers[k]:g}",
            f"{runs.dim[k]:g}",
            f"{runs.y[k]:.5g}",
            f"{value:.5g}",
            f"{runs.y[k] - value:+.2g}",
        )
        rows.append((runs.panels[runs.panel[k]], *cells))
    headings = ("panel", "N", "d", f"measured {runs.metric}", "law", "residual")
    return Table(f"Runs beside the law {fit.form.name}", headings, tuple(rows))


def law_values(fit: Fitted) -> Float[np.ndarray, "runs"]:
    """What the law says of every run, with its own panel and D'."""
    runs, values = fit.runs, np.empty(len(fit.runs.y))
    for panel in range(len(runs.panels)):
        here = runs.panel == panel
        data = runs.data[here] if runs.data is not None and fit.has_data_term else None
        values[here] = fit.predict(runs.layers[here], runs.dim[here], panel=panel, data=data)
    return values


def number(value: float, digits: int = 4) -> str:
    """A figure, or - where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def size_text(one: Size) -> str:
    """Its depth and width."""
    beyond = "" if one.interpolated else " (beyond the runs)"
    return f"N = {one.layers:g}, d = {one.dim:g}{beyond}"
