"""Trains the runs of a sweep, some at a time, each in a process of its own; what is recorded is never trained again.

Nothing but the files decides what is done: a record, the note of a run that diverged, or a run folder to go on in. So
the command may be killed at any moment, and several of them may share the folders.
"""

import collections
import contextlib
import dataclasses
import pathlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import rich.console

from wukong_jax.comparison.records import record_path
from wukong_jax.config.codec import to_plain
from wukong_jax.data.pipeline import steps_per_epoch
from wukong_jax.data.store import Split
from wukong_jax.errors import BusyError, ConfigError
from wukong_jax.scaling.sweep_plan import PlannedRun
from wukong_jax.scaling.sweep_processes import Worker, start_worker
from wukong_jax.scaling.sweep_records import Known, failure_path
from wukong_jax.scaling.sweep_worker import STOPPED, TAKEN
from wukong_jax.signals import signals_to
from wukong_jax.training.data import data_path, obtain_data
from wukong_jax.training.loop import FALLING
from wukong_jax.training.record import read_records
from wukong_jax.training.run import CHECKPOINTS, check_validation, default_folder, only_process

POLL_SECONDS = 0.2
TAKEN_SECONDS = 20.0
"""How long a run that another process trains is waited for, when nothing else is left to do."""
LOG_FILE = "sweep.log"

State = Literal["waiting", "running", "recorded", "diverged", "failed", "taken", "stopped"]


