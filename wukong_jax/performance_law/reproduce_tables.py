"""The reproduction as text: the paper's tables with ours beside them, and the differences in words."""

from wukong_jax.performance_law.report_tables import size_text
from wukong_jax.performance_law.reproduce import LAW, OTHER_P1, SAME, SAME_BASELINE, Choice, Panel, Reproduction
from wukong_jax.scaling.page_table import Table

P1 = f"law with p1 = {' and '.join(f'{p1:g}' for p1 in OTHER_P1)}"
NAMES = {"hr10": "HR@10", "ndcg10": "NDCG@10", "hr": "HR", "ndcg": "NDCG", "loss": "loss"}


def sections(found: Reproduction) -> str:
    """All of it as Markdown."""
    parts = ["# The Performance Law from its own measurements\n"]
    parts += ["## Table 1\n", table1(found).markdown(), *_lines(table1_lines(found))]
    parts += ["## Table 2\n", table2(found).markdown(), *_lines(table2_lines(found)), cells(found).markdown()]
    parts += [*_lines(cell_lines(found)), "## Table 6\n", table6(found).markdown(), *_lines(table6_lines(found))]
    return "\n".join(parts)


def table1(found: Reproduction) -> Table:
    """R2 of every panel."""
    rows: list[tuple[str, ...]] = []
    for panel in found.panels:
        printed, ours = panel.row.numbers, panel.r2
        names: tuple[str, ...] = (panel.row.panel, NAMES[panel.row.words["metric"]])
        law = (f"{printed['pl']:.3f}", f"{ours[LAW]:.4f}", f"{panel.difference:+.4f}")
        p1 = " and ".join(f"{value:.3f}" for value in panel.over_p1)
        others = (f"{ours[form]:.4f}" for form in ("performance-law", "quadratic", "quadratic-interaction"))
        baseline = (f"{printed['sl']:.3f}", f"{ours['log-linear']:.4f}", f"{ours['power']:.4f}")
        optima = (panel.layers.short, panel.dim.short)
        rows.append((*names, *law, p1, *others, *baseline, *optima))
    headings: tuple[str, ...] = ("panel", "metric", "law, printed", "law, ours", "difference", P1)
    headings += ("law in the paper's form", "quadratic", "quadratic + interaction")
    headings += ("scaling law, printed", "log-linear, ours", "power law, ours", "N*", "d*")
    return Table("R2 of the fits, printed and ours; N* and d* with 95 % intervals", headings, tuple(rows))


def table1_lines(found: Reproduction) -> list[str]:
    """What differs."""
    panels = found.panels
    far = [one for one in panels if abs(one.difference) >= SAME]
    bent = [one for one in panels if abs(one.r2["log-linear"] - one.row.numbers["sl"]) >= SAME_BASELINE]
    reached = [one for one in far if min(one.over_p1) - SAME <= one.row.numbers["pl"] <= max(one.over_p1) + SAME]
    lines = [
        f"The law's R2 agrees with the printed one to {SAME:g} in {len(panels) - len(far)} of {len(panels)} panels; it "
        f"differs in {_listed(far)}. Of these, some p1 between {OTHER_P1[0]:g} and {OTHER_P1[1]:g} gives the printed "
        f"one, to {SAME:g}, in {_listed(reached)}.",
        f"The printed R2 of the scaling law is that of a log-linear fit, to {SAME_BASELINE:g}, in "
        f"{len(panels) - len(bent)} panels; not in {_listed(bent)}. "
        f"A power law with fitted exponents is above the printed one in "
        f"{sum(one.r2['power'] > one.row.numbers['sl'] for one in panels)} panels.",
        f"A quadratic in the logarithms, with as many free parameters, is within {SAME:g} of the law or above it in "
        f"{sum(one.r2['quadratic'] > one.r2[LAW] - SAME for one in panels)} panels; with an interaction, one more "
        f"parameter, it is above the law in {sum(one.r2['quadratic-interaction'] > one.r2[LAW] for one in panels)}. A "
        f"power law is above the law in {sum(one.r2['power'] > one.r2[LAW] for one in panels)}.",
    ]
    kinds = [(one, axis) for one in panels for axis in (one.layers, one.dim)]
    inside = sum(axis.kind == "inside the measured range" for _, axis in kinds)
    lines.append(f"Of the {len(kinds)} optima of depth or width, {inside} lie inside the measured range.")
    return lines


