"""python -m wukong_jax report: from a folder of records to files, and wrong calls."""

import numpy as np
import pytest

from tests.scaling.report_made import Made, knobs, ladder, write_made
from wukong_jax.cli import main


@pytest.fixture
def records(tmp_path):
    return write_made(tmp_path / "sweep", [*knobs()])


def test_the_report_lies_beside_the_records(records, capsys):
    assert main(["report", "--records", str(records)]) == 0
    out = records / "report"
    assert capsys.readouterr().out.split() == [
        str(out / name) for name in ("knob.png", "knob.svg", "report.md", "report.html")
    ]
    assert main(["report", "--records", str(records), "--out", str(records.parent / "b"), "--formats", "svg"]) == 0
    assert sorted(path.name for path in (records.parent / "b").iterdir()) == ["knob.svg", "report.html", "report.md"]
    assert (records.parent / "b" / "report.html").read_bytes() == (out / "report.html").read_bytes()


def test_a_document_is_rewritten(records, capsys):
    document = records.parent / "scaling.md"
    document.write_text(f"<!-- report: {records}; show: knob -->\n<!-- end of report -->\n")
    assert main(["report", "--document", str(document)]) == 0
    assert "scaling-sweep-knob.png" in document.read_text()
    assert str(document) in capsys.readouterr().out


def test_formats_are_not_for_a_document(records, capsys):
    document = records.parent / "scaling.md"
    document.write_text(f"<!-- report: {records}; show: knob -->\n<!-- end of report -->\n")
    assert main(["report", "--document", str(document), "--formats", "svg"]) == 2
    assert "--formats: the figures of a --document are PNG files" in capsys.readouterr().err


def test_a_metric_of_several_labels(tmp_path):
    changes = {"results": {"test": {"logloss/buy": 0.25, "auc/buy": 0.5}}, "best_possible": None}
    write_made(tmp_path, [Made("Wukong", "ladder", {}, 1.0, 0.9, changes=changes)])
    assert main(["report", "--records", str(tmp_path), "--metric", "logloss/buy"]) == 0
    assert "0.25000" in (tmp_path / "report" / "report.md").read_text()


def test_records_that_do_not_belong_together(tmp_path, capsys):
    runs = list(ladder(np.random.default_rng(0), seeds=(0,)))
    write_made(tmp_path, [*runs, Made("DCNv2", "ladder", {}, 1.0, 0.5, changes={"store_digest": "other"})])
    assert main(["report", "--records", str(tmp_path)]) == 2
    assert "differ in store_digest" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of --records FOLDER and --document FILE"),
        (["--records", "a", "--document", "b.md"], "give one of --records FOLDER and --document FILE"),
        (["--document", "b.md", "--out", "c"], "--out: the figures of a --document are written beside it"),
        (["--document", "b.md"], "b.md cannot be read"),
        (["--records", "nowhere"], "--records: nowhere is no folder"),
        (["--records", "."], "has no run record"),
        (["--records", ".", "--metric", "auc"], "--metric: received 'auc'"),
    ],
)
def test_wrong_calls_say_what_is_expected(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
