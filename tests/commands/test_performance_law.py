"""python -m wukong_jax performance-law: from a table to laws, predictions, recommendations and a page; wrong calls."""

import json
import re
import types

import numpy as np
import pytest

from wukong_jax.cli import main as dispatch
from wukong_jax.commands.performance_law import main as command
from wukong_jax.errors import UserError

QUICK = ("--draws", "200", "--metric", "hr10")


def main(words, capsys):
    """Exit code, output and errors, as the dispatcher gives them."""
    try:
        code = command([str(word) for word in words])
    except UserError as error:
        print(f"error: {error}")
        code = 2
    return code, capsys.readouterr().out


def planted(n, d):
    return 0.3 - 0.01 * np.log(n / 14) ** 2 - 0.03 * np.log(d / 52) ** 2


def table(*, repeats=1, sets=("A",), seed=0, metric=planted):
    rng = np.random.default_rng(seed)
    lines = ["set,layers,dim,hr10,loss"]
    for number, name in enumerate(sets):
        for n in (4, 8, 16, 32):
            for d in (25, 50, 75, 100):
                for _ in range(repeats):
                    value = metric(n, d) + 0.02 * number + 0.0005 * rng.normal()
                    lines.append(f"{name},{n},{d},{value:.6f},{2 - value:.6f}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    path.write_text(table())
    return path


def test_fit_prints_and_writes_all_forms(runs, tmp_path, capsys):
    out = tmp_path / "fit.json"
    words = ["fit", "--runs", runs, *QUICK, "--forms", "quadratic", "log-linear", "--json", out]
    code, shown = main(words, capsys)
    assert code == 0
    assert "quadratic *" in shown
    assert "against log-linear" in shown
    found = json.loads(out.read_text())
    assert found["best"] == "quadratic"
    fit = found["fits"][0]
    assert fit["quality"]["r2"] > 0.99
    assert fit["parameters"]["a2"]["value"] == pytest.approx(-0.01, abs=0.002)
    assert found["options"]["runs"] == str(runs)
    assert main([*words[:-1], tmp_path / "again.json"], capsys)[1] == shown
    assert (tmp_path / "again.json").read_bytes() == out.read_bytes()


def test_predict_says_whether_it_extrapolates(runs, tmp_path, capsys):
    out = tmp_path / "predict.json"
    words = ["predict", "--runs", runs, *QUICK, "--form", "quadratic", "--sizes", "14x52", "64x52", "--json", out]
    code, shown = main(words, capsys)
    assert code == 0
    inner, outer = json.loads(out.read_text())["sizes"]
    assert inner["metric"]["low"] < inner["metric"]["value"] < inner["metric"]["high"]
    assert inner["metric"]["value"] == pytest.approx(0.3, abs=0.001)
    assert outer["metric"]["value"] == pytest.approx(planted(64, 52), abs=0.005)
    assert (inner["interpolated"], outer["interpolated"]) == (True, False)
    rows = [line for line in shown.splitlines() if "polates" in line]
    assert ["extrapolates" in row for row in rows] == [False, True]


def test_recommend_answers_overall_and_under_each_budget(runs, tmp_path, capsys):
    out = tmp_path / "recommend.json"
    budgets = ["--budget-size", 300, "--budget-total", 400_000, "--backbone", "sasrec", "--length", 50, "--items", 1000]
    code, shown = main(["recommend", "--runs", runs, *QUICK, "--form", "quadratic", *budgets, "--json", out], capsys)
    assert code == 0
    found = json.loads(out.read_text())
    questions = list(found["answers"])
    assert len(questions) == 4
    assert questions[0] == "overall"
    assert questions[-1] == "all budgets"
    overall = found["answers"]["overall"]
    assert overall["layers"]["answer"] == "inside the measured range"
    assert overall["layers"]["at"]["value"] == pytest.approx(14, abs=2)
    assert overall["dim"]["at"]["value"] == pytest.approx(52, abs=2)
    for question in questions[1:]:
        best = found["answers"][question]["best"]
        if "item table" not in question:
            assert best["layers"] * best["dim"] <= 300
        if "N d" not in question:
            assert best["layers"] * 6 * best["dim"] ** 2 + 1001 * best["dim"] <= 400_000
        assert question in shown
    assert overall["promise"]["verdict"] in shown
    assert len(found["next"]["layers"]) == len(found["next"]["reduction"])


def test_a_form_without_an_optimum_is_answered_in_words(runs, tmp_path, capsys):
    out = tmp_path / "recommend.json"
    code, shown = main(["recommend", "--runs", runs, *QUICK, "--form", "log-linear", "--json", out], capsys)
    assert code == 0
    found = json.loads(out.read_text())["answers"]["overall"]
    assert found["layers"]["answer"] in ("unbounded", "no interior optimum: smaller is always better")
    assert "at" not in found["layers"]
    assert "does not exist" in shown


def test_a_loss_is_recommended_where_it_is_lowest(runs, tmp_path, capsys):
    out = tmp_path / "loss.json"
    words = ["recommend", "--runs", runs, "--draws", 200, "--metric", "loss", "--form", "quadratic", "--json", out]
    assert main(words, capsys)[0] == 0
    best = json.loads(out.read_text())["answers"]["overall"]["best"]
    assert best["layers"] == pytest.approx(14, abs=2)
    assert best["metric"]["value"] == pytest.approx(1.7, abs=0.002)


def test_repeated_runs_give_the_noise(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text(table(repeats=3))
    code, shown = main(["recommend", "--runs", path, *QUICK, "--form", "quadratic"], capsys)
    assert code == 0
    assert "from the repeated runs" in shown


def test_panels_are_fitted_together_or_one_alone(tmp_path, capsys):
    path, out = tmp_path / "runs.csv", tmp_path / "fit.json"
    path.write_text(table(sets=("A", "B")))
    words = ["fit", "--runs", path, *QUICK, "--forms", "quadratic", "--panels", "set", "--json", out]
    code, shown = main(words, capsys)
    assert code == 0
    assert "R2 by panel" in shown
    assert json.loads(out.read_text())["panels"] == ["A", "B"]
    assert main([*words, "--panel", "B"], capsys)[0] == 0
    found = json.loads(out.read_text())
    assert (found["panels"], found["runs"]) == (["B"], 16)
    predict = ["predict", "--runs", path, *QUICK, "--form", "quadratic", "--panels", "set", "--sizes", "14x52"]
    values = []
    for panel in ("A", "B"):
        assert main([*predict, "--at-panel", panel, "--json", out], capsys)[0] == 0
        values.append(json.loads(out.read_text())["sizes"][0]["metric"]["value"])
    assert values[1] - values[0] == pytest.approx(0.02, abs=0.001)


def test_report_writes_the_page_and_figures(runs, tmp_path, capsys):
    out = tmp_path / "page"
    words = ["report", "--runs", runs, *QUICK, "--form", "quadratic", "--out", out, "--formats", "svg"]
    code, shown = main(words, capsys)
    assert code == 0
    assert sorted(map(str, out.iterdir())) == sorted(shown.split())
    assert len(list(out.iterdir())) == 5


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (("8,50,", "8,,"), (), "line 7: dim is ''"),
        (("8,50,", "nan,50,"), (), "line 7: layers is 'nan'"),
        (("set,layers,dim,hr10,loss", "set,layers,dim,hr10,hr10"), (), "2 columns named 'hr10'"),
        (("A,", "A,"), ("--panels", "set", "--panel", "C"), "panel: received 'C', expected one of 'A'"),
        (("A,", "A,"), ("--at-panel", "C"), "--at-panel: received 'C'"),
        (("A,", "A,"), ("--budget-size", "99"), "the smallest model that is searched, N = 4, d = 25, costs 100"),
        (("A,", "A,"), ("--budget-size", "-1"), "budget of N d: received -1"),
        (("A,", "A,"), ("--budget-flops", "1e9"), "give --backbone and --length"),
        (("A,", "A,"), ("--budget-total", "1e9", "--backbone", "hstu", "--length", "50"), "give --items"),
        (
            ("A,", "A,"),
            ("--backbone", "hstu", "--length", "5", "--ffn-ratio", "2", "--budget-flops", "9"),
            "--ffn-ratio",
        ),
        (("A,", "A,"), ("--layers-range", "8", "4"), "--layers-range: received 8 to 4"),
        (
            ("A,", "A,"),
            ("--layers-range", "1", "999999999", "--dim-range", "1", "999999999", "--dim-multiple", "99"),
            "--layers-range and --dim-range: rec",
        ),
        (
            ("A,", "A,"),
            ("--backbone", "hstu"),
            "--backbone: received hstu, which counts for nothing without --budget-p",
        ),
        (("A,", "A,"), ("--items", "9"), "--items: received 9, which counts for nothing without --budget-total"),
        (("A,", "A,"), ("--candidates", "9"), "which counts for nothing without --budget-flops"),
        (("A,", "A,"), ("--at-data", "9"), "--at-data: received 9, but there is no data term; give --data"),
        (("A,", "1,"), ("--at-data", "9", "--data", "set"), "--at-data: received 9, but D' does not vary within"),
        (("A,", "A,"), ("--dim", "layers"), "--layers and --dim: received the column 'layers' for both"),
        (("A,", "A,"), ("--forms", "quadratic", "power", "power"), "--forms: ['power'] named more than once"),
        (("A,", "A,"), ("--p1", "2"), "--p1: received 2, but quadratic has no p1; fit performance-law or released"),
        (("A,", "A,"), ("--draws", "20"), "--draws: received 20, expected at least 200"),
        (("A,", "A,"), ("--tolerance", "0"), "--tolerance: received 0"),
        (("A,", "A,"), ("--sigma", "-1"), "--sigma: received -1"),
        (("A,", "A,"), ("--form", "cubic"), "--form: received 'cubic'"),
        (("A,", "A,"), ("--form", "power", "--forms", "quadratic"), "which is not among --forms quadratic"),
        (("A,", "A,"), ("--bootstrap-seed", "-1"), "--bootstrap-seed: received -1"),
        (("A,", "A,"), ("--level", "1.5"), "--level: received 1.5"),
    ],
)
def test_wrong_tables_and_options_are_named(runs, tmp_path, capsys, change, words, message):
    path = tmp_path / "runs.csv"
    path.write_text(runs.read_text().replace(*change))
    form = () if "--form" in words else ("--form", "quadratic")
    code, shown = main(["recommend", "--runs", path, *QUICK, *form, *words, "--json", tmp_path / "a.json"], capsys)
    assert code == 2
    assert message in shown
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (lambda n, d: n == 8, "all runs have the depth 8"),
        (lambda n, d: d == 50, "all runs have the width 50"),
        (lambda n, d: (n, d) in ((4, 25), (8, 50), (16, 75), (32, 25)), "4"),  # fewer runs than parameters
    ],
)
@pytest.mark.parametrize("what", ["fit", "recommend"])
def test_runs_that_determine_no_law_are_refused(runs, tmp_path, capsys, kept, message, what):
    heading, *lines = runs.read_text().splitlines()
    rows = [line for line in lines if kept(*map(int, line.split(",")[1:3]))]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([heading, *rows]) + "\n")
    extra = ("--forms", "quadratic", "released") if what == "fit" else ("--form", "quadratic")
    code, shown = main([what, "--runs", path, *QUICK, *extra], capsys)
    assert code == 2
    assert message in shown
    assert len(shown.strip()) > 20


