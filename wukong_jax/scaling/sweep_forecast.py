"""The dry run of a sweep: what is there, what the rest costs in FLOPs, time and memory."""

import dataclasses
import heapq
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from wukong_jax.config.codec import to_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.data.store import Split
from wukong_jax.errors import DataError
from wukong_jax.scaling.memory import step_memory
from wukong_jax.scaling.sweep import examples_of
from wukong_jax.scaling.sweep_display import duration
from wukong_jax.scaling.sweep_plan import PlannedRun, step_key
from wukong_jax.scaling.sweep_processes import machine_memory, start_worker
from wukong_jax.scaling.sweep_records import Known
from wukong_jax.scaling.sweep_runner import POLL_SECONDS, Places, check_steps
from wukong_jax.scaling.sweep_timing import Timing, interpolate, measuring_order
from wukong_jax.training.data import data_path, open_data
from wukong_jax.training.record import read_records
from wukong_jax.training.run import CHECKPOINTS, RECORD_FILE, holds_run

PROGRAM_BYTES = 400 * 2**20
"""About what a worker takes on CPU before it has parameters."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the workers found out about the machine."""

    platform: str
    device: str
    memory: int
    """Bytes: a GPU's, or those that this process may use."""
    timings: dict[str, Timing]
    """By `step_key`."""
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Forecast:
    """One run as the dry run shows it."""

    run: PlannedRun
    state: str
    examples: int | None
    """Of the whole run; None where the split's rows are not known yet."""
    done: int
    """Examples whose training is saved, or all of a run that is recorded or diverged."""
    memory: int
    seconds: float | None
    """Of what is left to do; None where it cannot be told."""

    @property
    def flops_left(self) -> int | None:
        """Training FLOPs of the examples left."""
        return None if self.examples is None else (self.examples - self.done) * self.run.cost.training_flops


def forecasts(runs: Sequence[PlannedRun], known: Known, places: Places, measured: Measured) -> list[Forecast]:
    """Each run with its state, and what is left of it; raises `ConfigError` for more steps than its store has."""
    timings = interpolate(runs, measured.timings)
    stores: dict[tuple[pathlib.Path, SequencesConfig | None, DatasetSchema], Mapping[str, Split]] = {}
    found = []
    for run in runs:
        path = data_path(run.config)
        data = path, run.config.sequences, run.config.batch_schema
        if data not in stores:
            stores[data] = open_data(run.config, path, verify=False).splits if path.exists() else {}
        rows = {name: split.rows for name, split in stores[data].items()}
        examples = examples_of(run.config, rows.get("train"))
        state, done = _state(run, known, places, examples)
        if state == "missing" and stores[data]:
            check_steps(run, stores[data]["train"], path)
        memory = step_memory(run.config, run.cost, measured.platform).total
        seconds = _seconds(run.config, (examples or 0) - done, rows, timings.get(step_key(run.config)))
        over = state.startswith(("recorded", "diverged", "finished"))
        left = 0.0 if over else None if examples is None else seconds
        found.append(Forecast(run, state, examples, done, memory, left))
    return found


def _state(run: PlannedRun, known: Known, places: Places, examples: int | None) -> tuple[str, int]:
    """What there is of the run, and the examples that need no training any more."""
    if run.identity in known.records or run.identity in known.failures:
        return "recorded" if run.identity in known.records else "diverged", examples or 0
    folder = places.folder(run)
    if (folder / RECORD_FILE).is_file():
        record = next(read_records(folder / RECORD_FILE))
        return "finished, not recorded", examples or record["steps"] * run.config.train.batch_size
    if not holds_run(folder):
        return "missing", 0
    saved = [int(path.name) for path in (folder / CHECKPOINTS).glob("*") if path.name.isdecimal()]
    step = max(saved, default=0)
    return f"begun, step {step}", step * run.config.train.batch_size


