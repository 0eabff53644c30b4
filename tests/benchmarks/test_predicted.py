import csv
import json

import pytest

from benchmarks.predicted import main


@pytest.fixture
def place(tmp_path):
    """Two larger sizes, one run twice; a form that hits one of them, and one that says the same of both."""
    for name, rows in {
        "small": [(1, 8, 0.10), (2, 8, 0.30), (2, 8, 0.20)],
        "large": [(4, 8, 0.30), (4, 16, 0.10), (4, 16, 0.20)],
    }.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("layers", "dim", "hr"), *rows])
    folder = tmp_path / "predictions"
    folder.mkdir()
    said = {"near": [(0.30, 0.2, 0.4), (0.25, 0.2, 0.3)], "flat": [(0.2, 0.1, 0.25), (0.2, 0.1, 0.25)]}
    for form, values in said.items():
        sizes = [
            {"layers": 4.0, "dim": dim, "metric": dict(zip(("value", "low", "high"), value, strict=True))}
            for dim, value in zip((8.0, 16.0), values, strict=True)
        ]
        options = {"metric": "hr", "runs": str(tmp_path / "small.csv")}
        (folder / f"{form}.json").write_text(json.dumps({"form": form, "options": options, "sizes": sizes}))
    return tmp_path


def test_forms_are_judged_by_what_was_measured(place, capsys):
    arguments = ["--predictions", str(place / "predictions"), "--records", str(place / "large.csv")]
    assert main([*arguments, "--out", str(place / "verdict.md")]) == 0
    text = (place / "verdict.md").read_text()
    assert text in capsys.readouterr().out
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "| N | d | measured | flat | near | best before |" in text
    assert "| 4 | 8 | 0.3000 | 0.2000 * | 0.3000 | 0.2500 |" in text
    assert "| 4 | 16 | 0.1500 | 0.2000 | 0.2500 * | 0.2500 |" in text
    # errors: flat -.1 and .05, near 0 and .1, the best before -.05 and .1
    assert rows["RMSE"].split(" | ")[3:] == ["0.0791", "0.0707", "0.0791 |"]
    assert rows["in interval"].split(" | ")[3:5] == ["1 of 2", "1 of 2"]
    assert rows["metric of its best size"].split(" | ")[3:5] == ["0.3000", "0.3000"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda place: [path.unlink() for path in (place / "predictions").iterdir()], "holds no .json file"),
        (lambda place: (place / "predictions" / "near.json").write_text("{}"), "was not written by"),
        (lambda place: (place / "large.csv").write_text("layers,dim,hr\n9,9,0.1\n"), "no run of a predicted size"),
    ],
)
def test_what_does_not_fit_is_named(place, capsys, break_it, message):
    break_it(place)
    assert main(["--predictions", str(place / "predictions"), "--records", str(place / "large.csv")]) == 2
    assert message in capsys.readouterr().err