@pytest.mark.parametrize("size", ["28", "28x", "0x5", "8x-5", "8*5"])
def test_a_size_is_layers_x_width(runs, capsys, size):
    code, shown = main(["predict", "--runs", runs, *QUICK, "--form", "quadratic", "--sizes", size], capsys)
    assert code == 2
    assert f"--sizes: received '{size}', expected layers x width" in shown


def test_a_prediction_that_no_hit_rate_can_have_is_said(runs, tmp_path, capsys):
    words = ["predict", "--runs", runs, *QUICK, "--form", "quadratic", "--json", tmp_path / "a.json", "--sizes"]
    shown = main([*words, "8x50", "9000000x50"], capsys)[1]
    (said,) = [row for row in shown.splitlines() if "extrapolates, to what no hr10 can be" in row]
    assert said.startswith("| 9e+06 | 50 |")
    assert json.loads((tmp_path / "a.json").read_text())["impossible"] == ["9000000x50"]


def test_predict_needs_a_size(runs, capsys):
    code, shown = main(["predict", "--runs", runs, *QUICK, "--sizes"], capsys)
    assert code == 2
    assert "--sizes: received no size, expected LAYERSxWIDTH, such as 8x64" in shown


@pytest.mark.parametrize("words", [("predict", "--sizes", "8x50"), ("recommend",)])
def test_runs_left_out_are_told_in_the_first_line(runs, tmp_path, capsys, words):
    path = tmp_path / "runs.csv"
    path.write_text(re.sub(r"A,8,50,[^,]*", "A,8,50,nan", runs.read_text()))
    code, shown = main([words[0], "--runs", path, *QUICK, "--form", "quadratic", *words[1:]], capsys)
    assert code == 0
    assert shown.splitlines()[0].endswith(f"15 runs, 1 left out: {path}, line 7: hr10 is 'nan'")
    assert ("widths searched: all from 25 to 100" in shown) == (words[0] == "recommend")


