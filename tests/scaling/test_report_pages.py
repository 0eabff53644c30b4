"""The page, the Markdown and the figures of a report as files, and the parts of a document."""

import base64
import html.parser
import pathlib
import re

import numpy as np
import pytest

from tests.scaling.report_made import Made, ablation, everything, knobs, write_made
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.scaling.page_table import LONG, Table
from wukong_jax.scaling.report import SECTIONS, make_report
from wukong_jax.scaling.report_pages import rewrite_document, write_report

FIGURES = ("ladder", "knob", "ablation", "data")


class Page(html.parser.HTMLParser):
    """Tags, their attributes, and whether all of them are closed."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of all studies, written twice."""
    folder = tmp_path_factory.mktemp("sweep")
    write_made(folder, everything(np.random.default_rng(7)))
    outs = [folder / "report", folder / "again"]
    for out in outs:
        write_report(make_report(folder), out)
    return outs


def test_all_files_are_there_and_the_same_each_time(written):
    names = {f"{figure}.{kind}" for figure in FIGURES for kind in ("png", "svg")} | {"report.md", "report.html"}
    first, second = written
    assert {path.name for path in first.iterdir()} == names
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_page_needs_nothing_else(written):
    page = Page((written[0] / "report.html").read_text())
    assert not page.open, "every tag is closed"
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert ids == set(SECTIONS)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset"):
            if name in attributes:
                assert attributes[name].startswith("data:") or attributes[name][1:] in ids
    assert "url(" not in (written[0] / "report.html").read_text().replace("base64", "")


def test_the_page_holds_the_same_figures_as_the_files(written):
    page = Page((written[0] / "report.html").read_text())
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(FIGURES)
    for name, source in zip(FIGURES, images, strict=True):
        content = base64.b64decode(source.removeprefix("data:image/svg+xml;base64,"))
        assert content == (written[0] / f"{name}.svg").read_bytes()
        text = content.decode()
        assert "<dc:date>" not in text
        assert not re.search(r'(?:href|src)="(?!#)', text)
        assert not re.search(r"url\((?!#)", text)


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_page_and_markdown_say_what_was_found(written, name):
    text = "\n".join(Page((written[0] / name).read_text()).words)
    for said in (
        "E + A x^-alpha",
        "the data",
        "Saturation",
        "no LCB and no residual",
        "+1.84",
        "Joint law",
        "Best division",
        "Every run",
        "loss is nan at step 9",
        "numerics revision",
        "Without a figure of their own: the studies rates.",
        "Trained on 1,600 to 102,400 examples.",
    ):
        assert said in text.replace("\\", ""), said


