"""python -m wukong_jax sweep: what it trains and records, once, whatever happens to it, and what it refuses."""

import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import write_store
from wukong_jax.cli import main
from wukong_jax.comparison.records import read_folder
from wukong_jax.scaling import sweep_forecast, sweep_runner
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.scaling.memory import Memory
from wukong_jax.scaling.sweep import load_sweep
from wukong_jax.scaling.sweep_forecast import Measured
from wukong_jax.scaling.sweep_plan import step_key
from wukong_jax.scaling.sweep_processes import Worker
from wukong_jax.scaling.sweep_records import read_failures
from wukong_jax.scaling.sweep_timing import Timing
from wukong_jax.training.run import CHECKPOINTS, default_folder, only_process

ROOT = pathlib.Path(__file__).parents[2]
FILE = """
import pathlib
from tests.tiny import plain_config
from wukong_jax.scaling.sweep import Sweep, grid, over_examples, over_seeds, points_of, with_fields

def get_sweep():
    config = plain_config(
        pathlib.Path({store!r}), checkpoint_every_steps=7, log_every_steps=10, eval_every_steps=50, monitor="logloss"
    )
    points = over_seeds(over_examples(points_of("data", {{"Linear": config}}), ({examples},)), (0, 1))
    wild = with_fields(config, {{"optimizer.learning_rate": 1e38, "tables.rules.0.learning_rate": 1e38}})
    return Sweep("tiny", (*points, *grid(points_of("knob", {{"Wild": wild}}), {{"train.max_steps": (20,)}})))
"""
# What a run's result is, besides times.
RESULT = ("results", "history", "steps", "best_step", "config_hash", "store_digest", "series", "study", "varied")


class Workplace:
    """A sweep file with its store, and folders for runs and records."""

    def __init__(self, folder: pathlib.Path, store: pathlib.Path) -> None:
        self.folder, self.store, self.records = folder, store, folder / "records"
        self.file = folder / "sweep.py"
        self.write()

    def write(self, examples: int = 6000, body: str | None = None) -> None:
        text = FILE.format(store=str(self.store), examples=examples)
        self.file.write_text(text if body is None else text.partition("def get_sweep")[0] + body)

    def words(self, *extra: object) -> list[str]:
        folders = ["--runs", self.folder / "runs", "--records", self.records]
        return ["sweep", "--sweep", str(self.file), *map(str, folders), *map(str, extra)]

    def sweep(self, *extra: object) -> int:
        return main(self.words(*extra))

    def start(self, *extra: object) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "-m", "wukong_jax", *self.words(*extra)], subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def configs(self):
        return [point.config for point in load_sweep(self.file).points]

    def run_folder(self, number: int) -> pathlib.Path:
        return default_folder(self.configs()[number], self.folder / "runs" / "sweep" / "tiny")

    def results(self) -> list[dict]:
        records = [json.loads(path.read_text()) for path in sorted(self.records.glob("*.jsonl"))]
        return [{name: record[name] for name in RESULT} for record in records]