def test_a_fit_is_announced_on_stderr(runs, capsys):
    command(["fit", "--runs", str(runs), *QUICK, "--forms", "quadratic"])
    said = capsys.readouterr()
    assert said.err == "fitting quadratic (1 of 1): 16 runs in 1 panel, 200 draws\n"
    assert "fitting" not in said.out


def test_a_folder_that_cannot_be_written_is_named_before_the_fit(runs, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    for target in (("fit", "--json", tmp_path / "file" / "a.json"), ("report", "--out", tmp_path / "file" / "page")):
        code = main([target[0], "--runs", runs, *QUICK, *target[1:]], capsys)[0]
        assert code == 2
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("wukong_jax.performance_law.read_runs.read_runs", None)
    code, shown = main(["fit", "--runs", runs, *QUICK, "--json", tmp_path / "new" / "a.json"], capsys)
    assert code == 2
    assert f"--json: {tmp_path} cannot be written to" in shown


def test_files_and_folders_in_the_way_are_named(runs, tmp_path, capsys):
    assert "does not exist" in main(["fit", "--runs", tmp_path / "no.csv", *QUICK], capsys)[1]
    given = ["--runs", runs, *QUICK]
    code, shown = main(["fit", *given, "--json", tmp_path], capsys)
    assert (code, "is a folder" in shown) == (2, True)
    (tmp_path / "file").write_text("")
    code, shown = main(["report", *given, "--out", tmp_path / "file"], capsys)
    assert (code, "is a file" in shown) == (2, True)
    code, shown = main(["reproduce", "--published", tmp_path, "--out", tmp_path / "out"], capsys)
    assert code == 2
    assert "performance_law_grid.csv" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "--forms", "quadratic"),
        ("predict", "--form", "quadratic", "--sizes", "8x50"),
        ("recommend", "--form", "quadratic"),
    ],
)
def test_a_reader_that_goes_away_costs_no_file(runs, tmp_path, monkeypatch, words):
    def gone(*_, file=None, flush=False):
        if file is None:
            raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(BrokenPipeError):
        command([words[0], "--runs", str(runs), *QUICK, *words[1:], "--json", str(tmp_path / "found.json")])
    assert json.loads((tmp_path / "found.json").read_text())["options"]["runs"] == str(runs)


