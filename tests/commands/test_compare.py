"""python -m wukong_jax compare: the figures of its tables, what it trains and what it refuses."""

import csv
import dataclasses
import json
import shutil
import statistics

import jax
import numpy as np
import pytest

from benchmarks.results import rewritten
from tests.commands.comparison import SEEDS, Comparison
from tests.tiny import before_step, compiled_with_shared_evaluation, send_sigterm, write_store
from wukong_jax.comparison.records import portable, protocol, save_record
from wukong_jax.config.codec import from_plain
from wukong_jax.config.optimizer import TablesConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.data.store import open_store
from wukong_jax.errors import DataError
from wukong_jax.training import data as run_data
from wukong_jax.training import run

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def compared(tmp_path_factory, quick_runs):
    place = Comparison(tmp_path_factory.mktemp("compare"))
    assert place.compare() == 0
    return place


@pytest.fixture
def place(compared, tmp_path):
    """A copy of the finished comparison that a test may spoil; the store stays where it was."""
    copy = Comparison.__new__(Comparison)
    copy.folder, copy.records, copy.store, copy.base = tmp_path, tmp_path / "results", compared.store, compared.base
    for name in ("runs", "results", "baselines"):
        shutil.copytree(compared.folder / name, tmp_path / name)
    shutil.copy(compared.folder / "base.py", tmp_path)
    return copy


@pytest.fixture
def untrainable(monkeypatch):
    """Building a program is an error: nothing may be trained."""
    monkeypatch.setattr(run, "build_program", lambda *arguments: pytest.fail("a run was trained"))


def table(folder, name):
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def scores(place, config, metric):
    """Test scores by seed, straight from the record files."""
    records = [record for record in place.files() if record["name"] == config]
    return [record["results"]["test"][metric] for record in sorted(records, key=lambda record: record["seed"])]


def test_every_run_has_a_small_record_without_local_paths(compared):
    files = sorted(compared.records.glob("*.jsonl"))
    assert len(files) == 3 * SEEDS
    for path in files:
        text = path.read_text()
        assert len(text.splitlines()) == 1
        assert str(compared.folder) not in text
        record = json.loads(text)
        config = from_plain(RunConfig, record["config"])
        assert path.name == f"{record['name']}-seed{record['seed']}-{config.identity_hash()}.jsonl"
        assert record["config_hash"] == config.hash()
        assert record["store_digest"] == open_store(compared.store).digest


def test_the_portable_config_keeps_the_identity(compared):
    config = dataclasses.replace(
        compared.base, data=dataclasses.replace(compared.base.data, source="/some/where", root="/else/where")
    )
    plain = portable({"config": json.loads(json.dumps(run.to_plain(config))), "checkpoint": "/some/where/8", "seed": 0})
    assert "where" not in json.dumps(plain)
    assert from_plain(RunConfig, plain["config"]).identity_hash() == config.identity_hash()


@pytest.mark.parametrize("metric", ["auc", "logloss", "gauc"])
def test_mean_and_deviation_are_those_of_the_records(compared, metric):
    rows = table(compared.records, "table.csv")
    assert [row["config"] for row in rows] == ["tiny", "fm_tiny", "slow_tiny"]
    assert [row["model"] for row in rows] == ["LogisticRegression", "FactorizationMachine", "LogisticRegression"]
    markdown = (compared.records / "table.md").read_text().splitlines()
    for line, row in zip(markdown[2:], rows, strict=False):
        values = np.array(scores(compared, row["config"], metric), np.float64)
        assert row["seeds"] == str(SEEDS)
        np.testing.assert_allclose(float(row[f"{metric}_mean"]), values.mean(), rtol=1e-12)
        np.testing.assert_allclose(float(row[f"{metric}_std"]), values.std(ddof=1), rtol=1e-9)
        assert f" {values.mean():.5f} ± {values.std(ddof=1):.5f} " in line


