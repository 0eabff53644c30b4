"""python -m wukong_jax fit: from records and from tables to laws, figures and errors."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.tiny import plain_config
from wukong_jax.cli import main
from wukong_jax.comparison.records import portable, record_path
from wukong_jax.config.codec import to_plain
from wukong_jax.training.record import write_records

QUICK = ("--draws", "200")
FLOOR = 0.4
SIZES = (1.0, 10.0, 100.0, 1000.0)


def record(series, compute, logloss, seed=0, steps=100, **changes):
    """A finished run as the sweep writes it; the config differs by its name, as those of a ladder do."""
    config = plain_config("store", batch_size=16)
    config = dataclasses.replace(
        config,
        name=f"{series}-{compute:g}-{steps}".lower().replace("+", ""),
        train=dataclasses.replace(config.train, seed=seed),
    )
    facts = {
        "record_version": 1,
        "numerics_revision": 1,
        "store_digest": "digest",
        "name": config.name,
        "config": to_plain(config),
        "config_hash": config.hash(),
        "seed": seed,
        "steps": steps,
        "training_flops_per_example": int(compute * 1e6),
        "dense_parameters": int(compute * 1e5),
        "results": {"test": {"logloss": logloss, "auc": 0.7}},
        "best_possible": {"test": {"logloss": FLOOR}},
        "series": series,
        "study": "ladder",
        "varied": {"budget_mflop": compute},
    }
    return config, portable(json.loads(json.dumps(facts))) | facts | changes


def write_runs(folder, runs):
    for config, plain in runs:
        write_records(record_path(folder, config), [plain])
    return folder


def planted_runs(noise=0.0005):
    """Two series over 7 sizes and 2 seeds: one falls towards the floor, one stops above it."""
    rng = np.random.default_rng(2)
    for compute in np.geomspace(0.3, 100, 7):
        for seed in (0, 1):
            yield record("Wukong", compute, 0.4 + 0.1 * compute**-0.3 + noise * rng.normal(), seed)
            yield record("DLRM", compute, 0.45 + 0.05 * compute**-2.0 + noise * rng.normal(), seed)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("fit") / "sweep", planted_runs())


@pytest.fixture(scope="module")
def fitted(records):
    """The JSON of the planted records."""
    out = records.parent / "fit.json"
    assert main(["fit", "--points", str(records), "--out", str(out), *QUICK]) == 0
    return json.loads(out.read_text())


def series_of(found, name):
    return next(one for one in found["series"] if one["series"] == name)


def fit_of(found, name, form):
    return next(fit for fit in series_of(found, name)["fits"] if fit["form"] == form)


def test_records_give_back_the_planted_laws(fitted):
    assert [one["series"] for one in fitted["series"]] == ["DLRM", "Wukong"]
    for form, expected in (("saturating", {"alpha": 0.3, "E": 0.4}), ("known-floor", {"alpha": 0.3, "A": 0.1})):
        fit = fit_of(fitted, "Wukong", form)
        assert (fit["runs"], fit["points"]) == (14, 7)
        for name, value in expected.items():
            assert fit["parameters"][name]["low"] <= value < fit["parameters"][name]["high"]
    fit = fit_of(fitted, "Wukong", "known-floor")
    assert fit["floor"] == FLOOR
    assert fit["diagnostics"]["r2"] > 0.99
    change = fit["change_at_last_4x"]
    true = 0.1 * (100**-0.3 - 25**-0.3)
    assert change["low"] < true < change["high"] < 0
    assert {rival["form"] for rival in series_of(fitted, "DLRM")["rivals"] if rival["told_apart"]} >= {"power"}


def test_the_series_that_stops_is_ranked_last(fitted):
    assert [one["series"] for one in fitted["saturation"]] == ["Wukong", "DLRM"]
    assert fitted["saturation"][0]["state"] == "falling"
    assert fitted["saturation"][1]["state"] == "saturated"


def test_the_tables_are_printed(records, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["fit", "--points", str(records), "--forms", "saturating", "log-linear", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "Wukong: 14 runs of 7 points" in shown
    assert "95% interval" in shown
    for text in ("E + A x^-alpha", "change at the last 4x", "LOO error", "the data", "Saturation"):
        assert text in shown


def test_the_same_call_writes_the_same_file(records, fitted):
    again = records.parent / "again.json"
    assert main(["fit", "--points", str(records), "--out", str(again), *QUICK]) == 0
    assert json.loads(again.read_text()) == fitted


def test_the_published_table(pytestconfig, tmp_path, capsys):
    path = pytestconfig.rootpath / "results" / "published" / "wukong_table5.csv"
    columns = ["--x", "gflop", "--y", "rel_logloss_task1", "--relative", "--significant", "0.02"]
    assert main(["fit", "--points", str(path), *columns, *QUICK, "--out", str(tmp_path / "fit.json")]) == 0
    found = json.loads((tmp_path / "fit.json").read_text())
    law = fit_of(found, "Wukong", "power")["parameters"]
    assert law["A"]["low"] < 99.56 < law["A"]["high"]
    assert law["alpha"]["low"] < 0.00071 < law["alpha"]["high"]
    order = [one["series"] for one in found["saturation"]]
    assert order == ["Wukong", "MaskNet", "DCNv2", "AutoInt+", "DLRM", "FinalMLP", "AFN+"]
    assert [run["series"] for run in found["left_out"]] == ["AutoInt+", "DCNv2"]
    shown = capsys.readouterr().out
    assert "left out: DCNv2 at x = 84.71: loss exploded" in shown
    assert str(tmp_path) not in (tmp_path / "fit.json").read_text()


def grid_table(path):
    """L(N, D) on a grid, as a CSV."""
    rng = np.random.default_rng(3)
    lines = ["name,flops,rows,loss"]
    for n in np.geomspace(0.3, 100, 5):
        for d in np.geomspace(1e5, 1e7, 4):
            lines.append(f"mine,{n},{d},{0.4 + 0.1 * n**-0.3 + 3 * d**-0.4 + 0.0005 * rng.normal()}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_joint_law_and_its_division_of_compute(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    table, out = grid_table(tmp_path / "grid.csv"), tmp_path / "fit.json"
    columns = ["--x", "flops", "--y", "loss", "--series", "name", "--examples", "rows"]
    given = ["--joint", "--budgets", "1e7", "1e12", *QUICK, "--out", str(out)]
    assert main(["fit", "--points", str(table), *columns, *given]) == 0
    one = series_of(json.loads(out.read_text()), "mine")
    for name, value in {"alpha": 0.3, "beta": 0.4, "E": 0.4}.items():
        assert one["fits"][0]["parameters"][name]["low"] < value < one["fits"][0]["parameters"][name]["high"]
    within, beyond = one["allocations"]
    best = (0.3 * 0.1 / (0.4 * 3)) ** (1 / 0.7) * 1e7 ** (0.4 / 0.7)
    assert within["compute"]["low"] < best < within["compute"]["high"]
    assert within["remarks"] == []
    assert any("an extrapolation" in remark for remark in beyond["remarks"])
    assert "lies above the measured" in capsys.readouterr().out


def test_a_budget_of_records_is_in_flops(tmp_path):
    runs = [
        record("Wukong", n, 0.4 + 0.1 * n**-0.3 + 3 * (16 * steps) ** -0.4, steps=steps)
        for n in np.geomspace(0.3, 100, 4)
        for steps in (6_000, 60_000, 600_000)
    ]
    folder, out = write_runs(tmp_path / "sweep", runs), tmp_path / "fit.json"
    assert main(["fit", "--points", str(folder), "--joint", "--budgets", "1e13", *QUICK, "--out", str(out)]) == 0
    found = series_of(json.loads(out.read_text()), "Wukong")["allocations"][0]["compute"]["value"]
    np.testing.assert_allclose(found, (0.03 / 1.2) ** (1 / 0.7) * 1e7 ** (0.4 / 0.7), rtol=0.01)


@pytest.mark.parametrize(("x", "factor"), [("examples", 16.0), ("parameters", 1e5)])
def test_other_inputs_of_records(tmp_path, x, factor):
    runs = [record("Wukong", n, 0.5 * (n * factor) ** -0.05, steps=round(n)) for n in (10.0, 100, 1000, 10000)]
    folder, out = write_runs(tmp_path / "sweep", runs), tmp_path / "fit.json"
    given = ["--x", x, "--forms", "power", *QUICK, "--out", str(out)]
    assert main(["fit", "--points", str(folder), *given]) == 0
    law = fit_of(json.loads(out.read_text()), "Wukong", "power")["parameters"]
    np.testing.assert_allclose([law["alpha"]["value"], law["A"]["value"]], [0.05, 0.5], rtol=1e-5)


def test_exploded_runs_are_listed_and_make_a_series_unstable(tmp_path, capsys):
    runs = [*planted_runs(), record("Wukong", 400.0, None)]
    folder = write_runs(tmp_path / "sweep", runs)
    config, failed = record("DLRM", 900.0, 0.0)
    for name in ("results", "steps"):
        del failed[name]
    path = record_path(folder, config).with_suffix(".failed.json")
    path.write_text(json.dumps(failed | {"failed": "the loss is nan"}))
    out = tmp_path / "fit.json"
    assert main(["fit", "--points", str(folder), "--forms", "power", *QUICK, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {(run["series"], run["x"]) for run in found["left_out"]} == {("Wukong", 400.0), ("DLRM", 900.0)}
    assert {one["series"]: one["exploded_x"] for one in found["saturation"]} == {"Wukong": 400.0, "DLRM": 900.0}
    assert "the loss is nan" in capsys.readouterr().out


def test_a_run_that_blew_up_to_a_finite_loss_has_no_value(tmp_path, capsys):
    config, blown = record("DLRM", 900.0, 49153.0)
    blown["results"]["test"]["ne"] = 87_000.0
    folder = write_runs(tmp_path / "sweep", [*planted_runs(), (config, blown)])
    out = tmp_path / "fit.json"
    assert main(["fit", "--points", str(folder), "--forms", "power", *QUICK, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [(run["series"], run["x"]) for run in found["left_out"]] == [("DLRM", 900.0)]
    assert {one["series"]: one["exploded_x"] for one in found["saturation"]} == {"Wukong": None, "DLRM": 900.0}
    assert "4.915e+04 is 8.7e+04 times the base rate's: it exploded" in " ".join(capsys.readouterr().out.split())


def test_a_metric_that_is_no_logloss_is_not_held_to_the_base_rate(tmp_path):
    runs = [*planted_runs()]
    for _, plain in runs:
        plain["results"]["test"]["loss"] = 6 + plain["results"]["test"]["logloss"]
    folder, out = write_runs(tmp_path / "sweep", runs), tmp_path / "fit.json"
    assert main(["fit", "--points", str(folder), "--y", "loss", "--forms", "power", *QUICK, "--out", str(out)]) == 0
    assert json.loads(out.read_text())["left_out"] == []


def test_runs_that_differ_in_more_than_the_seed_are_no_repetitions(tmp_path, capsys):
    folder = write_runs(tmp_path / "sweep", [*planted_runs(), record("DLRM", 100.0, 0.5, steps=200)])
    assert "series 'DLRM' has two runs at 100 with seed 0" in refused(capsys, "--points", str(folder))


def test_a_score_after_repeated_examples_is_no_point_of_a_law_of_examples(tmp_path, capsys):
    config, repeated = record("DLRM", 100.0, 0.5, steps=300, best_step=200, examples={"train": 1600})
    folder = write_runs(tmp_path / "sweep", [(config, repeated)])
    message = refused(capsys, "--points", str(folder), "--x", "examples")
    assert "that of step 200, after 3,200 examples of a split of 1,600" in message


def test_a_series_that_cannot_be_fitted_is_said_and_the_others_are(tmp_path, capsys):
    folder = write_runs(tmp_path / "sweep", [*planted_runs(), record("DCNv2", 1.0, 0.5), record("DCNv2", 2.0, 0.5)])
    assert main(["fit", "--points", str(folder), "--forms", "power", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "not fitted: series 'DCNv2', form power: 2 distinct x, expected at least 3" in shown
    assert "Wukong: 14 runs" in shown


TABLE = "series,x,y\na,1,0.5\na,2,0.45\na,4,0.42\na,8,0.41\n"


def refused(capsys, *arguments):
    assert main(["fit", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("y", "loss"), (), "no column 'y' (--y); its columns: series, x, loss"),
        (("series", "curve"), (), "no column 'series' (--series)"),
        (("series,x,y", "series,y,x,y"), (), "2 columns named 'y' (--y), expected one"),
        (("a,2,", "a,2,3,"), (), "line 3: 4 cells, expected 3 as in the heading"),
        (("a,2,", "\na,two,"), (), "line 4: x is 'two', expected a number"),
        (("a,2,", "a,two,"), (), "line 3: x is 'two', expected a number"),
        (("a,2,", "a,,"), (), "line 3: x is '', expected a number"),
        (("a,2,", "a,0,"), (), "an input is 0, expected numbers above 0"),
        (("a,2,", "a,-2,"), (), "an input is -2"),
        (("0.45", "good"), (), "line 3: y is 'good', expected a number"),
        (("0.45", "-0.45"), (), "relative LogLoss in percent needs the origin -100 (--relative)"),
        (("a,2,0.45\na,4,0.42\n", ""), (), "2 distinct x, expected at least 3"),
        (("0.5\n", "0.5\n"), ("--forms", "cubic"), "form: received 'cubic', expected one of power"),
        (("0.5\n", "0.5\n"), ("--forms", "joint"), "choose it with --joint"),
        (("0.5\n", "0.5\n"), ("--forms", "known-floor"), "the floor is not known; give it with --floor"),
        (("0.5\n", "0.5\n"), ("--floor", "0.44", "--forms", "known-floor"), "not above the floor 0.44"),
        (("0.5\n", "0.5\n"), ("--seed", "run"), "no column 'run' (--seed)"),
        (("0.5\n", "0.5\n"), ("--seed", "y"), "line 2: y is '0.5', expected a whole number"),
        (("a,2,", "a,1,"), ("--seed", "x"), "series 'a' has two runs at 1 with seed 1"),
        (("0.5\n", "0.5\n"), ("--y", "x"), "--y: received x, which is an input too"),
        (("0.5\n", "0.5\n"), ("--floor", "nan"), "--floor: received nan, expected a number"),
        (("0.5\n", "0.5\n"), ("--forms", "power", "power"), "expected each form once"),
        (("0.5\n", "0.5\n"), ("--joint",), "no column 'examples' (--examples)"),
        (("0.5\n", "0.5\n"), ("--budgets", "5"), "add --joint"),
        (("0.5\n", "0.5\n"), ("--joint", "--forms", "power"), "leave out --forms and --floor"),
        (("0.5\n", "0.5\n"), ("--level", "1.5"), "level: received 1.5"),
        (("0.5\n", "0.5\n"), ("--draws", "20"), "draws: received 20"),
        (("0.5\n", "0.5\n"), ("--significant", "0"), "--significant: received 0"),
        (("0.5\n", "0.5\n"), ("--bootstrap-seed", "-1"), "--bootstrap-seed: received -1"),
        (("0.5\n", "0.5\n"), ("--study", "ladder"), "--study: is of a folder of run records; leave it out with a CSV"),
        (("0.5\n", "0.5\n"), ("--examples", "examples"), "--examples: is an input of the joint law; add --joint"),
        (("0.5\n", "0.5\n"), ("--joint", "--significant", "1"), "--significant: is for the ranking of the series"),
    ],
)
def test_wrong_tables_and_options_are_named(tmp_path, capsys, change, options, message):
    path = tmp_path / "runs.csv"
    path.write_text(TABLE.replace(*change))
    out = tmp_path / "fit.json"
    columns = ["--x", "x", "--y", "y", "--draws", "200"] if "--draws" not in options else ["--x", "x", "--y", "y"]
    assert message in refused(capsys, "--points", str(path), *columns, "--out", str(out), *options)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "exploded"])
def test_rows_without_a_value_are_left_out(tmp_path, capsys, cell):
    path = tmp_path / "runs.csv"
    path.write_text(f"{TABLE}a,16,{cell}\n")
    assert main(["fit", "--points", str(path), "--x", "x", "--y", "y", "--forms", "power", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "left out: a at x = 16: no value in y" in shown
    assert "a: 4 runs of 4 points" in shown


def test_a_file_or_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert "does not exist, expected a folder of run records or a CSV" in refused(
        capsys, "--points", str(tmp_path / "no")
    )
    (tmp_path / "empty").mkdir()
    assert "no run of the study 'ladder'; studies there: none" in refused(capsys, "--points", str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--study", "knob"), "no run of the study 'knob'; studies there: ladder"),
        (("--y", "ne"), "no test metric 'ne'; its metrics: auc, logloss"),
        (("--y", "auc"), "expected a metric that falls"),
        (("--x", "gflop"), "--x: received 'gflop', expected one of compute, examples, parameters"),
        (("--joint", "--x", "examples"), "which is the other input of the joint law"),
        (("--joint", "--x", "parameters", "--budgets", "9"), "--budgets: are divided between compute and examples"),
        (("--series", "series"), "--series: is a column of a CSV file; leave it out with a folder of run records"),
        (("--seed", "seed"), "--seed: is a column of a CSV file"),
        (("--joint", "--examples", "examples"), "--examples: is a column of a CSV file"),
    ],
)
def test_wrong_options_for_records_are_named(records, capsys, options, message):
    assert message in refused(capsys, "--points", str(records), *options, *QUICK)


def test_the_names_that_were_read_are_in_the_file(fitted, tmp_path):
    assert (fitted["options"]["study"], fitted["options"]["series"]) == ("ladder", None)
    table = tmp_path / "runs.csv"
    table.write_text(
        "series,x,examples,y\n" + "".join(f"a,{n},{d},{n**-0.3 + d**-0.4}\n" for n in SIZES for d in SIZES)
    )
    for words, examples in (((), None), (("--joint",), "examples")):
        out = tmp_path / "fit.json"
        assert main(["fit", "--points", str(table), "--x", "x", "--y", "y", *words, *QUICK, "--out", str(out)]) == 0
        given = json.loads(out.read_text())["options"]
        assert (given["study"], given["series"], given["examples"]) == (None, "series", examples)


@pytest.mark.parametrize("joint", [False, True])
def test_a_reader_that_goes_away_costs_no_file(tmp_path, pytestconfig, joint):
    words = ["--x", "flops", "--y", "loss", "--series", "name", "--draws", "200"]
    words += ["--joint", "--examples", "rows"] if joint else ["--forms", "power"]
    table = grid_table(tmp_path / "grid.csv")
    table.write_text(table.read_text() + "mine,1,1,exploded\n")  # a line that is printed before all others
    command = [sys.executable, "-m", "wukong_jax", "fit", "--points", str(table), *words, "--out", "fit.json"]
    environment = os.environ | {"PYTHONPATH": str(pytestconfig.rootpath)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "fit.json").read_text())["series"]


def test_runs_left_out_are_said_when_the_others_cannot_be_fitted(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text("series,x,y\na,1,0.5\na,2,0.45\na,4,exploded\n")
    assert main(["fit", "--points", str(path), "--x", "x", "--y", "y", "--forms", "power", *QUICK]) == 2
    said = capsys.readouterr()
    assert "2 distinct x, expected at least 3" in said.err
    assert "left out: a at x = 4" in said.out


@pytest.mark.parametrize("name", ["store_digest", "numerics_revision"])
def test_records_that_do_not_belong_together_are_refused(tmp_path, capsys, name):
    folder = write_runs(tmp_path / "sweep", [*planted_runs(), record("Wukong", 3.0, 0.5, **{name: 9})])
    assert f"differ in {name}" in refused(capsys, "--points", str(folder), *QUICK)


def test_an_output_that_cannot_be_written_is_named(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text(TABLE)
    columns = ["--x", "x", "--y", "y", "--forms", "power", *QUICK]
    assert "is a folder" in refused(capsys, "--points", str(path), *columns, "--out", str(tmp_path))
    assert "cannot be written" in refused(capsys, "--points", str(path), *columns, "--out", str(path / "fit.json"))
