"""The command line of benchmarks/speed.py: cells to measure, results kept, report written."""

import argparse
import importlib.util
import json
import pathlib
import sys
import tempfile
from typing import Any

from benchmarks.side_by_side.allocator import allocator_name, environment
from benchmarks.side_by_side.cells import Cell, grid, select
from benchmarks.side_by_side.machine import describe_machine, slug
from benchmarks.side_by_side.measure import NotEqualError, measure_cell
from benchmarks.side_by_side.mkl_path import other_path
from benchmarks.side_by_side.peers import NAIVE, OURS, QUICK_VARIANT, STRONG, Bench, calibrate
from benchmarks.side_by_side.processes import WorkerError
from benchmarks.side_by_side.report import markdown, plot_ratios, write_section
from benchmarks.side_by_side.source import step_digest
from wukong_jax.errors import ConfigError, UserError
from wukong_jax.files import write_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICK = "S 4096 1M train rowwise_adagrad float32"


def main(description: str) -> int:
    """Run; 1 where a peer is not equal to ours or a process failed, 2 for a wrong option."""
    options = parse(description)
    try:
        run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except (NotEqualError, WorkerError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parse(description: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", action="append", default=[], help='words of the cells to run, such as "M 16384 1M"')
    parser.add_argument("--all", action="store_true", help="every cell (hours on two cores; can be stopped)")
    parser.add_argument(
        "--quick", action="store_true", help="short rounds, strong peer neither compiled nor calibrated, nothing kept"
    )
    parser.add_argument(
        "--allocator",
        default="glibc_tuned",
        help="of all: glibc_tuned, a library to preload, or default (ours tunes it)",
    )
    parser.add_argument("--rounds", type=int, help="rounds per implementation, 5 unless given")
    parser.add_argument("--seconds", type=float, help="length of a round, 0.5 unless given")
    parser.add_argument("--fresh", action="store_true", help="measure cells again that have results")
    parser.add_argument(
        "--write", type=pathlib.Path, help="Markdown file that gets the section, such as docs/performance.md"
    )
    parser.add_argument(
        "--results", type=pathlib.Path, default=ROOT / "results" / "speed", help="folder of the records"
    )
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    """Measure what is selected and not finished yet, print the section of everything finished; raises `ConfigError`."""
    quick = options.quick or not (options.cells or options.all)
    check_options(options, quick=quick)
    variables = environment(options.allocator, ROOT)
    peers = available_peers()
    with tempfile.TemporaryDirectory() as folder:
        machine = describe_machine(Bench(pathlib.Path(folder), variables), peers)
    cells = grid(gpu=machine["platform"] == "gpu")
    selections = () if options.all else tuple(options.cells) or (QUICK,)
    chosen = select(cells, selections)
    if not chosen:
        labels = "\n".join(cell.label for cell in cells)
        raise ConfigError(f"--cells: received {options.cells}, which selects none of\n{labels}")
    if STRONG in peers and machine["platform"] == "cpu" and (other := other_path(machine["vendor"])):
        peers = (OURS, STRONG, other, NAIVE)
    name = slug(machine, allocator_name(options.allocator))
    path = options.results / f"{name}.json"
    kept = {"machine": machine, "calibration": {}, "cells": {}} if quick else load(path, machine)
    for cell in chosen:
        if cell.label in kept["cells"] and not options.fresh:
            continue
        own = (OURS,) if cell.ours_only else peers
        variant = (
            QUICK_VARIANT if quick or STRONG not in own else calibrated(kept, cell, variables, fresh=options.fresh)
        )
        rounds, seconds = (2, 0.2) if quick else (options.rounds or 5, options.seconds or 0.5)
        found = measure_cell(cell, own, variant, variables, rounds, seconds, say)
        kept["cells"][cell.label] = found | {"code": step_digest(ROOT)}
        if not quick:
            write_text(path, json.dumps(kept, indent=1))
    report(options, kept, cells, name, quick=quick)


def check_options(options: argparse.Namespace, *, quick: bool) -> None:
    """Raise `ConfigError` for options that would do nothing."""
    if options.cells and options.all:
        raise ConfigError(f"--cells: received {options.cells} and --all, which is all of them; leave one out")
    for name in ("write", "rounds", "seconds", "fresh"):
        value = getattr(options, name)
        if quick and value:
            raise ConfigError(
                f"--{name}: received {value}, but a quick run is short and keeps nothing; name cells with --cells, or "
                "give --all, without --quick"
            )
        if name in ("rounds", "seconds") and value is not None and value <= 0:
            raise ConfigError(f"--{name}: received {value}, expected more than 0")


def available_peers() -> tuple[str, ...]:
    """Ours, and the PyTorch peers where torch is installed."""
    if importlib.util.find_spec("torch"):
        return (OURS, STRONG, NAIVE)
    say("torch is not installed, so ours is measured alone: pip install '.[experiments]', and for the peer's fastest")
    say("tables pip install --no-deps fbgemm-gpu-cpu")
    return (OURS,)


def load(path: pathlib.Path, machine: dict[str, Any]) -> dict[str, Any]:
    """Records of this machine with these versions; others are left aside, as they would not compare."""
    empty: dict[str, Any] = {"machine": machine, "calibration": {}, "cells": {}}
    if not path.exists():
        return empty
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if kept["machine"] == machine:
        return kept
    changed = {key for key in machine | kept["machine"] if machine.get(key) != kept["machine"].get(key)}
    say(f"{path} was measured with another {', '.join(sorted(changed))}: starting anew")
    return empty


def calibrated(kept: dict[str, Any], cell: Cell, variables: dict[str, str], *, fresh: bool) -> dict[str, Any]:
    """The strong peer's best form at this shape, pass and type; measured once, at the first batch and rows."""
    from benchmarks.side_by_side.batches import write_batches

    key = f"{cell.shape_name} {cell.mode} {cell.dtype}"
    if key not in kept["calibration"] or fresh:
        say(f"{key}: calibrating the strong peer")
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(pathlib.Path(folder), variables)
            write_batches(cell, bench.folder / "batches.npz")
            kept["calibration"][key] = calibrate(bench, cell)
    variant: dict[str, Any] = kept["calibration"][key]["variant"]
    return variant


def report(options: argparse.Namespace, kept: dict[str, Any], cells: list[Cell], name: str, *, quick: bool) -> None:
    """Print the section; with --write put it and the plot in their places."""
    records = [kept["cells"][cell.label] for cell in cells if cell.label in kept["cells"]]
    plot = None
    if options.write and not quick:
        picture = f"speed-{name}.png"
        plot = picture if plot_ratios(options.write.parent / picture, records) else None
    section = markdown(kept["machine"], allocator_name(options.allocator), records, plot)
    print(section)
    if options.write and not quick:
        write_section(options.write, name, section)


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
