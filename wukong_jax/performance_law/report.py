"""The report of a performance law: one self-contained HTML page, and its figures as files."""

import base64
import dataclasses
import html
import pathlib
from collections.abc import Collection, Mapping

from matplotlib.figure import Figure

from wukong_jax.files import whole_file, write_text
from wukong_jax.performance_law.report_figures import profiles_figure, region_figure, residuals_figure, surface_figure
from wukong_jax.performance_law.report_findings import Findings
from wukong_jax.performance_law.report_tables import (
    fit_lines,
    law_line,
    next_table,
    no_run_line,
    optima_table,
    optimum_lines,
    panels_table,
    parameters_table,
    quality_table,
    region_table,
    residuals_table,
)
from wukong_jax.scaling.page_table import Table
from wukong_jax.scaling.report_pages import CSS
from wukong_jax.scaling.report_style import Format, rendered


@dataclasses.dataclass(frozen=True)
class Part:
    """A section of the page."""

    name: str
    title: str
    text: tuple[str, ...] = ()
    figure: Figure | None = None
    caption: str = ""
    tables: tuple[Table, ...] = ()


def parts(findings: Findings) -> list[Part]:
    """The sections, figures drawn."""
    return [
        _answers(findings),
        _surface(findings),
        _profiles(findings),
        _region(findings),
        _forms(findings),
        _runs(findings),
    ]


def write_report(findings: Findings, out: pathlib.Path, formats: Collection[Format] = ()) -> list[pathlib.Path]:
    """Write report.html, and the figures in the given formats, into a folder; returns the files."""
    sections = parts(findings)
    drawn = {one.name: rendered(one.figure, "svg") for one in sections if one.figure is not None}
    written = []
    for one in sections:
        if one.figure is None:
            continue
        for kind in sorted(formats):
            path = out / f"{one.name}.{kind}"
            with whole_file(path) as partial:
                partial.write_bytes(drawn[one.name] if kind == "svg" else rendered(one.figure, kind))
            written.append(path)
    write_text(out / "report.html", page(f"Performance law: {findings.name}", sections, drawn))
    return [*written, out / "report.html"]


def page(title: str, sections: Collection[Part], drawn: Mapping[str, bytes]) -> str:
    """The page; `drawn` are the SVG figures by section."""
    head = f'<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n<style>\n{CSS}\n</style>'
    links = " · ".join(f'<a href="#{one.name}">{html.escape(one.title)}</a>' for one in sections)
    body = "\n".join(_part_html(one, drawn.get(one.name)) for one in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n'
        f"<p>{links}</p>\n{body}\n</body>\n</html>\n"
    )


def _part_html(part: Part, picture: bytes | None) -> str:
    title = html.escape(part.title)
    pieces = [f'<section id="{part.name}">', f"<h2>{title}</h2>"]
    pieces += [f"<p>{html.escape(line)}</p>" for line in part.text]
    if picture is not None:
        image = f'<img alt="{title}" src="data:image/svg+xml;base64,{base64.b64encode(picture).decode()}">'
        pieces.append(f"<figure>{image}<figcaption>{html.escape(part.caption)}</figcaption></figure>")
    return "\n".join([*pieces, *(table.html() for table in part.tables), "</section>"])


def _answers(findings: Findings) -> Part:
    text = [f"{law_line(findings.fit, findings.panel)}.", f"{findings.lattice.searched}."]
    for question, found in findings.optima.items():
        text += optimum_lines(question, found, findings.fit.runs)
    tables = [optima_table(findings.optima, findings.fit.runs.metric)]
    following = findings.following
    if following is not None and not following.worthwhile:
        text.append(no_run_line(following))
    elif following is not None:
        tables.append(next_table(following, findings.search.measured.within(following.layers, following.dims)))
    return Part("answers", "Best sizes and next runs", tuple(text), tables=tuple(tables))


def _surface(findings: Findings) -> Part:
    found = next(iter(findings.optima.values()))
    figure = surface_figure(findings.search, found, findings.lattice, findings.following)
    caption = (
        "The law over depth and width; lighter is better. Hatched: sizes as good as the best, to within the tolerance."
    )
    return Part("surface", "Surface", figure=figure, caption=caption)


def _profiles(findings: Findings) -> Part:
    found = next(iter(findings.optima.values()))
    caption = (
        "The law along each axis through the best size searched. The band is the curve's, without the noise of a run."
    )
    return Part(
        "profiles",
        "Profiles of N* and d*",
        figure=profiles_figure(findings.search, found, findings.lattice),
        caption=caption,
    )


def _region(findings: Findings) -> Part:
    found = next(iter(findings.optima.values()))
    tables = tuple(region_table(q, one, findings.fit.runs.metric) for q, one in findings.optima.items())
    caption = (
        "Inside the line: as good as the best by the law. Dark: as good as the best in most draws of the bootstrap."
    )
    return Part(
        "region", "Near-optimal region", (), region_figure(findings.search, found, findings.lattice), caption, tables
    )


def _forms(findings: Findings) -> Part:
    comparison = findings.comparison
    tables = [quality_table(comparison), parameters_table(comparison.fits)]
    if len(findings.fit.runs.panels) > 1:
        tables.insert(1, panels_table(comparison))
    return Part("forms", "Forms of the law", tuple(fit_lines(comparison)), tables=tuple(tables))


def _runs(findings: Findings) -> Part:
    figure = residuals_figure(findings.fit, findings.panel)
    caption = "Left: where the runs lie off the law. Right: against the law; a pattern is what the form misses."
    return Part("residuals", "Runs and residuals", (), figure, caption, (residuals_table(findings.fit),))