def table2(found: Reproduction) -> Table:
    """The paper's choices and ours."""
    rows: list[tuple[str, ...]] = []
    for one in found.choices:
        chosen = one.chosen.numbers
        noise = one.found.promise.noise.sigma
        rows.append(
            (
                f"{one.panel}, {one.question}",
                NAMES[one.metric],
                f"N = {chosen['layers']:g}, d = {chosen['dim']:g}",
                size_text(one.found.best),
                one.found.layers.short,
                one.found.dim.short,
                _ranges(one),
                "yes" if one.as_good else "no",
                f"{one.predicted:.4f}",
                f"{chosen[one.metric]:.4f}",
                f"{one.gain:+.4f}",
                f"{noise:.4f}",
            )
        )
    headings: tuple[str, ...] = (
        "question",
        "metric",
        "paper's choice",
        "our best size",
        "our N*",
        "our d*",
        "sizes as good",
    )
    headings += ("paper's among them", "law there", "printed there", "printed gain of the paper's", "noise of one run")
    return Table("Best sizes, the paper's and ours", headings, tuple(rows))


def table2_lines(found: Reproduction) -> list[str]:
    """What differs."""
    lines = []
    for one in found.choices:
        chosen, best = one.chosen.numbers, one.found.best
        if (chosen["layers"], chosen["dim"]) != (best.layers, best.dim):
            verdict = "as good, to within the noise" if one.as_good else "worse by more than the noise"
            lines.append(
                f"{one.panel}, {one.question}, {NAMES[one.metric]}: the law refitted says {size_text(best)}, not N = "
                f"{chosen['layers']:g}, d = {chosen['dim']:g}, which by the same law is {verdict}."
            )
    small = sum(one.gain < one.found.promise.noise.sigma for one in found.choices)
    lines.append(
        f"In {small} of {len(found.choices)} cases the printed gain of the paper's choice over the best of its other "
        "rows is less than the standard deviation of the law's residuals; no seeds were published."
    )
    return lines


def cells(found: Reproduction) -> Table:
    """Rows of Table 2 and the cells of the grid with the same numbers."""
    rows = [
        (
            f"{row.panel}, {row.words['question']}",
            f"{row.numbers['layers']:g}",
            f"{row.numbers['dim']:g}",
            f"{row.numbers['hr10']:.4f}",
            f"{row.numbers['ndcg10']:.4f}",
            cell or "-",
        )
        for row, cell in found.cells
    ]
    title = "Table 2's rows, and the measured cell with the same HR@10 and NDCG@10 to four digits"
    return Table(title, ("question", "N", "d", "HR@10", "NDCG@10", "same as"), tuple(rows))


def cell_lines(found: Reproduction) -> list[str]:
    """Rows whose label is not that of the cell with their numbers."""
    other = [
        f"({row.numbers['layers']:g}, {row.numbers['dim']:g}) is {cell}"
        for row, cell in found.cells
        if cell and cell != f"N = {row.numbers['layers']:g}, d = {row.numbers['dim']:g}"
    ]
    return [f"Rows that carry the numbers of a cell with another label: {'; '.join(other) or 'none'}."]


def table6(found: Reproduction) -> Table:
    """R2 of the regressions."""
    rows = [
        (one.measure, NAMES[one.target], f"{one.printed:.4f}", f"{one.linear:.4f}", f"{one.logarithmic:.4f}")
        for one in found.correlations
    ]
    headings = ("measure", "1/D fitted to", "printed", "ours", "ours, in logarithms")
    return Table(
        "R2 of the fitted 1/D on 1/D' over ten panels; other rows' inputs are not published", headings, tuple(rows)
    )


def table6_lines(found: Reproduction) -> list[str]:
    """What differs, and what the logarithms say."""
    far = [one for one in found.correlations if abs(one.linear - one.printed) >= 1e-4]
    listed = "; ".join(
        f"{one.measure}, {NAMES[one.target]}: printed {one.printed:.4f}, ours {one.linear:.4f}" for one in far
    )
    logs = {(one.measure, one.target): one.logarithmic for one in found.correlations}
    ahead = [
        NAMES[target]
        for measure, target in logs
        if measure == "real entropy" and logs[measure, target] > logs["tokens only", target]
    ]
    return [
        f"Differences from 0.0001 on: {listed or 'none'}.",
        "In logarithms, in which all data sets count alike, real entropy is ahead of tokens alone for "
        f"{' and '.join(ahead) or 'none'} of HR, NDCG and loss.",
    ]


def _lines(lines: list[str]) -> list[str]:
    return [f"- {line.replace('*', '&#42;')}" for line in lines] + [""]


def _listed(panels: list[Panel]) -> str:
    named = [f"{one.row.panel} {NAMES[one.row.words['metric']]}" for one in panels]
    return ", ".join(named) or "none"


def _ranges(one: Choice) -> str:
    region = one.found.region
    n, d = ((axis.min(), axis.max()) for axis in (region.layers, region.dims))
    return f"N {n[0]:g} to {n[1]:g}, d {d[0]:g} to {d[1]:g}"