@pytest.fixture(scope="module", autouse=True)
def _quick_workers():
    """Workers compile with little optimisation, and keep what they compiled for each other."""
    patch = pytest.MonkeyPatch()
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setattr(sweep_runner, "POLL_SECONDS", 0.02)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two runs that end well and one that diverges, two at a time."""
    folder = tmp_path_factory.mktemp("sweep")
    place = Workplace(folder, write_store(folder / "store", rows={"train": 6400, "valid": 100, "test": 100}).path)
    assert place.sweep("--jobs", 2) == 0
    return place


@pytest.fixture
def place(swept, tmp_path):
    """A copy of the finished sweep that a test may spoil; the store stays where it was."""
    shutil.copytree(swept.records, tmp_path / "records")
    shutil.copytree(swept.folder / "runs", tmp_path / "runs")
    return Workplace(tmp_path, swept.store)


@pytest.fixture
def untrainable(monkeypatch):
    """Starting a worker is an error."""
    monkeypatch.setattr(sweep_runner, "start_worker", lambda *arguments: pytest.fail("a worker was started"))


def fake_worker(monkeypatch, program):
    """Workers run this program instead; returns the tasks that they were given."""
    tasks = []

    def start(task, log, slot, jobs):
        tasks.append(task)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            command = [sys.executable, "-c", program]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        return Worker(process, log)

    monkeypatch.setattr(sweep_runner, "start_worker", start)
    return tasks


def test_each_run_has_one_small_labelled_record(swept):
    runs = read_folder(swept.records)
    assert [run.record["seed"] for run in runs] == [0, 1]
    for run in runs:
        assert run.record["series"] == "Linear"
        assert run.record["study"] == "data"
        assert run.record["varied"] == {"examples": 6000}
        assert run.record["steps"] * run.config.train.batch_size == 6000
        assert 0 < run.record["results"]["test"]["logloss"] < 1
        assert str(swept.folder) not in run.path.read_text()
        assert len(run.path.read_text().splitlines()) == 1


def test_a_diverging_run_is_noted_beside_the_records(swept):
    (run,) = read_failures(swept.records)
    assert run.path.name == f"tiny-seed0-{swept.configs()[2].identity_hash()}.failed.json"
    assert "training diverged" in run.record["failed"]
    assert "results" not in run.record
    assert (run.record["series"], run.record["varied"]) == ("Wild", {"max_steps": 20})
    assert run.record["training_flops_per_example"] == describe_cost(run.config).training_flops
    assert run.config.identity_hash() == swept.configs()[2].identity_hash()
    assert str(swept.folder) not in run.path.read_text()


def test_checkpoints_of_recorded_runs_are_deleted(swept):
    assert [(swept.run_folder(number) / CHECKPOINTS).exists() for number in (0, 1)] == [False, False]


def test_a_second_call_starts_nothing(place, untrainable, capsys):
    before = {path.name: path.read_bytes() for path in place.records.iterdir()}
    assert place.sweep("--jobs", 2) == 0
    assert {path.name: path.read_bytes() for path in place.records.iterdir()} == before
    shown = capsys.readouterr()
    assert "2 of 3 runs recorded" in shown.out
    assert re.search(r"diverged: Wild, max_steps 20, seed 0: .* training diverged", shown.err)


def test_records_alone_suffice(place, untrainable):
    shutil.rmtree(place.folder / "runs")
    assert place.sweep() == 0


def test_new_labels_are_written_into_old_records(place, untrainable):
    place.file.write_text(place.file.read_text().replace('"Linear"', '"LR"').replace('"Wild"', '"Rough"'))
    before = place.results()
    assert place.sweep() == 0
    assert place.results() == [record | {"series": "LR"} for record in before]
    assert [run.record["series"] for run in read_failures(place.records)] == ["Rough"]


def test_a_shard_is_its_part_of_the_list(place, untrainable, capsys):
    found = []
    for part in (1, 2):
        assert place.sweep("--shard", f"{part}/2") == 0
        found.append(capsys.readouterr().out)
    counts = sorted(text.split()[0] + "/" + text.split()[2] for text in found)
    assert counts in (["0/1", "2/2"], ["1/1", "1/2"])


def saved_steps(folder):
    names = [path.name for path in (folder / CHECKPOINTS).glob("*")] if (folder / CHECKPOINTS).is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def wait_until(condition, process):
    while process.poll() is None and not condition():
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_sweep_that_was_stopped_goes_on_and_ends_like_an_undisturbed_one(swept, tmp_path, number):
    place = Workplace(tmp_path, swept.store)
    place.records.mkdir()
    for path in swept.records.glob("*.failed.json"):  # the third run is not what this is about
        shutil.copy(path, place.records)
    first, second = place.run_folder(0), place.run_folder(1)
    process = place.start()
    wait_until(lambda: saved_steps(second) > 0, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), output
    (finished,) = place.records.glob("*.jsonl")  # else the second run was too short to be stopped
    written = finished.stat().st_mtime_ns
    assert place.sweep() == 0
    logs = [(folder / "sweep.log").read_text() for folder in (first, second)]
    assert [log.count("run folder") for log in logs] == [1, 2]
    assert "stopped by SIGTERM after step" in logs[1], "the worker saves when the command is gone"
    assert "resuming after step" in logs[1]
    assert finished.stat().st_mtime_ns == written
    assert place.results() == swept.results()


def test_a_worker_that_dies_fails_alone_and_is_tried_again(place, monkeypatch, capsys):
    for path in place.records.glob("*.jsonl"):
        path.unlink()
    tasks = fake_worker(monkeypatch, "import os; print('at work', flush=True); os.kill(os.getpid(), 9)")
    for _ in range(2):
        assert place.sweep("--jobs", 2) == 2
        shown = capsys.readouterr()
        assert "0 of 3 runs recorded" in shown.out
        for seed in (0, 1):
            assert (
                f"error: Linear, examples 6000, seed {seed}: its process was ended by SIGKILL (out of memory?); last "
                "line: at work" in shown.err
            )
    assert len(tasks) == 4


def test_a_worker_that_refuses_says_why(place, monkeypatch, capsys):
    next(place.records.glob("*.jsonl")).unlink()
    fake_worker(monkeypatch, "import sys; print('error: no such thing'); sys.exit(2)")
    assert place.sweep() == 2
    shown = capsys.readouterr()
    assert "1 of 3 runs recorded" in shown.out
    assert ", seed 0: no such thing (all it said: " in shown.err


def test_a_run_in_other_hands_is_left_to_them(place, untrainable, monkeypatch, capsys):
    monkeypatch.setattr(sweep_runner, "TAKEN_SECONDS", 0.1)
    (path,) = place.records.glob("tiny-seed1-*")
    path.unlink()
    with only_process(place.run_folder(1)):
        assert place.sweep() == 75
    shown = capsys.readouterr()
    assert "taken: Linear, examples 6000, seed 1: " in shown.err
    assert "another process is training this run" in shown.err


def test_what_another_process_records_meanwhile_is_taken_over(place, untrainable, monkeypatch):
    (path,) = place.records.glob("tiny-seed1-*")
    text = path.read_text()
    path.unlink()
    prepare = sweep_runner.prepare_data
    monkeypatch.setattr(sweep_runner, "prepare_data", lambda *given: (prepare(*given), path.write_text(text)))
    assert place.sweep() == 0


def measured(place, **seconds):
    timings = (
        {step_key(config): Timing(0.5, 7.0) for config in place.configs()[:1]} if seconds.get("timed", True) else {}
    )
    return Measured("cpu", "test device", 2**30, timings, ())


def forecast(place, monkeypatch, capsys, *extra, **options):
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(sweep_forecast, "measure_machine", lambda *given: measured(place, **options))
    assert place.sweep("--dry-run", *extra) == 0
    return capsys.readouterr().out


def test_the_dry_run_counts_what_is_left(place, untrainable, monkeypatch, capsys):
    records = sorted(place.records.glob("*.jsonl"))
    records[1].unlink()
    folder = place.run_folder(1)
    (folder / "record.jsonl").unlink()
    shown = forecast(place, monkeypatch, capsys)
    states = [line.split(": ")[0] for line in shown.splitlines() if " MFLOP/example, " in line]
    assert sorted(states) == ["begun, step 0", "diverged", "recorded"]
    assert "3 runs, 1 left to do" in shown
    # 375 steps of 16; validation of 100 rows after 50, 100, ... steps and at the end, then both splits once more
    seconds = 7 + 0.5 * (375 + (100 * 8 + 200) / 16 / 3)
    assert f"{seconds / 60:.0f} min for 1 runs" in shown
    assert "steps of 1 of 1 models timed" in shown
    (folder / CHECKPOINTS / "370").mkdir(parents=True)
    shown = forecast(place, monkeypatch, capsys)
    assert "begun, step 370" in shown
    assert f"{7 + 0.5 * (5 + (100 + 200) / 16 / 3):.0f} s for 1 runs" in shown


def test_the_dry_run_says_what_it_cannot_know(tmp_path, untrainable, monkeypatch, capsys):
    place = Workplace(tmp_path, tmp_path / "no_store")
    body = (
        "def get_sweep():\n    config = plain_config(pathlib.Path('no'))\n"
        "    return Sweep('tiny', over_seeds(points_of('x', {'Linear': config}), (0, 1)))\n"
    )
    place.write(body=body)
    shown = forecast(place, monkeypatch, capsys, timed=False)
    assert "2 runs take a whole split whose store is not made yet" in shown
    assert "time to do: not known for 2 runs: no step was timed" in shown
    assert not place.records.exists()


def test_the_dry_run_says_where_memory_is_short(tmp_path, untrainable, monkeypatch, capsys):
    place = Workplace(tmp_path, tmp_path / "no_store")
    needed = Memory(600 * 2**20, 0, 0, 0, 1)
    monkeypatch.setattr(sweep_forecast, "step_memory", lambda config, cost, platform: needed)
    assert "IT MAY NOT FIT" not in forecast(place, monkeypatch, capsys)
    shown = forecast(place, monkeypatch, capsys, "--jobs", 2)
    assert "600 MiB, 2 at a time 1.2 GiB; this machine has 1.0 GiB: IT MAY NOT FIT" in shown


@pytest.mark.slow
def test_the_dry_run_times_steps_in_workers(swept, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    place = Workplace(swept.folder, swept.store)
    assert place.sweep("--dry-run", "--records", swept.folder / "none", "--calibrate", 100) == 0
    shown = capsys.readouterr().out
    assert "steps of 2 of 2 models timed" in shown
    assert place.sweep("--dry-run", "--records", swept.folder / "none", "--calibrate", 0) == 0
    assert "time to do: not known for 1 runs: no step was timed" in capsys.readouterr().out


def refused(place, capsys, *extra):
    assert place.sweep(*extra) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "3/2"), "--shard: received '3/2', expected I/N"),
        (("--jobs", "0"), "--jobs: received 0"),
        (("--calibrate", "-1"), "--calibrate: received -1"),
        (("--calibrate", "5"), "--calibrate: only a --dry-run times steps"),
        (("--dry-run", "--runs", __file__), "test_sweep.py is a file, expected a folder"),
        (("--dry-run", "--records", __file__), "--records: "),
    ],
)
def test_wrong_options_are_named(place, untrainable, capsys, options, message):
    assert message in refused(place, capsys, *options)


@pytest.mark.parametrize("options", [(), ("--dry-run", "--calibrate", 0)])
def test_more_examples_than_there_are_are_refused(place, untrainable, capsys, options):
    place.write(examples=16_000)
    message = refused(place, capsys, *options)
    assert "Linear, examples 16000, seed 0: train.max_steps 1000 in batches of 16" in message
    assert "6,400 training rows" in message


def test_a_store_that_is_not_there_is_named(tmp_path, untrainable, capsys):
    assert "no_store" in refused(Workplace(tmp_path, tmp_path / "no_store"), capsys)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("store_digest", "other", "trained on other data than store"), ("numerics_revision", -1, "numerics revision -1")],
)
def test_records_that_new_ones_cannot_stand_beside_are_refused(place, untrainable, capsys, key, value, message):
    (path,) = place.records.glob("tiny-seed1-*")
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert message in refused(place, capsys)


def test_a_damaged_note_of_a_failure_is_named(place, untrainable, capsys):
    (path,) = place.records.glob("*.failed.json")
    path.write_text("{}")
    message = refused(place, capsys)
    assert f"{path}: no note of a failed run" in message
    assert "delete it to train the run anew" in message


def test_records_of_other_points_do_no_harm(place, untrainable, monkeypatch, capsys):
    body = place.file.read_text().partition("def get_sweep")[2].replace("(0, 1)", "(1,)")
    place.write(body="def get_sweep" + body)
    assert place.sweep() == 0
    assert "1 of 2 runs recorded" in capsys.readouterr().out
    assert "1 more records there are of no point of this sweep" in forecast(place, monkeypatch, capsys)