@dataclasses.dataclass
class Status:
    """How far a run is."""

    run: PlannedRun
    state: State = "waiting"
    logloss: float | None = None
    """Of the test split, else of validation."""
    seconds: float = 0.0
    """Of training and validation by the record; while it runs, since it was started."""
    said: str = ""
    """The last line of its worker, or why it has no result."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the files of a sweep lie, and how many of its runs are trained at a time."""

    records: pathlib.Path
    runs: pathlib.Path
    """Run folders of this sweep, nothing else."""
    jobs: int
    keep: bool
    """Keep the checkpoints of recorded runs."""

    def folder(self, run: PlannedRun) -> pathlib.Path:
        """The run folder."""
        return default_folder(run.config, self.runs)


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived; all workers have saved and ended."""

    def __init__(self, number: int) -> None:
        """Remember which signal."""
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def prepare_data(runs: Sequence[PlannedRun], console: rich.console.Console) -> None:
    """Make or open each store once, before any worker starts; raises `UserError` where a run does not fit its data."""
    stores = {}
    for run in runs:
        config = run.config
        path = data_path(config)
        data = path, config.sequences, config.batch_schema  # rows that share users depend on their length
        try:
            if data not in stores:
                stores[data] = obtain_data(config, console)
            check_validation(config, stores[data])
        except ConfigError as error:
            raise ConfigError(f"{run.point}: {error}") from error
        check_steps(run, stores[data].split("train"), path)


def check_steps(run: PlannedRun, split: Split, path: pathlib.Path) -> None:
    """Raise `ConfigError` where a run is to take more steps than its epochs of the training split have."""
    train, epochs = run.config.train, run.config.epochs
    steps = epochs * steps_per_epoch(split, train.batch_size)
    if (train.max_steps or 1) > steps:
        raise ConfigError(
            f"{run.point}: train.max_steps {train.max_steps} in batches of {train.batch_size}, but train.epochs "
            f"{epochs} of the {split.rows:,} training rows of {path} are {steps} steps; make a larger store, or take "
            "fewer examples"
        )


def statuses_of(runs: Sequence[PlannedRun], known: Known) -> list[Status]:
    """The runs with what their files say."""
    found = []
    for run in runs:
        status = Status(run)
        if run.identity in known.records:
            _take_record(status, known.records[run.identity].record)
        elif run.identity in known.failures:
            status.state, status.said = "diverged", known.failures[run.identity].record["failed"]
        found.append(status)
    return found


def run_sweep(statuses: list[Status], places: Places, show: Callable[[list[Status]], None]) -> None:
    """Train every waiting run; `show` is called several times a second. Raises `Interrupted` after a signal."""
    waiting = collections.deque(status for status in statuses if status.state == "waiting")
    places = dataclasses.replace(places, jobs=max(1, min(places.jobs, len(waiting))))  # no core for a job with no run
    working: dict[int, tuple[Worker, Status, float]] = {}
    only_taken_since: float | None = None
    with _noted_signals() as noted:
        try:
            while (waiting and not noted) or working:
                for slot in set(range(places.jobs)) - set(working) if not noted else ():
                    started = _start_next(waiting, places, slot)
                    if started is not None:
                        working[slot] = started
                if waiting and not working and all(status.state == "taken" for status in waiting):
                    only_taken_since = only_taken_since or time.monotonic()
                    if time.monotonic() - only_taken_since > TAKEN_SECONDS:
                        break
                else:
                    only_taken_since = None
                if noted:
                    for worker, _, _ in working.values():
                        worker.stop()
                time.sleep(POLL_SECONDS)
                for slot, (worker, status, since) in list(working.items()):
                    status.seconds, status.said = time.monotonic() - since, worker.said()
                    if worker.process.poll() is not None:
                        del working[slot]
                        worker.stop()
                        _judge(status, worker, places)
                        if status.state == "taken":
                            waiting.append(status)
                show(statuses)
        finally:  # an error of ours, or a second signal
            for worker, _, _ in working.values():
                worker.kill()
    if noted:
        raise Interrupted(noted[0])


def _start_next(waiting: collections.deque[Status], places: Places, slot: int) -> tuple[Worker, Status, float] | None:
    """Start the first run that nobody else has done or is doing; those in other hands go to the end of the queue."""
    for _ in range(len(waiting)):
        status = waiting.popleft()
        if _look_up(status, places):
            continue
        folder = places.folder(status.run)
        try:
            with only_process(folder):
                pass
        except BusyError as error:
            status.state, status.said = "taken", str(error)
            waiting.append(status)
            continue
        task = {
            "kind": "train",
            "point": to_plain(status.run.point),
            "folder": str(folder),
            "records": str(places.records),
            "keep": places.keep,
        }
        status.state, status.said = "running", ""
        return start_worker(task, folder / LOG_FILE, slot, places.jobs), status, time.monotonic()
    return None


def _judge(status: Status, worker: Worker, places: Places) -> None:
    """What became of a run whose worker ended."""
    code, status.said = worker.process.returncode, worker.said()
    if _look_up(status, places):
        return
    if code in (STOPPED, TAKEN):
        status.state = "stopped" if code == STOPPED else "taken"
        return
    status.state = "failed"
    if code < 0:
        name = signal.Signals(-code).name
        memory = " (out of memory?)" if -code == signal.SIGKILL else ""
        status.said = f"its process was ended by {name}{memory}; last line: {status.said}"
    status.said = f"{status.said.removeprefix('error: ')} (all it said: {worker.log})"


def _look_up(status: Status, places: Places) -> bool:
    """Whether the run has a record, or is noted as diverged, whoever trained it."""
    path = record_path(places.records, status.run.config)
    failure = failure_path(places.records, status.run.config)
    if path.is_file():
        _take_record(status, next(read_records(path)))
    elif failure.is_file():
        status.state = "diverged"
        status.said = status.said.removeprefix("error: ") or f"see {failure}"
    else:
        return False
    return True


def _take_record(status: Status, record: dict[str, Any]) -> None:
    results = record["results"].get("test") or record["results"].get("valid") or {}
    scores = [value for name, value in results.items() if name.partition("/")[0] in FALLING and value is not None]
    status.state, status.seconds, status.said = "recorded", record["wall_seconds"], ""
    status.logloss = sum(scores) / len(scores) if scores else None


def tidy(statuses: Sequence[Status], places: Places) -> None:
    """Delete the checkpoints of recorded runs, unless they are kept: a kill may have come before their worker did."""
    for status in statuses:
        if status.state == "recorded" and not places.keep:
            shutil.rmtree(places.folder(status.run) / CHECKPOINTS, ignore_errors=True)


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Inside the block, SIGTERM and SIGINT are noted in the list; a second one ends the workers at once."""
    noted: list[int] = []

    def note(number: int) -> None:
        noted.append(number)
        if len(noted) > 1:
            raise KeyboardInterrupt

    with signals_to(note):
        yield noted
