"""Two real processes on one machine (gloo): they equal one process, end together, and go on after a death or a stop."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pytest

from tests.tiny import before_step, memory_console, plain_config, printed, send_sigterm, write_store
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.config.run import RunConfig
from wukong_jax.data.store import open_store
from wukong_jax.training import run as run_module
from wukong_jax.training.checkpoint import Checkpoints
from wukong_jax.training.loop import StoppedBySignal
from wukong_jax.training.program import build_program
from wukong_jax.training.record import read_records
from wukong_jax.training.run import CHECKPOINTS, RECORD_FILE, train

pytestmark = pytest.mark.usefixtures("compile_quickly")

ROOT = pathlib.Path(__file__).parents[2]
ROWS = {"train": 300, "valid": 100, "test": 90}
STEPS, BATCH, EVAL_BATCH = 54, 16, 32
SETTINGS = {
    "epochs": 3,
    "eval_batch_size": EVAL_BATCH,
    "eval_every_steps": 27,
    "checkpoint_every_steps": 20,
    "log_every_steps": 5,
    "monitor": "logloss",
}
"""18 steps in each of 3 epochs; saved after steps 20, 27, 40 and 54."""
SURVIVES = 60
"""Seconds within which the other process has to end where one got a signal."""
SHARDED = (PlacementRule("user", "rows"), PlacementRule("item", "dealt_rows"), PlacementRule(".*", "replicated"))
CONFIG_FILE = """
import json, os, signal, sys
from tests.training.test_shard_processes import config_of
from wukong_jax.data.store import Split
from wukong_jax.training.stopping import Stop

TRACE, PROCESS = os.environ["TRACE"], os.environ["PROCESS"]

def note(kind, value):
    with open(f"{TRACE}.{PROCESS}", "a") as file:
        file.write(json.dumps([kind, value]) + "\\n")

def opened(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[1], str) and arguments[1][0] in "wax":
        if not arguments[0].startswith(TRACE):
            note("written", arguments[0])

sys.addaudithook(opened)
take = Split.take

def noted_take(split, rows):
    note(split.name, [rows.start, rows.stop] if isinstance(rows, slice) else rows.tolist())
    return take(split, rows)

Split.take = noted_take
after = Stop.after

def signal_after(stop, step, *, ask):
    number, process, at = map(int, os.environ["SIGNAL"].split())
    if step == at and PROCESS == str(process):
        os.kill(os.getpid(), number)
    return after(stop, step, ask=ask)

if os.environ.get("SIGNAL"):
    Stop.after = signal_after

def get_config():
    return config_of(os.environ["STORE"], 2, os.environ["SHARDED"] == "1")
