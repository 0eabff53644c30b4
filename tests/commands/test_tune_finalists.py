"""tune --seeds: the best trials are trained with more seeds, and the mean of the validation scores chooses."""

import dataclasses
import json

import pytest

from tests.commands.search import Search
from tests.tiny import compiled_with_shared_evaluation
from wukong_jax.config.command_line import load_config_file
from wukong_jax.errors import TrainingError
from wukong_jax.training import run
from wukong_jax.tuning import finalists

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture
def place(tmp_path, tiny_store):
    return Search(tmp_path, tiny_store)


def means_over_seeds(place, seeds):
    """By trial: the mean of the validation AUC over run folders that differ in their seed only."""
    found = {}
    for path in place.runs.glob(f"*/{run.RECORD_FILE}"):
        record = json.loads(path.read_text())
        settings = {**record["config"], "train": {**record["config"]["train"], "seed": 0}}
        found.setdefault(json.dumps(settings), {})[record["seed"]] = record["results"]["valid"]["auc"]
    numbers = {json.dumps({**trial.user_attrs["config"]}): trial.number for trial in place.trials()}
    return {numbers[key]: scores for key, scores in found.items() if len(scores) == seeds}


def test_the_mean_over_seeds_chooses_among_the_best_trials(place, capsys, monkeypatch):
    out = place.folder / "best.py"
    assert place.tune("--seeds", 3, "--finalists", 2, "--out", out, trials=3) == 0
    by_seed = means_over_seeds(place, 3)
    ranked = sorted(place.trials(), key=lambda trial: -trial.value)
    assert by_seed.keys() == {trial.number for trial in ranked[:2]}
    chosen = max(by_seed, key=lambda number: sum(by_seed[number].values()))
    config = load_config_file(out)
    assert config.tables.rules[0].learning_rate == place.trials()[chosen].params["table_rate"]
    assert config.train.seed == 0
    lines = [json.loads(line) for line in (place.folder / "best.trials.jsonl").read_text().splitlines()]
    for number, scores in by_seed.items():
        assert lines[number]["over seeds"] == [scores[seed] for seed in (0, 1, 2)]
    assert sum("over seeds" in line for line in lines) == 2
    shown = capsys.readouterr().out
    assert f"best: trial {chosen}, run folder " in shown
    assert f"mean {sum(by_seed[chosen].values()) / 3:.5f} of " in shown
    monkeypatch.setattr(run, "build_program", lambda *arguments: pytest.fail("a run was trained"))
    assert place.tune("--seeds", 3, "--finalists", 2, trials=3) == 0


def test_a_finalist_that_another_seed_ruins_is_out(place, capsys, monkeypatch):
    def build(config, steps):
        program = compiled_with_shared_evaluation(config, steps)
        if config.train.seed == 0 or config.tables.rules[0].learning_rate != ruined:
            return program
        return dataclasses.replace(program, train_step=lambda state, batch: diverge())

    assert place.tune(trials=2) == 0
    best, other = sorted(place.trials(), key=lambda trial: -trial.value)
    ruined = best.params["table_rate"]
    monkeypatch.setattr(run, "build_program", build)
    capsys.readouterr()
    assert place.tune("--seeds", 2, trials=2) == 0
    shown = capsys.readouterr()
    assert f"trial {best.number} is out: " in shown.err
    assert f"best: trial {other.number}, " in shown.out


def diverge():
    raise TrainingError("the loss is not finite")


def test_the_best_trial_of_one_seed_loses_to_a_better_mean(place, capsys, monkeypatch):
    assert place.tune(trials=2) == 0
    best, other = sorted(place.trials(), key=lambda trial: -trial.value)

    def scored(config, folder, console):
        lucky = config.tables.rules[0].learning_rate == best.params["table_rate"]
        return {"results": {"valid": {"auc": 0.0 if lucky else 1.0}}}

    monkeypatch.setattr(finalists, "train", scored)
    assert place.tune("--seeds", 2, "--out", place.folder / "best.py", trials=2) == 0
    assert f"best: trial {other.number}, " in capsys.readouterr().out.splitlines()[-1]
    chosen = load_config_file(place.folder / "best.py")
    assert chosen.tables.rules[0].learning_rate == other.params["table_rate"]