def _seconds(config: RunConfig, examples: int, rows: dict[str, int], timing: Timing | None) -> float | None:
    """Start, training steps, and evaluations at a third of the training's time an example (forward pass only)."""
    if timing is None:
        return None
    steps = examples // config.train.batch_size
    every = config.train.eval_every_steps or max(rows.get("train", 0) // config.train.batch_size, 1)
    valid, test = rows.get("valid", 0), rows.get("test", 0)
    scored = valid * -(-steps // every) + valid + test
    return timing.start_seconds + timing.step_seconds * (steps + scored / config.train.batch_size / 3)


def makespan(seconds: Sequence[float], jobs: int) -> float:
    """Time until all are done, each taken in turn by the first of `jobs` workers that is free."""
    free = [0.0] * jobs
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def measure_machine(runs: Sequence[PlannedRun], places: Places, seconds: float) -> Measured:
    """Time the steps of the runs' models for at most `seconds`, in as many workers at a time as the sweep will have.

    Raises `DataError` if no worker could start.
    """
    configs = measuring_order(runs)
    shares = [configs[slot :: places.jobs] for slot in range(places.jobs)]
    workers = []
    for slot, share in enumerate(shares):
        if share or slot == 0:
            log = places.runs / f"timing-{slot}.log"
            log.unlink(missing_ok=True)
            task = {"kind": "time", "configs": to_plain(share), "seconds": seconds}
            workers.append(start_worker(task, log, slot, places.jobs))
    end: float | None = None
    try:
        while any(worker.process.poll() is None for worker in workers):
            time.sleep(POLL_SECONDS)
            if end is None and _said(workers[0].log):  # from when it is at work: starting is none of its time
                end = time.monotonic() + seconds
            if end is not None and time.monotonic() > end:
                for worker in workers:
                    worker.stop()
    finally:
        for worker in workers:
            worker.kill()
    lines = [line for worker in workers for line in _said(worker.log)]
    device = next((line for line in lines if "device" in line), None)
    if device is None:
        raise DataError(f"the steps cannot be timed: {workers[0].said()} (all it said: {workers[0].log})")
    timings = {
        line["step_key"]: Timing(line["step_seconds"], line["start_seconds"])
        for line in lines
        if "step_seconds" in line
    }
    problems = tuple(line["error"] for line in lines if "error" in line)
    return Measured(device["platform"], device["device"], device["memory"] or machine_memory(), timings, problems)


def _said(log: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of JSON among those of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def print_forecast(found: Sequence[Forecast], known: Known, places: Places, measured: Measured) -> None:
    """A line a run, and totals of FLOPs, time and memory."""
    for each in found:
        print(shown(each))
    for line in summary(found, known, places, measured):
        print(line)


def shown(each: Forecast) -> str:
    """`missing: ladder, Wukong, budget_mflop 1, seed 0: 0.98 MFLOP/example, 512,000 examples, 40 MiB, 31 s`."""
    run = each.run
    facts = [f"{run.cost.training_flops / 1e6:,.4g} MFLOP/example"]
    facts.append("the whole split" if each.examples is None else f"{each.examples:,} examples")
    facts.append(size(each.memory))
    facts.append("time ?" if each.seconds is None else duration(each.seconds))
    return f"{each.state}: {run.point.study}, {run.point}: {', '.join(facts)}"


def summary(found: Sequence[Forecast], known: Known, places: Places, measured: Measured) -> list[str]:
    """The totals in words."""
    missing = [each for each in found if not each.state.startswith(("recorded", "diverged"))]
    lines = [f"{len(found)} runs, {len(missing)} left to do; records in {places.records}"]
    if known.others:
        lines.append(f"{known.others} more records there are of no point of this sweep")
    flops = [each.flops_left for each in missing if each.flops_left is not None]
    lines.append(f"training FLOPs to do: {sum(flops):.4g}")
    if len(flops) < len(missing):
        lines.append(f"{len(missing) - len(flops)} runs take a whole split whose store is not made yet: not counted")
    seconds = [each.seconds for each in missing if each.seconds is not None]
    models = len({step_key(each.run.config) for each in missing})
    timed = len({step_key(each.run.config) for each in missing} & set(measured.timings))
    if seconds and measured.timings:
        total = makespan(seconds, places.jobs)
        lines.append(
            f"time to do, {places.jobs} at a time on this {measured.device}: {duration(total)} for {len(seconds)} runs "
            f"(steps of {timed} of {models} models timed, the others by FLOP/s between them; evaluations at a third of "
            "the training's time an example; early stops not foreseen)"
        )
    if len(seconds) < len(missing):
        why = "their store is not made yet" if measured.timings else "no step was timed; give more to --calibrate"
        lines.append(f"time to do: not known for {len(missing) - len(seconds)} runs: {why}")
    lines += [f"a step could not be timed: {problem}" for problem in measured.problems]
    largest = sorted((each.memory for each in missing), reverse=True)[: places.jobs]
    if largest:
        fits = sum(largest) <= measured.memory
        lines.append(
            f"memory of a step, at most, without the {size(PROGRAM_BYTES)} of a process itself: {size(largest[0])}, "
            f"{places.jobs} at a time {size(sum(largest))}; this machine has {size(measured.memory)}"
            + ("" if fits else ": IT MAY NOT FIT; take fewer --jobs, a smaller train.micro_batch or smaller models")
        )
    return lines


def size(count: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
