"""python -m wukong_jax report: figures, tables and laws of a sweep's records, as one page or within a document."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

from wukong_jax.config.command_line import parse
from wukong_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Write report.html (self-contained), report.md and the figures of a sweep's records; nothing is trained.

    With --document instead, parts of a Markdown file are made anew: what stands between <!-- report: FOLDER --> and
    <!-- end of report -->; <!-- report: FOLDER; show: ladder knob --> chooses sections.
    """

    records: pathlib.Path | None = None
    """Folder of run records, such as results/scaling/<sweep>."""
    out: pathlib.Path | None = None
    """Folder of the report; by default <records>/report."""
    document: pathlib.Path | None = None
    """Markdown file with markers, such as docs/scaling.md; its figures are written beside it."""
    formats: tuple[Literal["png", "svg"], ...] | None = None
    """Files of each figure, with --records, png and svg when not given; the page holds its own."""
    metric: str = "logloss"
    """Test metric: logloss, or logloss/LABEL for data of several labels."""


def main(arguments: Sequence[str]) -> int:
    """Write the report or the document; raises `UserError` where options or records do not fit."""
    options = parse(ReportOptions, arguments, "python -m wukong_jax report")
    if (options.records is None) == (options.document is None):
        raise ConfigError("report: give one of --records FOLDER and --document FILE")
    if options.document is not None and options.out is not None:
        raise ConfigError("--out: the figures of a --document are written beside it; leave --out out")
    if options.document is not None and options.formats is not None:
        raise ConfigError("--formats: the figures of a --document are PNG files; leave --formats out")
    from wukong_jax.scaling.report import make_report
    from wukong_jax.scaling.report_pages import rewrite_document, write_report

    if options.document is not None:
        written = rewrite_document(options.document, options.metric)
    elif options.records is not None:
        out = options.out or options.records / "report"
        written = write_report(make_report(options.records, options.metric), out, options.formats or ("png", "svg"))
    for path in written:
        print(path)
    return 0