def test_markdown_tables_have_one_width(written):
    lines = (written[0] / "report.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    width = 0
    for previous, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|"):
            width = width if previous.startswith("|") else line.count("|")
            assert line.count("|") == width, line
    assert len(tables) > 100
    assert all(f"]({name}.png)" in "\n".join(lines) for name in FIGURES)


def test_cells_cannot_break_a_table():
    table = Table("A | B", ("x",), (("a|b <script>",),))
    assert "a&#124;b" in table.markdown()
    assert "<script>" not in table.html()


def test_long_tables_are_folded_up():
    short, long = (Table("T", ("x",), (("1",),) * count) for count in (LONG, LONG + 1))
    assert "<details>" not in short.html()
    assert "<details>" in long.html()


@pytest.mark.parametrize("formats", [("png",), ("svg",), ()])
def test_formats_choose_the_files(tmp_path, formats):
    write_made(tmp_path, ablation())
    paths = write_report(make_report(tmp_path), tmp_path / "out", formats)
    assert {path.name for path in paths} == {f"ablation.{kind}" for kind in formats} | {"report.md", "report.html"}
    assert all(path.is_file() for path in paths)


def test_absent_studies_are_left_out_and_say_so(tmp_path):
    lost = Made("Wukong", "data", {}, 1.0, None)
    report = make_report(write_made(tmp_path, [*ablation(), lost]))
    assert [section.name for section in report.sections] == list(SECTIONS)
    assert [section.name for section in report.sections if section.figure is not None] == ["ablation"]
    assert report.section("knob").text == ("Left out: of the study 'knob' no run of it is recorded.",)
    assert "all of its 1 runs diverged" in report.section("data").text[0]


def test_an_ablation_without_its_full_model_is_left_out(tmp_path):
    kept = [made for made in ablation() if not made.varied["use_lcb"]]
    section = make_report(write_made(tmp_path, kept)).section("ablation")
    assert section.figure is None
    assert "Left out: the full model of Wukong is not recorded." in section.text


def test_runs_below_the_floor_are_said(tmp_path):
    runs = [Made("Wukong", "ladder", {"budget": size}, size, 0.42 - 0.01 * size) for size in (1.0, 3.0)]
    text = make_report(write_made(tmp_path, runs)).section("ladder").text
    assert "At or below the floor, so not shown over it: Wukong, budget 3.0." in text


DOCUMENT = """# Scaling

Before.

<!-- report: sweep; show: ablation -->
old
<!-- end of report -->

Between, <!-- a comment -->.

<!-- report: sweep; show: totals knob -->
<!-- end of report -->
After.
"""


@pytest.fixture
def document(tmp_path, monkeypatch):
    """A document beside a folder of records, which is named relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    write_made(tmp_path / "sweep", [*ablation(), *knobs()])
    path = tmp_path / "docs" / "scaling.md"
    path.parent.mkdir()
    path.write_text(DOCUMENT)
    return path


def test_parts_of_a_document_are_made_anew(document):
    paths = rewrite_document(document)
    text = document.read_text()
    assert [path.name for path in paths] == ["scaling-sweep-ablation.png", "scaling-sweep-knob.png", "scaling.md"]
    assert all(path.parent == document.parent for path in paths)
    assert text.startswith(
        "# Scaling\n\nBefore.\n\n<!-- report: sweep; show: ablation -->\n![Ablation](scaling-sweep-abl"
    )
    assert text.endswith("<!-- end of report -->\nAfter.\n")
    assert "\nold\n" not in text
    assert "Between, <!-- a comment -->." in text
    assert text.index("**Totals**") < text.index("**One knob at a time**"), "in the order of the marker"
    assert "Every run" not in text
    first = text, (document.parent / "scaling-sweep-knob.png").read_bytes()
    rewrite_document(document)
    assert (document.read_text(), (document.parent / "scaling-sweep-knob.png").read_bytes()) == first


def test_a_marker_without_sections_shows_all(document):
    document.write_text("<!-- report: sweep -->\n<!-- end of report -->\n")
    rewrite_document(document)
    assert all(title in document.read_text() for title in ("**Every run**", "**Totals**", "**Ablation**", "Left out"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("# nothing", DataError, "has 0 markers"),
        ("<!-- report: sweep -->\nno end", DataError, "has 1 markers, 0 of them whole"),
        (
            "<!-- report: sweep -->\n<!-- report: sweep -->\n<!-- end of report -->",
            DataError,
            "has 2 markers, 1 of them whole",
        ),
        ("<!-- report: sweep; show: laddder -->\n<!-- end of report -->", ConfigError, "'laddder', expected some of"),
        ("<!-- report: nowhere -->\n<!-- end of report -->", DataError, "nowhere is no folder"),
    ],
    ids=["none", "no end", "nested", "section", "folder"],
)
def test_a_wrong_document_is_left_as_it_is(document, text, error, message):
    document.write_text(text)
    with pytest.raises(error, match=message):
        rewrite_document(document)
    assert document.read_text() == text
    assert list(document.parent.iterdir()) == [document]


def test_a_missing_document_is_named(tmp_path):
    with pytest.raises(DataError, match=r"--document: nowhere\.md cannot be read"):
        rewrite_document(pathlib.Path("nowhere.md"))
