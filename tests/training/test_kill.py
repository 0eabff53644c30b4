"""train.py killed at random moments and started again ends with the parameters of a run that was left alone."""

import collections
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import assert_same_state, write_store
from wukong_jax.training.checkpoint import Checkpoints
from wukong_jax.training.program import build_program
from wukong_jax.training.record import read_records
from wukong_jax.training.run import CHECKPOINTS, RECORD_FILE, load_config

CONFIG = """
import pathlib
from tests.tiny import {maker}

def get_config():
    return {maker}(
        pathlib.Path({store!r}), epochs={epochs}, checkpoint_every_steps=7, log_every_steps=10, eval_every_steps=50,
        monitor="logloss", progressive=True,
    )
"""
RUN = 'runpy.run_path("train.py", run_name="__main__")'
ROOT = pathlib.Path(__file__).parents[2]


class Program:
    """Starts train.py on one config."""

    def __init__(self, folder: pathlib.Path, maker: str, epochs: int) -> None:
        store = write_store(folder / "store", rows={"train": 1000, "valid": 100, "test": 100}).path
        self.config = folder / "config.py"
        self.config.write_text(CONFIG.format(maker=maker, store=str(store), epochs=epochs))
        self.environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}

    def start(self, run: pathlib.Path) -> subprocess.Popen[str]:
        command = [sys.executable, "train.py", "--config", str(self.config), "--run-dir", str(run)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, run: pathlib.Path) -> str:
        process = self.start(run)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output


def stop(process, run, number, delay):
    """Send a signal some time after the training began; False if the run ended before."""
    before = saved_steps(run)
    while process.poll() is None and saved_steps(run) <= before:
        time.sleep(0.01)  # starting takes seconds, and nothing happens that a kill could spoil
    time.sleep(delay)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def saved_steps(run):
    names = [path.name for path in (run / CHECKPOINTS).glob("*")] if (run / CHECKPOINTS).is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def last_state(run):
    program = build_program(load_config(run), 1)
    with Checkpoints(run / CHECKPOINTS, read_only=True) as checkpoints:
        return checkpoints.restore(checkpoints.steps()[-1], program.abstract_state())


def assert_same_end(run, undisturbed):
    ended, expected = last_state(run), last_state(undisturbed)
    assert ended.step == expected.step
    assert_same_state(ended.state, expected.state)
    record, reference = (next(read_records(folder / RECORD_FILE)) for folder in (run, undisturbed))
    for name in ("history", "results", "best_step", "steps"):
        assert record[name] == reference[name], name


def test_a_run_stopped_by_signals_and_kills_ends_like_an_undisturbed_one(tmp_path, rng):
    program = Program(tmp_path, "plain_config", epochs=6)
    program.finish(tmp_path / "undisturbed")
    run = tmp_path / "run"
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        code, output = stop(program.start(run), run, number, rng.uniform(0, 0.2))
        assert not (run / RECORD_FILE).exists(), "the run was too short to be stopped"
        if number == signal.SIGKILL:
            assert code == -number
        else:
            assert code == 128 + number, output
            step = re.search(
                rf"stopped by {number.name} after step (\d+); saved in .*: the same command resumes it", output
            )
            assert step, output
            assert saved_steps(run) == int(step[1]), "the step that was just done is saved"
        assert "Traceback" not in output
    output = program.finish(run)
    assert re.search(r"resuming after step \d+", output)
    assert "checkpoint" in output
    assert_same_end(run, tmp_path / "undisturbed")


@pytest.mark.slow
def test_twenty_random_kills(tmp_path, rng):
    """Prints where the kills fell: while starting, between checkpoints, while one was written."""
    program = Program(tmp_path, "tiny_config", epochs=40)
    program.finish(tmp_path / "undisturbed")
    run = tmp_path / "run"
    tally = collections.Counter()
    for number in range(20):
        process = program.start(run)
        if number % 5 == 4:
            time.sleep(rng.uniform(0, 6))
            process.kill()
            process.communicate()
            moment = "while starting or training"
        else:
            stop(process, run, signal.SIGKILL, rng.uniform(0, 0.4))
            writing = list((run / CHECKPOINTS).glob("*tmp*"))
            moment = "while a checkpoint was written" if writing else "between checkpoints"
        if (run / RECORD_FILE).exists():
            break
        tally[moment] += 1
    print(f"\n{sum(tally.values())} kills: {dict(tally)}; last whole checkpoint: step {saved_steps(run)}")
    assert sum(tally.values()) == 20, "the run was too short for 20 kills"
    program.finish(run)
    assert_same_end(run, tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are those of Unix")
def test_a_full_disk_ends_with_an_error_and_the_run_goes_on_later(tmp_path):
    """No file may become larger than 6,000 bytes, so that the first checkpoint cannot be written."""
    program = Program(tmp_path, "plain_config", epochs=1)
    run = tmp_path / "run"
    limited = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)); sys.argv = {{}}; {RUN}"
    )
    arguments = ["train.py", "--config", str(program.config), "--run-dir", str(run)]
    environment = {name: value for name, value in program.environment.items() if not name.startswith("JAX_COMP")}
    command = [sys.executable, "-c", limited.format(arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert re.search(r"error: checkpoint in .* could not be written .*run the same command: it resumes", done.stderr)
    assert "Traceback" not in done.stderr
    assert saved_steps(run) == -1
    program.finish(run)
    assert (run / RECORD_FILE).exists()
