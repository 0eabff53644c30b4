"""The reproduction of the paper's tables: the project's published files, a small planted paper, damaged files."""

import json
import shutil

import numpy as np
import pytest

from wukong_jax.errors import DataError
from wukong_jax.performance_law.answers import Fixed, Inside, Outside
from wukong_jax.performance_law.published import METRICS, read_published
from wukong_jax.performance_law.reproduce import correlations, regression_r2, reproduce, same_cell, write_reproduction
from wukong_jax.performance_law.reproduce_tables import table1


@pytest.fixture(scope="module")
def folder(pytestconfig):
    return pytestconfig.rootpath / "results" / "published"


def test_the_published_files_are_whole(folder):
    found = read_published(folder)
    assert len(found.table1) == 20
    assert len(found.table2) == 19
    assert sum(bool(row.words["chosen"]) for row in found.table2) == 3
    for metric in METRICS:
        runs = found.grid[metric]
        assert len(runs.y) == 224
        assert len(runs.panels) == 10
    assert {row.panel for row in found.table3} == set(found.grid["hr10"].panels)


def test_table_6_is_reproduced_where_its_inputs_are_published(folder):
    found = {(one.measure, one.target): one for one in correlations(read_published(folder))}
    for target in ("hr", "ndcg", "loss"):
        one = found["real entropy", target]
        assert one.linear == pytest.approx(one.printed, abs=5e-5)
    assert found["tokens only", "loss"].linear == pytest.approx(0.8776, abs=5e-5)
    # printed .8259 and .8160
    assert found["tokens only", "hr"].linear == pytest.approx(0.8160, abs=5e-5)
    assert found["tokens only", "ndcg"].linear == pytest.approx(0.8147, abs=5e-5)


def test_r2_of_a_line_is_one_minus_the_share_of_the_residuals():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 30))
    y = y + x
    slope, constant = np.polyfit(x, y, 1)
    assert regression_r2(x, y) == pytest.approx(1 - np.var(y - slope * x - constant) / np.var(y))


def test_rows_of_table_2_are_cells_of_the_grid_under_another_label(folder):
    published = read_published(folder)
    cells = {
        (row.panel, row.numbers["layers"], row.numbers["dim"]): same_cell(published, row) for row in published.table2
    }
    assert cells["ML-1M 200", 16, 54] == "N = 16, d = 50"
    assert cells["ML-1M 200", 28, 75] == "N = 24, d = 75"
    assert cells["Industrial 50", 64, 512] == "N = 64, d = 512"
    assert cells["ML-1M 200", 28, 54] == ""
    assert sum(bool(cell) for cell in cells.values()) == 10


TABLE2 = """question,dataset,max_len,layers,dim,ndcg10,ndcg50,hr10,hr50,chosen
overall,A,50,16,50,0.2,0.3,0.3,0.5,
overall,A,50,12,52,0.201,0.3,0.301,0.5,by the law
N = 64,A,50,64,25,0.1,0.3,0.2,0.5,
N = 64,A,50,64,52,0.201,0.3,0.301,0.5,by the law
N d about 80,A,50,8,8,0.1,0.3,0.2,0.5,
N d about 80,A,50,2,40,0.12,0.3,0.22,0.5,by the law
"""


@pytest.fixture(scope="module")
def planted(folder, tmp_path_factory):
    """A paper of one panel whose law is a quadratic with its best size at (12, 52)."""
    own = tmp_path_factory.mktemp("published")
    for name in ("table3", "table6"):
        shutil.copy(folder / f"performance_law_{name}.csv", own)
    rng = np.random.default_rng(4)
    lines = ["dataset,max_len,layers,dim,hr10,ndcg10"]
    for n in (4, 8, 12, 16, 24, 32):
        for d in (25, 50, 75, 100):
            good = 0.3 - 0.01 * np.log(n / 12) ** 2 - 0.03 * np.log(d / 52) ** 2
            lines.append(f"A,50,{n},{d},{good + 0.0005 * rng.normal():.5f},{good - 0.1 + 0.0005 * rng.normal():.5f}")
    (own / "performance_law_grid.csv").write_text("\n".join(lines) + "\n")
    rows = "A,50,hr10,0.99,0.1,0.1\nA,50,ndcg10,0.5,0.1,0.1\n"
    (own / "performance_law_table1.csv").write_text(f"dataset,max_len,metric,pl,sl,pcsl\n{rows}")
    (own / "performance_law_table2.csv").write_text(TABLE2)
    return own


@pytest.fixture(scope="module")
def found(planted):
    return reproduce(planted, draws=200)