def test_sizes_and_speed_are_those_of_the_records(compared):
    for row in table(compared.records, "table.csv"):
        records = [record for record in compared.files() if record["name"] == row["config"]]
        for name in ("dense_parameters", "sparse_parameters", "training_flops_per_example"):
            assert {int(row[name])} == {record[name] for record in records}
        for name in ("examples_per_second", "wall_seconds"):
            assert float(row[name]) == statistics.median(record[name] for record in records)


@pytest.mark.parametrize(("metric", "sign"), [("auc", 1), ("logloss", -1), ("gauc", 1)])
def test_paired_differences_to_the_first_row(compared, metric, sign):
    found = [row for row in table(compared.records, "differences.csv") if row["metric"] == metric]
    assert [row["against"] for row in found] == ["fm_tiny", "slow_tiny"]
    for row in found:
        pairs = np.subtract(scores(compared, "tiny", metric), scores(compared, row["against"], metric))
        error = pairs.std(ddof=1) / np.sqrt(len(pairs))
        np.testing.assert_allclose(
            [float(row[name]) for name in ("mean", "std", "standard_error")],
            [pairs.mean(), pairs.std(ddof=1), error],
            rtol=1e-9,
            atol=1e-15,
        )
        leads = "tiny" if sign * pairs.mean() > 0 else row["against"]
        assert row["ahead"] == (leads if abs(pairs.mean()) > error else "neither")
        text = (compared.records / "table.md").read_text()
        assert f"{pairs.mean():+.5f} ± {error:.5f} ({pairs.std(ddof=1):.5f}) | {row['ahead']} |" in text


