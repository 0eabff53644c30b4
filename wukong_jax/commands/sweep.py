"""python -m wukong_jax sweep: train a list of runs, some at a time, one record each."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wukong_jax.config.checks import check_not_negative, check_positive
from wukong_jax.config.command_line import parse
from wukong_jax.errors import ConfigError
from wukong_jax.scaling.sweep import Sweep, load_sweep

if TYPE_CHECKING:
    import rich.console

    from wukong_jax.scaling.sweep_plan import PlannedRun
    from wukong_jax.scaling.sweep_records import Known
    from wukong_jax.scaling.sweep_runner import Places, Status


UNFINISHED = 75
"""EX_TEMPFAIL: other processes have runs in hand; call again later."""


CALIBRATION = 60.0
"""Seconds of timing in a dry run."""


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Train the runs of a sweep file, each in a process of its own, and keep one small record of each.

    A run whose record lies in the records folder is not trained again, nor is one that diverged; a stopped one goes on
    at its last checkpoint. The same command goes on after a kill at any moment.
    """

    sweep: pathlib.Path
    """Python file with get_sweep(), which returns the list of runs; docs/sweeps.md shows the form."""
    jobs: int = 1
    """Runs at a time, each with an equal share of the cores."""
    shard: str | None = None
    """I/N: only the I-th of N parts with about the same FLOPs, for job arrays; parts may share all folders."""
    source: str | None = None
    """Local folder or file with the raw data, as --data.source of train.py."""
    runs: pathlib.Path = pathlib.Path("runs")
    """The run folders lie under <runs>/sweep/<name of the sweep>."""
    records: pathlib.Path | None = None
    """Folder of the records, one small file a run, to be kept; by default results/scaling/<name of the sweep>."""
    keep: bool = False
    """Keep the checkpoints of recorded runs."""
    dry_run: bool = False
    """Only list the runs, with the FLOPs, time and memory that are still needed."""
    calibrate: float | None = None
    """Seconds in which a dry run times training steps, for its estimate of the time; 60 when not given, 0 for none."""


def main(arguments: Sequence[str]) -> int:
    """Train what has no result yet; raises `UserError` where sweep, data or folders do not fit."""
    options = parse(SweepOptions, arguments, "python -m wukong_jax sweep")
    check_positive("--jobs", options.jobs)
    if options.calibrate is not None:
        check_not_negative("--calibrate", options.calibrate)
        if not options.dry_run:
            raise ConfigError("--calibrate: only a --dry-run times steps; add it, or leave --calibrate out")
    for name, folder in (("runs", options.runs), ("records", options.records)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise ConfigError(f"--{name}: {folder} is a file, expected a folder or a name that is free")
    sweep = load_sweep(options.sweep, options.source)
    import jax
    import rich.console

    from wukong_jax.scaling.sweep_plan import parse_shard, plan, shard
    from wukong_jax.scaling.sweep_records import read_known
    from wukong_jax.scaling.sweep_runner import Places

    part = None if options.shard is None else parse_shard(options.shard)
    jax.config.update("jax_platforms", "cpu")  # an accelerator's memory is for the workers
    records = options.records or pathlib.Path("results/scaling") / sweep.name
    places = Places(records, options.runs / "sweep" / sweep.name, options.jobs, options.keep)
    known = read_known(records, sweep)
    runs = plan(sweep)
    runs = runs if part is None else shard(runs, *part)
    if options.dry_run:
        return show_forecast(runs, known, places, CALIBRATION if options.calibrate is None else options.calibrate)
    return train_sweep(sweep, runs, known, places, rich.console.Console(stderr=True))


def show_forecast(runs: "list[PlannedRun]", known: "Known", places: "Places", seconds: float) -> int:
    """Time steps and print what is there and what is missing."""
    from wukong_jax.scaling.sweep_forecast import forecasts, measure_machine, print_forecast

    missing = [run for run in runs if run.identity not in known.records and run.identity not in known.failures]
    measured = measure_machine(missing, places, seconds)
    print_forecast(forecasts(runs, known, places, measured), known, places, measured)
    return 0


def train_sweep(
    sweep: Sweep, runs: "list[PlannedRun]", known: "Known", places: "Places", console: "rich.console.Console"
) -> int:
    """Train the runs and say what has no result.

    Exit code 2 if that is for a failure, UNFINISHED if other processes have runs in hand, 128 + signal when stopped.
    """
    from wukong_jax.comparison.records import check_writable
    from wukong_jax.scaling.sweep_display import make_display
    from wukong_jax.scaling.sweep_records import check_same_data, write_labels
    from wukong_jax.scaling.sweep_runner import Interrupted, prepare_data, run_sweep, statuses_of, tidy

    check_writable(places.records)
    changed = write_labels(known, sweep)
    if changed:
        console.print(f"series, study or varied of {changed} records are now as the sweep file has them")
    statuses = statuses_of(runs, known)
    tidy(statuses, places)
    prepare_data([status.run for status in statuses if status.state == "waiting"], console)
    check_same_data(sweep, known.records)
    display = make_display(console, sweep.name, statuses)
    try:
        run_sweep(statuses, places, display.show)
    except Interrupted as stopped:
        console.print(f"{stopped}; saved: the same command goes on", soft_wrap=True, markup=False)
        return 128 + stopped.number
    finally:
        display.close()
    return summarise(statuses, places)


def summarise(statuses: "list[Status]", places: "Places") -> int:
    """Print how many runs have records, and why others have none; returns the exit code."""
    recorded = sum(status.state == "recorded" for status in statuses)
    print(f"{recorded} of {len(statuses)} runs recorded in {places.records}")
    for status in statuses:
        if status.state != "recorded":
            word = "error: " if status.state == "failed" else f"{status.state}: "
            print(f"{word}{status.run.point}: {status.said}", file=sys.stderr)
    if any(status.state == "failed" for status in statuses):
        return 2
    return UNFINISHED if any(status.state in ("taken", "stopped") for status in statuses) else 0
