"""Tables of laws: forms of each series, ranking by saturation, joint laws and best allocations."""

import math

from wukong_jax.scaling.bootstrap import Interval
from wukong_jax.scaling.fit import Fitted
from wukong_jax.scaling.page_table import Table
from wukong_jax.scaling.read_points import MFLOP
from wukong_jax.scaling.report_laws import CurveLaws, JointLaws
from wukong_jax.scaling.report_tables import PETA
from wukong_jax.scaling.run_noise import RunNoise
from wukong_jax.scaling.saturation import STATES


def laws_table(laws: CurveLaws) -> Table:
    """All forms of every series, the best marked."""
    rows = []
    for comparison in laws.comparisons:
        for fit in comparison.fits:
            mark = " *" if fit.law.name == comparison.best else ""
            rows.append((comparison.series, f"{fit.law.formula}{mark}", *_law_cells(fit), interval_text(fit.gain())))
    level = laws.comparisons[0].fits[0].level if laws.comparisons else 0.95
    title = f"Laws of LogLoss in x = MFLOP/example, {level:.0%} intervals; * predicts left-out points best"
    headings = ("series", "form", "exponent", "E or floor", "others", "LOO error", "extrapolation error", "R2")
    return Table(title, (*headings, "change at the last 4 × compute"), tuple(rows))


def verdict_lines(laws: CurveLaws) -> list[str]:
    """What the data say about the forms of each series, and which have no law."""
    lines = [f"{comparison.series}: {comparison.verdict}." for comparison in laws.comparisons]
    skipped = [message for comparison in laws.comparisons for message in comparison.skipped.values()]
    return lines + [f"Not fitted: {message}." for message in (*skipped, *laws.refused.values())]


def ranking_table(laws: CurveLaws) -> Table:
    """The series by the compute up to which they improved."""
    rows = []
    for place, one in enumerate(laws.ranking, 1):
        exploded = "-" if one.exploded_x is None else f"{one.exploded_x:.4g}"
        sizes = [f"{value:.4g}" for value in (one.reach, one.best_x, one.largest_x)]
        rows.append(
            (str(place), one.series, *sizes, exploded, one.state, noise_text(one.noise), interval_text(one.tail_gain))
        )
    headings = ("rank", "series", "improved up to", "best at", "largest", "diverged at", "state", "noise")
    title = (
        "Saturation: series by the MFLOP/example up to which they improved by more than the noise of their runs, one "
        f"deviation or the least and the largest of the sizes. {STATES}"
    )
    return Table(title, (*headings, "change per 4 × over the upper half"), tuple(rows))


def noise_text(noise: RunNoise) -> str:
    """The deviation, or where sizes differ in it, the least and the largest."""
    least, most = noise.deviation.min(), noise.deviation.max()
    return f"{most:.2g}" if noise.shared else f"{least:.2g} to {most:.2g}"


def joint_table(laws: JointLaws) -> Table:
    """L(N, D) of each series."""
    rows = []
    for fit in laws.fits:
        shown = [interval_text(fit.parameters[name]) for name in ("alpha", "beta", "E", "A", "B")]
        lost = ", ".join(dict.fromkeys((*fit.diagnostics.unidentified, *fit.diagnostics.at_bound))) or "-"
        rows.append((fit.points.series, *shown, f"{fit.diagnostics.loo_rmse:.3g}", lost))
    title = "Joint law E + A N^-alpha + B D^-beta; N in MFLOP/example, D in examples"
    return Table(title, ("series", "alpha", "beta", "E", "A", "B", "LOO error", "not determined"), tuple(rows))


def allocation_table(laws: JointLaws) -> Table:
    """The best size and examples for some totals of compute."""
    rows = []
    for fit, allocations in zip(laws.fits, laws.allocations, strict=True):
        for one in allocations:
            figures = [interval_text(value) for value in (one.compute, one.examples, one.value)]
            remarks = "; ".join(one.remarks) or "-"
            rows.append((fit.points.series, f"{one.budget * MFLOP / PETA:.4g}", *figures, remarks))
    headings = ("series", "PFLOP", "N, MFLOP/example", "D, examples", "LogLoss", "remarks")
    title = "Best division of a total of training compute: the middle of the runs', the largest, and ten times it"
    return Table(title, headings, tuple(rows))


def interval_text(value: Interval) -> str:
    """`0.2937 [0.1112, 0.5277]`, or `-`."""
    if math.isnan(value.value):
        return "-"
    return f"{value.value:.4g} [{value.low:.4g}, {value.high:.4g}]"


def _law_cells(fit: Fitted) -> list[str]:
    found, parameters = fit.diagnostics, dict(fit.parameters)
    exponent = parameters.pop("alpha", None)
    constant = parameters.pop("E", None)
    floor = "-" if constant is None else interval_text(constant)
    if fit.law.from_floor:
        floor = f"{fit.points.floor:.5g} (known)"
    weak = list(dict.fromkeys((*found.unidentified, *found.at_bound)))
    others = [f"{name} = {interval_text(value)}" for name, value in parameters.items()]
    others += [f"not determined: {', '.join(weak)}"] if weak else []
    scores = [_number(value) for value in (found.loo_rmse, found.extrapolation, found.r2)]
    return ["-" if exponent is None else interval_text(exponent), floor, "; ".join(others), *scores]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
