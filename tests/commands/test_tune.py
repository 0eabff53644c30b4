"""python -m wukong_jax tune: resuming, pruning, failing trials, and what it refuses."""

import dataclasses
import json
import math
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import optuna
import pytest

from tests.commands.search import Search, crash, interrupt
from tests.tiny import compiled_with_shared_evaluation, plain_config, send_sigterm, write_store
from wukong_jax.config.command_line import load_config_file
from wukong_jax.training import run
from wukong_jax.tuning import study as tuning

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture
def place(tmp_path, tiny_store):
    return Search(tmp_path, tiny_store)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, tiny_store, quick_runs):
    """Four trials, left alone."""
    place = Search(tmp_path_factory.mktemp("tune"), tiny_store)
    assert place.tune("--out", place.folder / "best.py", trials=4) == 0
    return place


def states(place):
    return [trial.state.name for trial in place.trials()]


def test_validation_chooses_and_scores_are_those_of_the_runs(searched):
    trials = searched.trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert len({trial.params["table_rate"] for trial in trials}) == 4
    for trial in trials:
        record = json.loads((searched.runs / trial.user_attrs["run"] / run.RECORD_FILE).read_text())
        assert trial.value == record["results"]["valid"]["auc"]
        points = [point["auc"] for point in record["history"] if point["split"] == "valid"]
        assert list(trial.intermediate_values.values()) == points
        assert record["config"]["train"]["batch_size"] == trial.params["batch"]
        assert record["config"]["tables"]["rules"][0]["learning_rate"] == trial.params["table_rate"]


def test_only_the_best_trial_keeps_its_checkpoints(searched):
    best = max(searched.trials(), key=lambda trial: trial.value)
    assert searched.with_checkpoints() == {best.user_attrs["run"]}


def test_the_best_settings_are_a_config_file(searched):
    best = max(searched.trials(), key=lambda trial: trial.value)
    config = load_config_file(searched.folder / "best.py")
    assert config.name == "best"
    rules = (dataclasses.replace(searched.base.tables.rules[0], learning_rate=best.params["table_rate"]),)
    assert config == dataclasses.replace(
        searched.base,
        name="best",
        train=dataclasses.replace(searched.base.train, batch_size=best.params["batch"]),
        tables=dataclasses.replace(searched.base.tables, rules=rules),
    )


def test_all_trials_are_listed_beside_it(searched):
    lines = [json.loads(line) for line in (searched.folder / "best.trials.jsonl").read_text().splitlines()]
    trials = searched.trials()
    assert [line["trial"] for line in lines] == [0, 1, 2, 3]
    assert [line["parameters"] for line in lines] == [trial.params for trial in trials]
    assert [line["validation AUC"] for line in lines] == [trial.value for trial in trials]
    assert str(searched.folder) not in (searched.folder / "best.trials.jsonl").read_text()


def test_the_table_has_the_best_first(searched, capsys, monkeypatch):
    monkeypatch.setattr(run, "build_program", lambda *arguments: pytest.fail("a run was trained"))
    assert searched.tune(trials=4) == 0
    shown = capsys.readouterr().out
    best = max(searched.trials(), key=lambda trial: trial.value)
    places = [shown.index(f"{trial.value:.5f}") for trial in sorted(searched.trials(), key=lambda t: -t.value)]
    assert places == sorted(places)
    assert f"best: trial {best.number}, run folder {searched.runs / best.user_attrs['run']}" in shown


@pytest.mark.parametrize(
    ("act", "at"),
    [
        pytest.param(crash, 1, marks=pytest.mark.slow),
        (send_sigterm, 6),
        (crash, 11),
        pytest.param(send_sigterm, 14, marks=pytest.mark.slow),
    ],
)
def test_a_search_stopped_at_any_step_goes_on_as_if_it_had_not_been(searched, place, monkeypatch, capsys, act, at):
    with monkeypatch.context() as patch:
        interrupt(patch, act, at)
        if act is crash:
            with pytest.raises(RuntimeError, match="power cut"):
                place.tune(trials=4)
        else:
            assert place.tune(trials=4) == 128 + 15
            assert "the same command goes on" in capsys.readouterr().err
    assert states(place)[-1] == "RUNNING"
    assert place.tune(trials=4) == 0
    assert place.facts() == searched.facts()
    assert place.with_checkpoints() == searched.with_checkpoints()


def test_more_trials_go_on_from_those_that_are_there(searched, place):
    for trials in (1, 2, 4):
        assert place.tune(trials=trials) == 0
        assert len(place.trials()) == trials
    assert place.facts() == searched.facts()