def test_a_reader_that_goes_away_costs_no_reproduction(tmp_path, monkeypatch):
    def gone(*_):
        raise BrokenPipeError

    def write(found, out):
        (out / "reproduction.md").write_text(found.markdown())
        return [out / "reproduction.md"]

    found = types.SimpleNamespace(markdown=lambda: "# Tables")
    monkeypatch.setattr("wukong_jax.performance_law.reproduce.reproduce", lambda *_: found)
    monkeypatch.setattr("wukong_jax.performance_law.reproduce.write_reproduction", write)
    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(BrokenPipeError):
        command(["reproduce", "--out", str(tmp_path)])
    assert (tmp_path / "reproduction.md").read_text() == "# Tables"


@pytest.mark.parametrize("what", ["", "fit", "predict", "recommend", "report", "reproduce"])
def test_help_is_there_for_every_part(what, capsys):
    with pytest.raises(SystemExit) as left:
        command([*([what] if what else []), "--help"])
    assert left.value.code == 0
    assert f"python -m wukong_jax performance-law {what}".strip() in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["nothing"], ["fit", "--no-such-option", "1"]])
def test_a_call_that_cannot_be_read_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as left:
        command(words)
    assert left.value.code == 2


def test_the_dispatcher_knows_the_command(runs, capsys):
    assert (
        dispatch(["performance-law", "predict", "--runs", str(runs), *QUICK, "--form", "quadratic", "--sizes", "8x50"])
        == 0
    )
    assert "interpolates" in capsys.readouterr().out