def test_the_plot_is_a_picture(compared):
    assert (compared.records / "auc_flops.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_trains_nothing_and_writes_the_same(place, untrainable, capsys):
    before = {path.name: path.read_text() for path in place.records.iterdir() if path.suffix != ".png"}
    assert place.compare() == 0
    assert {path.name: path.read_text() for path in place.records.iterdir() if path.suffix != ".png"} == before
    assert capsys.readouterr().out == before["table.md"]


def test_records_alone_suffice(place, untrainable, monkeypatch):
    before = (place.records / "table.csv").read_text()
    shutil.rmtree(place.folder / "runs")
    gone = place.folder / "gone"
    for path in (place.folder / "base.py", *place.folder.glob("baselines/*.py")):
        path.write_text(path.read_text().replace(str(place.store), str(gone / "store")))
    assert place.compare("--out", str(place.folder / "out")) == 0
    assert (place.folder / "out" / "table.csv").read_text() == before


def test_a_run_that_is_finished_but_not_recorded_is_not_trained_again(place, untrainable):
    missing = sorted(place.records.glob("*.jsonl"))[4]
    before = missing.read_text()
    missing.unlink()
    assert place.compare() == 0
    assert missing.read_text() == before


def test_a_signal_ends_it_and_the_same_command_goes_on(place, monkeypatch, capsys):
    before = (place.records / "table.csv").read_text()
    shutil.rmtree(place.folder / "runs")
    lost = sorted(place.records.glob("*.jsonl"))[-2:]
    for path in lost:
        path.unlink()

    def stopped(config, steps):
        return before_step(compiled_with_shared_evaluation(config, steps), 6, send_sigterm)

    with monkeypatch.context() as patch:
        patch.setattr(run, "build_program", stopped)
        assert place.compare() == 128 + 15
    assert "the same command goes on" in capsys.readouterr().err
    assert not any(path.exists() for path in lost)
    assert place.compare() == 0
    assert "resuming after step 6" in capsys.readouterr().err
    names = ["examples_per_second", "wall_seconds"]
    rows = [
        [{k: v for k, v in row.items() if k not in names} for row in csv.DictReader(text.splitlines())]
        for text in (before, (place.records / "table.csv").read_text())
    ]
    assert rows[0] == rows[1]


def test_dry_run_says_what_is_there(place, untrainable, capsys):
    first, second, *_ = sorted(place.records.glob("tiny-seed*.jsonl"))
    first.unlink()
    shutil.rmtree(place.folder / "runs" / "tiny" / second.stem.rpartition("-")[2])
    second.unlink()
    assert place.compare("--dry-run", seeds=4) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert len(lines) == 12
    assert lines["tiny, seed 0"].startswith("finished in ")
    assert lines["tiny, seed 1"] == "missing"
    assert lines["tiny, seed 2"].startswith("recorded in ")
    assert lines["fm_tiny, seed 3"] == "missing"


def test_fewer_seeds_do_not_shrink_the_table(place, untrainable):
    before = (place.records / "table.csv").read_text()
    assert place.compare(seeds=1) == 0
    assert (place.records / "table.csv").read_text() == before


def test_one_seed_has_no_deviation_and_decides_nothing(place, untrainable):
    for path in [*place.records.glob("*-seed1-*"), *place.records.glob("*-seed2-*")]:
        path.unlink()
    assert place.compare("--out", str(place.folder / "one"), seeds=1) == 0
    assert [row["auc_std"] for row in table(place.folder / "one", "table.csv")] == ["", "", ""]
    assert {row["ahead"] for row in table(place.folder / "one", "differences.csv")} == {"-"}
    assert "nan" not in (place.folder / "one" / "table.md").read_text()


def test_a_run_that_diverges_does_not_stop_the_others(place, monkeypatch, capsys):
    lost = [*place.records.glob("slow_tiny-seed1-*"), *place.records.glob("fm_tiny-seed2-*")]
    for path in lost:
        path.unlink()
    shutil.rmtree(place.folder / "runs")

    def build(config, steps):
        program = compiled_with_shared_evaluation(config, steps)
        if config.name != "slow_tiny":
            return program
        return dataclasses.replace(
            program,
            train_step=lambda state, batch: state.replace(step=state.step + 1, loss_sum=state.loss_sum * np.nan),
        )

    monkeypatch.setattr(run, "build_program", build)
    assert place.compare() == 2
    assert "slow_tiny, seed 1: the loss is nan" in capsys.readouterr().err
    assert [row["seeds"] for row in table(place.records, "table.csv")] == ["3", "3", "2"]
    paired = {(row["against"], row["seeds"]) for row in table(place.records, "differences.csv")}
    assert paired == {("fm_tiny", "3"), ("slow_tiny", "2")}


def test_without_a_run_of_the_first_row_nothing_is_compared(place, monkeypatch, capsys):
    before = (place.records / "table.md").read_text()
    for path in place.records.glob("tiny-seed*"):
        path.unlink()
    shutil.rmtree(place.folder / "runs")

    def diverging(config, steps):
        program = compiled_with_shared_evaluation(config, steps)
        return dataclasses.replace(
            program,
            train_step=lambda state, batch: state.replace(step=state.step + 1, loss_sum=state.loss_sum * np.nan),
        )

    monkeypatch.setattr(run, "build_program", diverging)
    assert place.compare() == 2
    shown = capsys.readouterr().err
    assert "tiny, seed 0: the loss is nan" in shown
    assert "tiny: no run of it is recorded" in shown
    assert (place.records / "table.md").read_text() == before


def lose(place, *patterns):
    """Delete these records and all run folders."""
    lost = [path for pattern in patterns for path in place.records.glob(pattern)]
    for path in lost:
        path.unlink()
    shutil.rmtree(place.folder / "runs")
    return lost


def test_a_run_that_another_process_trains_is_left_to_it(place, capsys):
    taken, other = lose(place, "tiny-seed1-*", "fm_tiny-seed2-*")
    busy = place.folder / "runs" / "tiny" / taken.stem.rpartition("-")[2]
    with run.only_process(busy):
        assert place.compare() == 2
    assert f"tiny, seed 1: {busy}: another process is training this run" in capsys.readouterr().err
    assert [row["seeds"] for row in table(place.records, "table.csv")] == ["2", "3", "3"]
    assert other.exists()


def test_a_run_that_needs_too_much_memory_does_not_stop_the_others(place, monkeypatch, capsys):
    _, other = lose(place, "slow_tiny-seed1-*", "fm_tiny-seed2-*")

    def build(config, steps):
        if config.name == "slow_tiny":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return compiled_with_shared_evaluation(config, steps)

    monkeypatch.setattr(run, "build_program", build)
    assert place.compare() == 2
    assert "slow_tiny, seed 1: RESOURCE_EXHAUSTED" in capsys.readouterr().err
    assert other.exists()


def test_a_damaged_run_folder_does_not_stop_the_others(place, capsys):
    taken, other = lose(place, "tiny-seed1-*", "fm_tiny-seed2-*")
    torn = place.folder / "runs" / "tiny" / taken.stem.rpartition("-")[2] / run.RECORD_FILE
    torn.parent.mkdir(parents=True)
    torn.write_text('{"record_version": 1, "na')
    assert place.compare() == 2
    assert f"tiny, seed 1: records {torn}, line 1: not a run record" in capsys.readouterr().err
    assert other.exists()


def test_records_of_other_numerics_are_refused(place, capsys):
    path = next(place.records.glob("*.jsonl"))
    record = json.loads(path.read_text()) | {"numerics_revision": 0}
    path.write_text(json.dumps(record) + "\n")
    assert f"records {path}: numerics revision 0, this version has 1" in refused(place, capsys)
    with pytest.raises(DataError, match="different numerics revisions"):
        rewritten(DOCUMENT.format(first="tiny"), place.folder)


def test_other_data_is_found_before_training_where_the_store_is_made_first(place, monkeypatch, untrainable, capsys):
    lose(place, "tiny-seed1-*")
    for path in place.records.glob("*.jsonl"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"store_digest": "another"}) + "\n")
    away = place.store.rename(place.folder / "away")

    def made(config, console):
        away.rename(place.store)
        return open_store(place.store)

    monkeypatch.setattr(run_data, "obtain_data", made)
    try:
        assert "trained on other data than store" in refused(place, capsys)
    finally:
        if away.exists():
            away.rename(place.store)
    assert not (place.folder / "runs").exists()


