"""A report as files: one self-contained HTML page, Markdown, figures, and sections within a document."""

import base64
import functools
import html
import os
import pathlib
import re
from collections.abc import Collection, Sequence

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.files import whole_file, write_text
from wukong_jax.scaling.report import SECTIONS, Report, Section, make_report
from wukong_jax.scaling.report_style import Format, rendered

CSS = """body{font:16px/1.45 sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}
table{border-collapse:collapse;font-size:.8rem;display:block;overflow-x:auto;margin-bottom:1.5rem}
th,td{border:1px solid #bbb;padding:.2rem .5rem;text-align:left;vertical-align:top}th{background:#eee}
img{max-width:100%}figure{margin:1rem 0}figcaption{font-size:.9rem;color:#444}
summary{cursor:pointer;font-weight:bold}"""
MARKED = re.compile(
    r"(?P<start><!-- report: (?P<folder>\S+?)(?:; show: (?P<show>[\w ]+?))? -->\n)"
    r"(?P<old>(?:(?!<!-- report: ).)*?)(?P<end><!-- end of report -->)",
    re.DOTALL,
)
"""A part of a document that is made anew: <!-- report: FOLDER; show: ladder knob --> ... <!-- end of report -->."""


def write_report(report: Report, out: pathlib.Path, formats: Collection[Format] = ("png", "svg")) -> list[pathlib.Path]:
    """Write report.html, report.md and the figures into a folder; returns the files."""
    written = []
    drawn = {section.name: rendered(section.figure, "svg") for section in report.sections if section.figure is not None}
    for section in report.sections:
        if section.figure is None:
            continue
        for kind in sorted(formats):
            content = drawn[section.name] if kind == "svg" else rendered(section.figure, kind)
            written.append(_write_bytes(out / f"{section.name}.{kind}", content))
    link = "png" if "png" in formats else "svg"
    text = "\n".join(markdown(section, f"{section.name}.{link}") for section in report.sections)
    for name, whole in (("report.md", f"# {report.name}\n\n{text}"), ("report.html", page(report, drawn))):
        write_text(out / name, whole)
        written.append(out / name)
    return written


def page(report: Report, drawn: dict[str, bytes]) -> str:
    """The report as one HTML page; `drawn` are the SVG figures by section."""
    title = html.escape(f"Scaling report: {report.name}")
    links = " · ".join(f'<a href="#{section.name}">{html.escape(section.title)}</a>' for section in report.sections)
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<style>\n{CSS}\n</style>'
    body = "\n".join(_section_html(section, drawn) for section in report.sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<h1>{title}</h1>\n<p>{links}</p>\n'
        f"{body}\n</body>\n</html>\n"
    )


def markdown(section: Section, picture: str, *, heading: bool = True) -> str:
    """A section as Markdown; `picture` is where its figure lies."""
    parts = [f"## {section.title}\n"] if heading else []
    if section.figure is not None:
        parts.append(f"![{section.title}]({picture})\n\n{section.caption}\n")
    parts += [f"{_escaped(line)}\n" for line in section.text]
    parts += [table.markdown() for table in section.tables]
    return "\n".join(parts)


def rewrite_document(document: pathlib.Path, metric: str = "logloss") -> list[pathlib.Path]:
    """Make every marked part of a Markdown file anew, and its figures beside it; returns the files.

    Folders are relative to the working directory, as --records is. Raises `UserError` where a marker does not fit; the
    document then stays as it was.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--document: {document} cannot be read ({error}); expected a Markdown file") from error
    markers = list(MARKED.finditer(text))
    if not markers or len(markers) != text.count("<!-- report:"):
        raise DataError(
            f"--document: {document} has {text.count('<!-- report:')} markers, {len(markers)} of them whole; expected "
            "<!-- report: FOLDER --> or <!-- report: FOLDER; show: ladder knob --> and <!-- end of report -->, each on "
            "a line of its own"
        )
    chosen = [_chosen(document, found["show"]) for found in markers]
    report_of = functools.cache(lambda folder: make_report(pathlib.Path(folder), metric))
    pictures: dict[pathlib.Path, bytes] = {}
    pieces, end = [], 0
    for found, names in zip(markers, chosen, strict=True):
        report = report_of(os.path.normpath(found["folder"]))
        shown = []
        for name in names:
            section = report.section(name)
            picture = document.with_name(f"{document.stem}-{report.name}-{name}.png")
            if section.figure is not None and picture not in pictures:
                pictures[picture] = rendered(section.figure, "png")
            shown.append(markdown(section, picture.name, heading=False))
        pieces += [text[end : found.start()], found["start"], "\n".join(shown), found["end"]]
        end = found.end()
    written = [_write_bytes(path, content) for path, content in pictures.items()]
    write_text(document, "".join([*pieces, text[end:]]))
    return [*written, document]


def _chosen(document: pathlib.Path, show: str | None) -> Sequence[str]:
    names = SECTIONS if show is None else show.split()
    for name in names:
        if name not in SECTIONS:
            raise ConfigError(f"--document: {document} shows {name!r}, expected some of {', '.join(SECTIONS)}")
    return names


def _section_html(section: Section, drawn: dict[str, bytes]) -> str:
    title = html.escape(section.title)
    parts = [f'<section id="{section.name}">', f"<h2>{title}</h2>"]
    if section.name in drawn:
        content = base64.b64encode(drawn[section.name]).decode()
        image = f'<img alt="{title}" src="data:image/svg+xml;base64,{content}">'
        parts.append(f"<figure>{image}<figcaption>{html.escape(section.caption)}</figcaption></figure>")
    parts += [f"<p>{html.escape(line)}</p>" for line in section.text]
    parts += [table.html() for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _escaped(text: str) -> str:
    """Without what Markdown would take for emphasis or tags."""
    return re.sub(r"([*_<])", r"\\\1", text)


def _write_bytes(path: pathlib.Path, content: bytes) -> pathlib.Path:
    with whole_file(path) as partial:
        partial.write_bytes(content)
    return path