def test_a_planted_paper_is_reproduced(found):
    for panel in found.panels:
        assert panel.r2["released"] > 0.97
        assert panel.r2["quadratic"] > 0.97
        assert panel.r2["log-linear"] < 0.5
        assert isinstance(panel.layers, Inside)
        assert isinstance(panel.dim, Inside)
        assert abs(panel.layers.at.value - 12) <= 2
        assert abs(panel.dim.at.value - 52) <= 2
    assert found.panels[1].difference > 0.4
    by_question = {(one.question, one.metric): one for one in found.choices}
    assert len(by_question) == 6
    overall = by_question["overall", "hr10"]
    assert overall.as_good
    assert overall.gain == pytest.approx(0.001)
    assert overall.predicted == pytest.approx(0.3, abs=0.001)
    fixed = by_question["N = 64", "hr10"].found
    assert fixed.layers == Fixed(64.0)
    assert fixed.best.layers == 64
    assert abs(fixed.best.dim - 52) <= 2
    small = by_question["N d about 80", "hr10"].found
    assert small.best.layers * small.best.dim <= 80  # the dearest of the paper's own rows
    assert not small.best.interpolated
    assert isinstance(small.layers, Outside) or isinstance(small.dim, Outside)


def test_the_text_lists_what_differs(found):
    text = found.markdown()
    differing = next(line for line in text.splitlines() if line.startswith("- The law's R2 agrees"))
    named = differing.partition("it differs in ")[2].partition(".")[0].split(", ")
    far = [one for one in found.panels if abs(one.r2["released"] - one.row.numbers["pl"]) >= 0.005]
    assert named == [f"A 50 {'HR@10' if one.row.words['metric'] == 'hr10' else 'NDCG@10'}" for one in far]
    assert "A 50 NDCG@10" in named
    assert len(table1(found).rows) == 2
    assert text.count("| A 50 |") == 2


def test_the_files_hold_what_was_found(found, tmp_path):
    markdown, values = write_reproduction(found, tmp_path / "out")
    assert markdown.read_text() == found.markdown()
    plain = json.loads(values.read_text())
    assert plain["table1"][0]["r2"]["released"] == found.panels[0].r2["released"]
    assert plain["table2"][0]["ours"]["best"]["layers"] == found.choices[0].found.best.layers
    again = write_reproduction(found, tmp_path / "again")
    assert again[1].read_bytes() == values.read_bytes()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("table1", ("A,50,hr10", "B,50,hr10"), "no runs of the panel 'B 50'"),
        ("table1", ("0.99", ""), "performance_law_table1.csv, line 2: could not convert"),
        ("table1", ("0.99", "nan"), "line 2: expected finite numbers in pl, sl, pcsl"),
        ("table2", ("question,", "q,"), "performance_law_table2.csv: columns"),
        ("grid", (",hr10,", ",hr,"), "no column 'hr10'"),
        ("grid", ("A,50,8,50,", "A,50,8,,"), "line 7"),
        ("table6", None, "cannot be read"),
    ],
)
def test_damaged_files_are_named(planted, tmp_path, name, change, message):
    shutil.copytree(planted, tmp_path / "published")
    path = tmp_path / "published" / f"performance_law_{name}.csv"
    if change is None:
        path.unlink()
    else:
        text = path.read_text()
        assert change[0] in text
        path.write_text(text.replace(*change))
    with pytest.raises(DataError, match=message):
        reproduce(tmp_path / "published", draws=200)


# Refits of the HR panels with p1 = 1/2: the law, its N* and d*, published with the recovered grid.
REFITTED = {
    "ML-1M 100": (0.8943, 14.3, 64.3),
    "ML-1M 150": (0.9154, 14.3, 83),
    "ML-1M 200": (0.8929, 17.8, 51.7),
    "KR-Pure 25": (0.7868, 23, 80),
    "KR-Pure 50": (0.9392, 18.4, 58),
    "KR-Pure 100": (0.6271, 16, 46),
    "Industrial 25": (0.9811, 85, 617),
    "Industrial 50": (0.9746, 122, 392),
}


@pytest.mark.slow
def test_the_whole_paper(folder):
    found = reproduce(folder, draws=200)
    panels = {one.row.panel: one for one in found.panels if one.row.words["metric"] == "hr10"}
    for name, (r2, n, d) in REFITTED.items():
        assert panels[name].r2["released"] == pytest.approx(r2, abs=0.003)
        assert panels[name].layers.at.value == pytest.approx(n, rel=0.03, abs=1)
        assert panels[name].dim.at.value == pytest.approx(d, rel=0.03, abs=1)
    assert panels["AMZ-Books 25"].dim.short.startswith("none")
    assert isinstance(panels["Industrial 50"].layers, Outside)