"""


def config_of(store: str, devices: int, sharded: bool = False) -> RunConfig:
    """The config of all runs here, on a mesh of so many devices."""
    mesh = MeshConfig(data=devices, placements=SHARDED if sharded else MeshConfig().placements)
    return dataclasses.replace(plain_config(pathlib.Path(store), **SETTINGS), mesh=mesh)


class Ended(NamedTuple):
    """A process of a job after its end."""

    code: int
    output: str
    errors: str


Launch = Callable[[int, int], tuple[list[str], dict[str, str]]]
"""Options and environment of a process, from its number and a free port."""


def by_hand(process: int, port: int) -> tuple[list[str], dict[str, str]]:
    """Everything said by options."""
    coordinator = ["--distributed.coordinator", f"localhost:{port}"]
    return [*coordinator, "--distributed.processes", "2", "--distributed.process", str(process)], {}


def by_slurm(process: int, port: int) -> tuple[list[str], dict[str, str]]:
    """Everything said by the variables that Slurm sets."""
    # jax takes a port from the job's number
    job = {"SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    return ["--distributed.coordinator", "auto"], job | {"SLURM_PROCID": str(process), "SLURM_LOCALID": str(process)}


class Job:
    """Starts train.py in two processes."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.store = str(write_store(folder / "store", rows=ROWS).path)
        (folder / "config.py").write_text(CONFIG_FILE)
        own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT), "STORE": self.store}
        own["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # most of the time goes into compiling
        self.environment = os.environ | own

    def run(
        self, run: pathlib.Path, *options: str, sharded: bool = False, signalled: str = "", launch: Launch = by_hand
    ) -> list[Ended]:
        """Both processes to their ends; `signalled` is a signal's number, a process, and the step after which."""
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        processes = []
        for process in (0, 1):
            distributed, launched = launch(process, port)
            command = [sys.executable, "train.py", "--config", str(self.folder / "config.py"), "--run-dir", str(run)]
            own = {"PROCESS": str(process), "TRACE": f"{run}.trace", "SIGNAL": signalled, "SHARDED": str(int(sharded))}
            processes.append(
                subprocess.Popen(
                    [*command, *distributed, *options],
                    cwd=ROOT,
                    env=self.environment | own | launched,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        try:
            outputs: dict[int, tuple[str, str]] = {}
            order = [int(signalled.split()[1]), 1 - int(signalled.split()[1])] if signalled else [0, 1]
            if signalled.startswith(f"{int(signal.SIGSTOP)} "):  # it ends only when it is killed
                outputs[order[1]] = processes[order[1]].communicate(timeout=180)
                processes[order[0]].kill()
            for process, wait in zip(order, (180, SURVIVES if signalled else 180), strict=True):
                if process not in outputs:
                    outputs[process] = processes[process].communicate(timeout=wait)
        finally:
            for started in processes:
                started.kill()
        return [Ended(processes[process].returncode, *outputs[process]) for process in (0, 1)]

    def trace(self, run: pathlib.Path, process: int) -> list[list]:
        """What a process noted: ["written", path], [split, rows] or [split, [start, stop]]."""
        return [json.loads(line) for line in pathlib.Path(f"{run}.trace.{process}").read_text().splitlines()]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return Job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def undisturbed(job):
    """A run of two processes, its tables split between them: the folder and what the processes printed."""
    folder = job.folder / "undisturbed"
    ended = job.run(folder, sharded=True)
    assert [process.code for process in ended] == [0, 0], ended
    return folder, ended


@pytest.fixture(scope="module")
def one_device(job):
    """The record of a single process with one device."""
    return train(config_of(job.store, 1), job.folder / "one_device", memory_console())


def record_of(folder):
    return next(read_records(folder / RECORD_FILE))


def curve_of(record):
    """All figures of a run's history, and its results, but for what only tables that are split have."""
    points = [*record["history"], *({"split": name, **scores} for name, scores in record["results"].items())]
    left_out = ("split", "rows_in_further_rounds")
    return [{name: value for name, value in point.items() if name not in left_out} for point in points]


def assert_close(record, expected, tolerance):
    assert record["best_step"] == expected["best_step"]
    assert record["steps"] == expected["steps"] == STEPS
    for found, wanted in zip(curve_of(record), curve_of(expected), strict=True):
        assert found == pytest.approx(wanted, rel=tolerance, abs=tolerance)


def without_times(record):
    varying = ("examples_per_second", "wall_seconds", "checkpoint")
    return {name: value for name, value in record.items() if name not in varying}


def states_of(folder):
    """Every leaf of the last checkpoint, as one process with two devices reads it."""
    program = build_program(run_module.load_config(folder), 1)
    with Checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        last = checkpoints.steps()[-1]
        return last, checkpoints.restore(last, program.abstract_state()).state


def test_two_processes_equal_one_with_two_devices_and_one_device(job, undisturbed, one_device):
    folder, _ = undisturbed
    two_devices = train(config_of(job.store, 2, sharded=True), job.folder / "two_devices", memory_console())
    found = record_of(folder)
    assert_close(found, two_devices, 1e-6)
    assert_close(found, one_device, 1e-5)
    _, state = states_of(folder)
    assert {name.rpartition("adagrad")[2] for name in state.tables} == {"", "_rows", "_dealt_rows"}


def test_only_process_0_prints_and_writes(job, undisturbed):
    folder, (first, second) = undisturbed
    assert f"{STEPS} steps of {BATCH} examples" in first.output
    assert "LogLoss" in first.output
    assert first.errors == second.errors == second.output == ""
    written = [
        {path for kind, path in job.trace(folder, process) if kind == "written" and path.startswith(str(folder))}
        for process in (0, 1)
    ]
    outside = [{path for path in paths if CHECKPOINTS not in path} for paths in written]
    assert {pathlib.Path(path).name.partition(".")[0] for path in outside[0]} >= {"config", "record", "curves"}
    assert not outside[1]
    assert not [path for path in written[1] if path.endswith("sha256.json")]


def test_each_process_reads_its_slice_of_every_batch(job, undisturbed):
    folder, _ = undisturbed
    split = open_store(pathlib.Path(job.store)).split("train")
    per_epoch, part = ROWS["train"] // BATCH, BATCH // 2
    for process in (0, 1):
        noted = job.trace(folder, process)
        expected = []
        for step in range(STEPS):
            epoch, place = divmod(step, per_epoch)
            start = place * BATCH + process * part
            rows = split.training_rows(start, start + part, batch_size=BATCH, seed=0, epoch=epoch)
            expected.append(rows.tolist())
        trained = [rows for name, rows in noted if name == "train" and len(rows) == part]
        assert sorted(trained) == sorted(expected)
        half = EVAL_BATCH // 2
        for name, rows in (("valid", ROWS["valid"]), ("test", ROWS["test"])):
            starts = {tuple(found) for kind, found in noted if kind == name}
            assert starts == {(s + process * half, s + (process + 1) * half) for s in range(0, rows, EVAL_BATCH)}


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_job_and_a_restart_resumes_it(job, undisturbed, victim):
    run = job.folder / f"killed{victim}"
    ended = job.run(run, sharded=True, signalled=f"{int(signal.SIGKILL)} {victim} 45")
    survivor = ended[1 - victim]
    assert ended[victim].code == -signal.SIGKILL
    assert survivor.code not in (0, 2)
    assert survivor.errors.count("error: process") == 1
    assert "another process is gone" in survivor.errors
    assert "start all processes again with the same command" in survivor.errors
    assert not (run / RECORD_FILE).exists()

    again = job.run(run, sharded=True)
    assert [process.code for process in again] == [0, 0], again
    assert "resuming after step" in again[0].output
    assert without_times(record_of(run)) == without_times(record_of(undisturbed[0]))
    (step, state), (last, expected) = states_of(run), states_of(undisturbed[0])
    assert step == last == STEPS
    assert len(jax.tree.leaves(expected)) > 10
    jax.tree.map(np.testing.assert_array_equal, state, expected)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_hangs_ends_the_job_after_the_heartbeats_timeout(job, victim):
    """Stopped, it keeps its connections open: nothing but the missing heartbeat tells the other."""
    options = ("--distributed.heartbeat-timeout", "10")
    ended = job.run(job.folder / f"hung{victim}", *options, signalled=f"{int(signal.SIGSTOP)} {victim} 30")
    survivor = ended[1 - victim]
    assert ended[victim].code == -signal.SIGKILL, "it was still there when the other had ended"
    assert survivor.code not in (0, 2)
    assert "another process is gone" in survivor.errors


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_other_numbers_of_processes_go_on_even_after_damage(
    job, one_device, monkeypatch
):
    run, console = job.folder / "stopped", memory_console()
    stopped = job.run(run, sharded=True, signalled=f"{int(signal.SIGTERM)} 1 22")
    assert [process.code for process in stopped] == [128 + signal.SIGTERM] * 2, stopped
    assert "stopped by SIGTERM after step" in stopped[0].output
    assert "the same command resumes it" in stopped[0].output
    assert stopped[1].output == stopped[0].errors == stopped[1].errors == ""

    stopping = lambda config, steps: before_step(build_program(config, steps), 35, send_sigterm)  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "build_program", stopping)
        with pytest.raises(StoppedBySignal):
            train(config_of(job.store, 1), run, console)
    assert "resuming after step 2" in printed(console)  # 22 to 27, in another layout of the tables

    damaged = max((run / CHECKPOINTS / "35" / "state").rglob("*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    ended = job.run(run, sharded=True)
    assert [process.code for process in ended] == [0, 0], ended
    assert "35 is damaged" in ended[0].output
    assert "resuming after step 27" in ended[0].output
    assert ended[1].output == ended[1].errors == ""
    assert (run / f"{CHECKPOINTS}.damaged" / "35").is_dir()
    assert_close(record_of(run), one_device, 1e-5)


def test_bad_data_at_process_0_end_both_with_its_message(job):
    run = job.folder / "no_data"
    ended = job.run(run, "--data.store", str(job.folder / "nowhere"))
    assert [process.code for process in ended] == [2, 2]
    assert ended[0].errors.startswith("error: store")
    assert ended[1].errors == ended[1].output == ""
    assert not run.exists()


@pytest.mark.slow
def test_a_mesh_without_devices_of_every_process_is_refused(job):
    ended = job.run(job.folder / "refused", "--mesh.data", "1")
    assert [process.code for process in ended] == [2, 2]
    assert "mesh: 1 x 1 uses 1 of the 2 devices of 2 processes" in ended[0].errors
    assert ended[1].errors == ""


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--train.seed", "--run-dir"])
def test_other_settings_or_another_folder_for_another_process_are_refused(job, option):
    def with_its_own(process, port):
        options, environment = by_hand(process, port)
        value = str(job.folder / f"refused{process}") if option == "--run-dir" else str(process)
        return [*options, option, value], environment

    ended = job.run(job.folder / "refused", launch=with_its_own)
    assert [process.code for process in ended] == [2, 2]
    assert "process 1: this process was given other settings, or another run folder, than process 0" in ended[0].errors


@pytest.mark.slow
def test_another_number_of_processes_than_process_0_was_given_is_refused(job):
    def with_its_own(process, port):
        options, environment = by_hand(process, port)
        options[options.index("--distributed.processes") + 1] = str(2 + process)
        return options, environment

    run = job.folder / "miscounted"
    ended = job.run(run, launch=with_its_own)
    assert [process.code for process in ended] == [2, 2]
    assert "process 1: distributed.processes: received 3, but process 0 was given 2; start all" in ended[0].errors
    assert not run.exists()


@pytest.mark.slow
def test_slurm_says_who_is_who(job, undisturbed):
    run = job.folder / "slurm"
    ended = job.run(run, sharded=True, launch=by_slurm)
    assert [process.code for process in ended] == [0, 0], ended
    assert without_times(record_of(run)) == without_times(record_of(undisturbed[0]))
