"""train.py from the outside: bad options and bad input end with exit code 2 and a sentence."""

import re
import subprocess
import sys

import pytest

from train import main

CONFIG = """
import pathlib
from tests.tiny import plain_config

def get_config():
    return plain_config(pathlib.Path({store!r}))
"""


@pytest.fixture
def config(tmp_path, tiny_store):
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(store=str(tiny_store)))
    return path


def outcome(capsys, *arguments):
    """Exit code, and everything that was printed, without boxes and line breaks."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as left:
        code = left.code
    captured = capsys.readouterr()
    return code, re.sub(r"[\s│╭╮╰╯─]+", " ", captured.out + captured.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.batchsize", "3"], "--train.batch-size"),
        (["--train.batch-size", "many"], "--train.batch-size"),
        (["--train.batch-size", "0"], "train.batch_size: received 0, expected a number above 0"),
        (["--train.batch-size", "71"], "batch_size: received 71, but split 'train' has only 70 rows"),
        (["--train.monitor", "gauc"], "train.monitor: received 'gauc', expected one of auc, logloss"),
        (["--data.store", "nowhere"], "store nowhere: no such folder"),
        (["--train.task-weights", "1", "2"], "train.task_weights: received 2 weights, expected one for each label"),
        (["--mesh.data", "16"], "mesh: data=16 x model=1 needs 16 devices"),
    ],
)
def test_bad_options(config, tmp_path, capsys, arguments, message):
    code, shown = outcome(capsys, "--config", config, "--run-dir", tmp_path / "run", *arguments)
    assert code == 2
    assert message in shown
    assert not (tmp_path / "run").exists()


def test_a_missing_config_file(tmp_path, capsys):
    code, shown = outcome(capsys, "--config", "configs/no_such.py")
    assert code == 2
    assert "configs/no_such.py does not exist; configs there: " in shown
    assert "configs/movielens_100k.py" in shown


def test_a_folder_that_cannot_be_written(config, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, shown = outcome(capsys, "--config", config, "--run-dir", tmp_path / "file" / "run")
    assert code == 2
    assert "cannot be written" in shown


def test_a_diverging_run(config, tmp_path, capsys):
    arguments = ["--optimizer.name", "sgd", "--optimizer.learning-rate", "1e38", "--train.epochs", "30"]
    code, shown = outcome(capsys, "--config", config, "--run-dir", tmp_path / "run", *arguments)
    assert code == 2
    assert re.search(r"at step \d+: training diverged; lower --optimizer.learning-rate", shown)


def test_an_interruption_outside_the_training_steps(config, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("wukong_jax.training.run.obtain_data", interrupted)
    code, shown = outcome(capsys, "--config", config, "--run-dir", tmp_path / "run")
    assert code == 130
    assert "interrupted; the same command goes on" in shown


def test_a_run_shows_its_scores_and_another_start_shows_them_again(config, tmp_path, capsys, compiled_once):
    first = outcome(capsys, "--config", config, "--run-dir", tmp_path / "run")
    again = outcome(capsys, "--config", config, "--run-dir", tmp_path / "run")
    assert first[0] == again[0] == 0
    for part in ("LogLoss", "AUC", "NE", "calibration", "dense parameters", "training FLOPs/example", "checkpoint"):
        assert part in first[1]
        assert part in again[1]
    assert "nothing to train" in again[1]


def test_the_program_exits_with_the_code(pytestconfig):
    command = [sys.executable, "train.py", "--config", "configs/no_such.py"]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --config")