@pytest.mark.slow
def test_another_seed_proposes_other_settings(searched, place):
    assert place.tune("--seed", 1, trials=1) == 0
    assert place.trials()[0].params != searched.trials()[0].params


@pytest.fixture
def fully_pruned(monkeypatch):
    """A pruner that ends every trial but the first at the first evaluation it is asked about."""

    class Pruner(optuna.pruners.BasePruner):
        def __init__(self, startup: int = 0, n_warmup_steps: int = 0, n_min_trials: int = 1) -> None:
            self.warmup = n_warmup_steps

        def prune(self, study, trial):
            return trial.number > 0 and trial.last_step is not None and trial.last_step >= self.warmup

    monkeypatch.setattr(optuna.pruners, "MedianPruner", Pruner)


def count_steps(monkeypatch):
    taken = []
    interrupt(monkeypatch, lambda: None, 0)
    build = run.build_program

    def counted(config, steps):
        program = build(config, steps)

        def train_step(state, batch):
            taken.append(config.identity_hash())
            return program.train_step(state, batch)

        return dataclasses.replace(program, train_step=train_step)

    monkeypatch.setattr(run, "build_program", counted)
    return taken


@pytest.mark.parametrize(("after", "epochs"), [(0, 1), (1, 2)])
def test_pruning_stops_the_run_and_deletes_it(place, monkeypatch, fully_pruned, after, epochs):
    place.write_config(dataclasses.replace(place.base, train=dataclasses.replace(place.base.train, epochs=4)))
    taken = count_steps(monkeypatch)
    assert place.tune("--prune-after", after, trials=2) == 0
    first, second = place.trials()
    assert (first.state.name, second.state.name) == ("COMPLETE", "PRUNED")
    assert len(second.intermediate_values) == epochs
    assert taken.count(second.user_attrs["run"]) == epochs * (70 // second.params["batch"])
    assert not (place.runs / second.user_attrs["run"]).exists()


def test_pruning_can_be_turned_off_and_all_can_be_kept(place, fully_pruned):
    assert place.tune("--no-prune", "--keep", trials=2) == 0
    assert states(place) == ["COMPLETE"] * 2
    assert place.with_checkpoints() == {trial.user_attrs["run"] for trial in place.trials()}


def test_the_median_of_complete_trials_prunes(place, monkeypatch):
    monkeypatch.setattr(tuning, "TRIALS_BEFORE_PRUNING", 2)
    place.write_space(
        extra="rate = 0.5 if trial.number < 2 else 1e-6; rules = tuple("
        "dataclasses.replace(rule, learning_rate=rate, l2=1e-6 * trial.number) for rule in config.tables.rules)",
    )
    assert place.tune("--prune-after", 0, trials=3) == 0
    assert states(place) == ["COMPLETE", "COMPLETE", "PRUNED"]


def test_a_median_of_fewer_trials_than_that_prunes_nothing(place, monkeypatch):
    """Evaluations that only long trials reach may have a single one to compare with."""
    monkeypatch.setattr(tuning, "TRIALS_BEFORE_PRUNING", 2)
    place.write_config(dataclasses.replace(place.base, train=dataclasses.replace(place.base.train, epochs=3)))
    place.write_space(
        extra="rate = 1e-6 if trial.number == 2 else 0.5; rules = tuple("
        "dataclasses.replace(rule, learning_rate=rate, l2=1e-6 * trial.number) for rule in config.tables.rules)\n"
        "    schedule = dataclasses.replace(config.optimizer.schedule, decay='cosine', epochs=2)\n"
        "    if trial.number == 1: config = dataclasses.replace("
        "config, optimizer=dataclasses.replace(config.optimizer, schedule=schedule))",
    )
    assert place.tune("--prune-after", 2, trials=3) == 0
    assert [len(trial.intermediate_values) for trial in place.trials()] == [3, 2, 3]
    assert place.trials()[2].intermediate_values[2] < place.trials()[0].intermediate_values[2]
    assert states(place) == ["COMPLETE"] * 3


def test_the_same_settings_are_not_trained_twice(place, monkeypatch):
    place.write_space(extra="rules, train = config.tables.rules, config.train")
    taken = count_steps(monkeypatch)
    assert place.tune(trials=3) == 0
    assert len(taken) == 8
    trials = place.trials()
    assert len({trial.value for trial in trials}) == 1
    assert trials[2].user_attrs["reason"] == "the same settings as trial 0"
    assert len(place.with_checkpoints()) == 1


FAULTS = {
    "config": ('if trial.number == 1: raise ConfigError("model.width: too wide")', "model.width: too wide"),
    "batch": ("if trial.number == 1: train = dataclasses.replace(train, batch_size=71)", "has only 70 rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_settings_that_cannot_run_fail_their_trial_only(place, capsys, fault):
    extra, reason = FAULTS[fault]
    place.write_space(extra)
    assert place.tune("--out", place.folder / "best.py", trials=3) == 0
    assert states(place) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert reason in place.trials()[1].user_attrs["reason"]
    assert reason in capsys.readouterr().err
    failed = json.loads((place.folder / "best.trials.jsonl").read_text().splitlines()[1])
    assert (failed["state"], failed["validation AUC"]) == ("fail", None)
    assert reason in failed["reason"]


@pytest.mark.parametrize("fault", ["diverges", "out of memory"])
def test_a_run_that_cannot_go_on_fails_its_trial_only(place, monkeypatch, fault):
    def build(config, steps):
        program = compiled_with_shared_evaluation(config, steps)
        if len(place.trials()) != 2:
            return program

        def train_step(state, batch):
            if fault == "out of memory":
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
            return state.replace(step=state.step + 1, loss_sum=jnp.full_like(state.loss_sum, math.nan))

        return dataclasses.replace(program, train_step=train_step)

    monkeypatch.setattr(run, "build_program", build)
    assert place.tune(trials=3) == 0
    assert states(place) == ["COMPLETE", "FAIL", "COMPLETE"]
    failed = place.trials()[1]
    assert ("diverged" if fault == "diverges" else "RESOURCE_EXHAUSTED") in failed.user_attrs["reason"]
    assert not (place.runs / failed.user_attrs["run"]).exists()


def test_a_trial_that_kills_its_process_again_and_again_fails(place, monkeypatch):
    def killed():
        raise SystemExit(137)

    for deaths in range(1, 4):
        with monkeypatch.context() as patch:
            interrupt(patch, killed, 1)
            with pytest.raises(SystemExit):
                place.tune(trials=2)
        assert states(place) == ["RUNNING"]
        assert len(place.trials()[0].user_attrs["deaths"]) == deaths
    assert place.tune(trials=2) == 0
    assert states(place) == ["FAIL", "COMPLETE"]
    assert "was killed 3 times after evaluation 0" in place.trials()[0].user_attrs["reason"]


def test_stopping_a_trial_by_a_signal_is_no_death(place, monkeypatch):
    for _ in range(4):
        with monkeypatch.context() as patch:
            interrupt(patch, send_sigterm, 1)
            assert place.tune(trials=1) == 128 + 15
    assert place.tune(trials=1) == 0
    assert states(place) == ["COMPLETE"]


def test_deaths_count_from_the_last_evaluation_on(place, monkeypatch):
    monkeypatch.setattr(tuning, "MAX_DEATHS", 2)
    place.write_space(extra="train = dataclasses.replace(train, batch_size=16)")  # 4 steps an epoch

    def killed():
        raise SystemExit(137)

    for step in (1, 6, 1):
        with monkeypatch.context() as patch:
            interrupt(patch, killed, step)
            with pytest.raises(SystemExit):
                place.tune(trials=1)
    assert place.tune(trials=1) == 0
    assert states(place) == ["COMPLETE"]


def test_a_file_that_is_not_of_this_study_is_not_overwritten(place, capsys):
    mine = place.folder / "mine.py"
    mine.write_text("x = 1\n")
    assert place.tune("--out", mine) == 2
    assert f"--out: {mine} is there and not of the study tiny-space" in capsys.readouterr().err
    assert mine.read_text() == "x = 1\n"
    assert not place.storage.exists()


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_output_that_is_no_text_file_is_refused(place, capsys, content):
    out = place.folder / "out.py"
    if content is None:
        out.mkdir()
    else:
        out.write_bytes(content)
    assert place.tune("--out", out) == 2
    assert f"--out: {out} is there and not of the study" in capsys.readouterr().err


def test_no_complete_trial_means_no_best_config(place, capsys):
    place.write_space('raise ConfigError("never")')
    assert place.tune("--out", place.folder / "best.py", trials=2) == 2
    assert "no trial came to its end" in capsys.readouterr().err
    assert not (place.folder / "best.py").exists()
    assert len((place.folder / "best.trials.jsonl").read_text().splitlines()) == 2


def test_the_starting_points_of_a_space_come_first(place):
    place.write_space(more='\ndef starts(config):\n    return [{"table_rate": 0.25, "batch": 8}]\n')
    assert place.tune(trials=2) == 0
    first, second = place.trials()
    assert first.params == {"table_rate": 0.25, "batch": 8}
    assert second.params != first.params


def test_logloss_as_monitor_is_maximised_as_its_negative(place, capsys):
    train = dataclasses.replace(place.base.train, monitor="logloss")
    place.write_config(dataclasses.replace(place.base, train=train))
    assert place.tune(trials=1) == 0
    [trial] = place.trials()
    record = json.loads((place.runs / trial.user_attrs["run"] / run.RECORD_FILE).read_text())
    assert trial.value == -record["results"]["valid"]["logloss"]
    assert "LogLoss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("1 / 0", "line 11: ZeroDivisionError"),
        ("return None", "returned NoneType, expected RunConfig"),
        ("train = dataclasses.replace(train, epochs=9)", "train.epochs: 2 -> 9"),
        ("train = dataclasses.replace(train, seed=9)", "train.seed: 0 -> 9"),
    ],
)
def test_a_faulty_space_ends_the_search_and_can_be_mended(place, capsys, extra, message):
    place.write_space(extra)
    assert place.tune(trials=1) == 2
    shown = capsys.readouterr().err
    assert "--space" in shown
    assert message in shown
    place.write_space()
    assert place.tune(trials=1) == 0
    assert states(place) == ["COMPLETE"]


def test_a_file_without_suggest_is_no_space(place, capsys):
    (place.folder / "space.py").write_text("x = 1\n")
    assert place.tune() == 2
    assert "defines no suggest(); see configs/spaces/wukong_small.py for the form" in capsys.readouterr().err
    (place.folder / "space.py").unlink()
    assert place.tune() == 2
    assert "--space: " in capsys.readouterr().err


def test_another_config_in_the_same_study_is_refused(searched, capsys, tmp_path):
    other = Search(tmp_path, pathlib.Path(searched.base.data.store))
    other.write_config(dataclasses.replace(searched.base, train=dataclasses.replace(searched.base.train, epochs=3)))
    shutil.copy(searched.storage, other.storage)
    assert other.tune() == 2
    shown = capsys.readouterr().err
    assert "train.epochs: 2 -> 3" in shown
    assert "another --study" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "--trials: received 0"),
        (["--prune-after", "-1"], "--prune-after: received -1"),
        (["--seeds", "0"], "--seeds: received 0"),
        (["--finalists", "0"], "--finalists: received 0"),
        (["--seed", "-1"], "--seed: received -1"),
        (["--study", "a/b"], "--study: received 'a/b'"),
        (["--out", "best.json"], "--out: received best.json, expected a name that ends in .py"),
    ],
)
def test_wrong_options_are_named(place, capsys, options, message):
    assert place.tune(*options) == 2
    assert message in capsys.readouterr().err