def refused(place, capsys, *arguments, **options):
    assert place.compare(*arguments, **options) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "change", "field"),
    [
        ("train", {"epochs": 3}, "train.epochs: 2 -> 3"),
        ("train", {"monitor": "logloss"}, 'train.monitor: "auc" -> "logloss"'),
        ("train", {"eval_every_steps": 3}, "train.eval_every_steps: null -> 3"),
        ("data", {"shuffle": False}, "data.shuffle: true -> false"),
        ("schema", {"group": None}, 'schema.group: "user" -> null'),
    ],
)
def test_another_protocol_is_refused_naming_the_field(place, capsys, part, change, field):
    config = dataclasses.replace(place.base, **{part: dataclasses.replace(getattr(place.base, part), **change)})
    place.write("other_tiny", config)
    message = refused(place, capsys, models=("other",))
    assert "other_tiny is not trained under the protocol of tiny" in message
    assert field in message


def test_batch_size_and_rates_are_the_models_own(place):
    config = dataclasses.replace(place.base, train=dataclasses.replace(place.base.train, batch_size=8, micro_batch=4))
    assert protocol(config) == protocol(place.base)


def test_another_store_is_refused(place, capsys):
    data = dataclasses.replace(place.base.data, store="elsewhere")
    place.write("other_tiny", dataclasses.replace(place.base, data=data))
    assert "other_tiny: data.store is elsewhere, but tiny has" in refused(place, capsys, models=("other",))


