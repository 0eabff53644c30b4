"""One cell: same loss on the same weights first, then rounds in turn, then memory and the peak of the machine."""

import json
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.side_by_side.batches import write_batches
from benchmarks.side_by_side.cells import Cell
from benchmarks.side_by_side.mkl_path import OTHER_PATHS
from benchmarks.side_by_side.peers import (
    NAIVE,
    NAIVE_VARIANT,
    OURS,
    Bench,
    memory_needed,
    residents,
)
from benchmarks.side_by_side.processes import Process, available_bytes
from benchmarks.side_by_side.run_config import cell_cost

# Relative to the loss; logits relative to their root mean square. TF32 and bfloat16 round more.
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-3}
# The largest of 4096 logits, at L after 8 layers in activations of 8 bits: .065. In float32 each cell is held to 1e-4.
LOGIT_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
# After Adam's first update, which divides each gradient by its own size, rounding shows; a rate 1 % off would, too.
# Later losses say little: at L two roundings of our own model are 2e-5 apart after one step, 2e-3 after three.
STEP_TOLERANCE = 1e-4
GPU_TOLERANCE = 5e-3
MEMORY_SHARE = 0.92


class NotEqualError(Exception):
    """A peer does not compute what ours computes, so no time of it is worth anything."""


def measure_cell(
    cell: Cell,
    peers: tuple[str, ...],
    variant: dict[str, Any],
    environment: dict[str, str],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Everything about a cell as plain values; raises `NotEqualError`, `WorkerError`."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="speed-"))
    try:
        bench = Bench(folder, environment)
        write_batches(cell, folder / "batches.npz")
        cost = cell_cost(cell)
        variants = {peer: NAIVE_VARIANT if peer == NAIVE else variant for peer in peers}
        record: dict[str, Any] = {"cell": cell.to_json(), "flops": cost.flops, "variant": variant}
        say(f"{cell.label}: comparing losses")
        record["checks"] = check_equality(bench, cell, variants)
        sizes = {peer: variants[peer]["micro_batch"] for peer in peers} | {OURS: cost.micro_batch}
        needs = {peer: memory_needed(peer, cell, cost.activation_bytes, sizes[peer]) for peer in peers}
        record["groups"] = []
        for group in residents(needs, int(MEMORY_SHARE * available_bytes())):
            say(f"{cell.label}: timing {', '.join(group)}")
            record["groups"].append(time_group(bench, cell, group, variants, rounds, seconds))
        measured = {peer for group in record["groups"] for peer in group}
        record["left_out"] = sorted(set(peers) - measured)
        return record
    finally:
        shutil.rmtree(folder)


def check_equality(bench: Bench, cell: Cell, variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Compile times of first processes (empty caches), and each peer's largest relative difference from ours."""
    weights = str(bench.folder / "weights.npz")
    with bench.process(OURS) as process:
        built = bench.build(process, OURS, cell, variants[OURS])
        process.ask("export", path=weights)
        ours = process.ask("check")
    checks = {OURS: {"cold_compile_s": ours["compile_s"], "init_s": built["init_s"], "platform": built["platform"]}}
    for peer in variants:
        if peer == OURS or peer in OTHER_PATHS:  # the latter are the strong peer with other products
            continue
        with bench.process(peer) as process:
            built = bench.build(process, peer, cell, variants[peer])
            process.ask("load", path=weights)
            theirs = process.ask("check")
        checks[peer] = {
            "cold_compile_s": theirs["compile_s"],
            "tables": built["tables"],
            **compare(ours, theirs, cell, same_updates=built["same_updates"], gpu=built["platform"] != "cpu"),
        }
    return checks


def compare(
    ours: dict[str, Any], theirs: dict[str, Any], cell: Cell, *, same_updates: bool, gpu: bool
) -> dict[str, Any]:
    """Relative differences; raises `NotEqualError` where one is above the tolerance."""
    if cell.mode == "infer":
        scale = math.sqrt(sum(logit**2 for logit in ours["logits"]) / len(ours["logits"]))
        pairs = zip(ours["logits"], theirs["logits"], strict=True)
        differences = {"logits": max(abs(a - b) for a, b in pairs) / scale}
        tolerance = LOGIT_TOLERANCE[cell.dtype]
    else:
        relative = [abs(a - b) / a for a, b in zip(ours["losses"], theirs["losses"], strict=True)]
        differences = {"loss": relative[0]} | ({"loss_after_1_step": relative[1]} if same_updates else {})
        tolerance = TOLERANCE[cell.dtype]
    tolerance = max(tolerance, GPU_TOLERANCE) if gpu else tolerance
    allowed = dict.fromkeys(differences, tolerance)
    if "loss_after_1_step" in allowed:
        allowed["loss_after_1_step"] = max(tolerance, STEP_TOLERANCE)
    # a NaN is not equal either
    if not all(difference <= allowed[name] for name, difference in differences.items()):
        raise NotEqualError(f"{cell.label}: {json.dumps(differences)} apart from ours, allowed {json.dumps(allowed)}")
    return differences


def time_group(
    bench: Bench, cell: Cell, group: list[str], variants: dict[str, dict[str, Any]], rounds: int, seconds: float
) -> dict[str, Any]:
    """Rounds in turn of processes that are resident together, by peer."""
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        results: dict[str, Any] = {}
        for peer in group:
            processes[peer] = stack.enter_context(bench.process(peer))
            bench.build(processes[peer], peer, cell, variants[peer])
            results[peer] = {"warm_compile_s": processes[peer].ask("start")["compile_s"], "rounds": []}
        for _ in range(rounds):
            for peer, process in processes.items():
                results[peer]["rounds"].append(process.quiet_round(seconds))
        for peer, process in processes.items():
            results[peer] |= process.ask("memory")
        for peer in group:
            if peer != NAIVE:
                results[peer] |= processes[peer].ask("peak", dtype=cell.dtype)
        return results