def test_a_missing_store_is_found_before_the_first_trial(place, capsys):
    place.write_config(dataclasses.replace(place.base, data=dataclasses.replace(place.base.data, store="nowhere")))
    assert place.tune() == 2
    assert "nowhere" in capsys.readouterr().err
    assert not place.storage.exists()


def test_a_store_without_validation_is_refused(place, capsys):
    store = write_store(place.folder / "store", rows={"train": 70, "test": 30}).path
    place.write_config(plain_config(store))
    assert place.tune() == 2
    assert "no rows in the split 'valid'" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["folder in the way", "no database"])
def test_a_storage_that_cannot_be_used_is_named(place, capsys, fault):
    if fault == "no database":
        place.storage.write_text("not a database, but long enough to be looked at as one" * 10)
    else:
        place.storage.mkdir()
    assert place.tune() == 2
    assert f"--storage {place.storage} cannot be used" in capsys.readouterr().err


def test_two_processes_do_not_work_on_one_study(place, capsys):
    with run.only_process(place.runs):
        assert place.tune() == 2
    assert "another process is tuning this study" in capsys.readouterr().err


def test_two_processes_do_not_work_on_one_study_from_two_run_folders(place, capsys):
    with run.only_process(place.storage.with_name(".tune.db.tiny-space")):
        assert place.tune() == 2
    assert "another process is tuning this study" in capsys.readouterr().err


def test_without_optuna_the_message_names_the_extra(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert place.tune() == 2
    assert 'pip install -e ".[tune]"' in capsys.readouterr().err