def test_other_data_in_the_same_place_is_refused(place, capsys):
    shutil.copytree(place.store, place.folder / "store")
    for path in (place.folder / "base.py", *place.folder.glob("baselines/*.py")):
        path.write_text(path.read_text().replace(str(place.store), str(place.folder / "store")))
    assert place.compare() == 0
    shutil.rmtree(place.folder / "store")
    write_store(place.folder / "store", seed=1)
    assert "trained on other data than store" in refused(place, capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("slo",)}, "did you mean 'slow'? models there: fm, slow"),
        ({"models": ("dnn",)}, "dnn_tiny.py does not exist; models there: fm, slow; or give a path"),
        ({"models": ("nowhere/else.py",)}, "nowhere/else.py does not exist"),
        ({"models": ("slow", "slow")}, "its name 'slow_tiny' is that of another row"),
        ({"seeds": 0}, "--seeds: received 0"),
    ],
)
def test_wrong_options_are_named(place, capsys, options, message):
    assert message in refused(place, capsys, **options)


def test_a_missing_store_is_named(place, capsys):
    path = place.folder / "base.py"
    path.write_text(path.read_text().replace(str(place.store), "no_such_store"))
    shutil.rmtree(place.folder / "runs")
    assert "no_such_store" in refused(place, capsys, "--records", str(place.folder / "new"), models=())


@pytest.mark.parametrize("option", ["--records", "--out"])
def test_a_folder_that_cannot_be_written_is_found_before_training(place, capsys, untrainable, option):
    (place.folder / "file").write_text("")
    assert "file cannot be written" in refused(place, capsys, option, str(place.folder / "file"))
    if option == "--records":
        assert "it is a file" in refused(place, capsys, option, str(place.folder / "file"), "--dry-run")


def test_a_model_that_does_not_fit_is_found_before_training(place, capsys, untrainable):
    place.write("broken_tiny", dataclasses.replace(place.base, tables=TablesConfig(())))
    message = refused(place, capsys, "--records", str(place.folder / "new"), models=("slow", "broken"))
    assert "tables.rules" in message


def test_a_run_recorded_twice_is_refused(place, capsys):
    path = next(place.records.glob("*.jsonl"))
    shutil.copy(path, place.records / "z.jsonl")
    assert "are of one run" in refused(place, capsys)


def test_a_record_of_settings_unknown_here_is_named(place, capsys):
    path = next(place.records.glob("*.jsonl"))
    path.write_text(path.read_text().replace('"batch_size"', '"batchsize"'))
    assert f"records {path}: its settings are none of this version" in refused(place, capsys)


DOCUMENT = """# Results
Mine before.
<!-- records: results; first: {first} -->
old
<!-- end of records -->
Mine after.
"""


def test_the_document_is_made_of_the_records(place):
    text = rewritten(DOCUMENT.format(first="fm_tiny"), place.folder)
    assert text.startswith("# Results\nMine before.\n")
    assert text.endswith("<!-- end of records -->\nMine after.\n")
    assert "old" not in text
    means = {name: np.mean(scores(place, name, "auc")) for name in ("tiny", "fm_tiny", "slow_tiny")}
    order = ["fm_tiny", *sorted(("tiny", "slow_tiny"), key=lambda name: -means[name])]
    lines = [line for line in text.splitlines() if line.startswith(("| Factorization", "| Logistic"))]
    assert [line.split(" | ")[1] for line in lines] == order
    assert all(f"{means[name]:.5f} ±" in line for name, line in zip(order, lines, strict=True))
    assert rewritten(text, place.folder) == text


def test_a_first_row_that_is_not_there_is_named(place):
    with pytest.raises(DataError, match=r"no row named 'dnn'; the records have \['fm_tiny', 'slow_tiny', 'tiny'\]"):
        rewritten(DOCUMENT.format(first="dnn"), place.folder)


def test_records_of_different_data_do_not_stand_in_one_table(place):
    record = place.files()[0] | {"store_digest": "another", "seed": 7}
    record["config"]["train"]["seed"] = 7
    save_record(place.records, record)
    with pytest.raises(DataError, match="are of different data"):
        rewritten(DOCUMENT.format(first="tiny"), place.folder)
