"""Who is measured in a cell: their modules, environments, memory, and the strong peer's calibration."""

import dataclasses
import pathlib
import statistics
from typing import Any

from benchmarks.side_by_side.cells import Cell
from benchmarks.side_by_side.mkl_path import variables_of
from benchmarks.side_by_side.processes import Process

OURS, STRONG, NAIVE = "ours", "strong", "naive"
NAIVE_VARIANT: dict[str, Any] = {"naive": True, "form": "paper", "compile": False, "micro_batch": None}
FIRST_VARIANT: dict[str, Any] = {"naive": False, "form": "fused", "compile": True, "micro_batch": None}
QUICK_VARIANT = FIRST_VARIANT | {"compile": False}
MICRO_BATCHES = (512, 1024, 2048)
# Weight, gradient, two moments, and two temporaries of Adam's update.
NAIVE_COPIES = 6
PROCESS_BYTES = 7 * 10**8


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where and how measured processes run."""

    folder: pathlib.Path
    """Batches, weights, caches and logs of the cell at hand."""
    environment: dict[str, str]

    def process(self, peer: str, cache: str = "cache") -> Process:
        """Start a peer with a compilation cache of its kind."""
        variables = dict(self.environment)
        # compiled code is cached by torch here, by jax where `build` says
        variables["TORCHINDUCTOR_CACHE_DIR"] = str(self.folder / cache / "torch")
        variables |= variables_of(peer, variables, self.folder)
        module = "jax_worker" if peer == OURS else "torch_worker"
        return Process(module, variables, self.folder / f"{peer}.log")

    def build(self, process: Process, peer: str, cell: Cell, variant: dict[str, Any]) -> dict[str, Any]:
        """Have a peer build the cell."""
        batches = str(self.folder / "batches.npz")
        if peer == OURS:
            return process.ask("build", cell=cell.to_json(), batches=batches, cache=str(self.folder / "cache" / "jax"))
        return process.ask("build", cell=cell.to_json(), batches=batches, variant=variant)


def calibrate(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The fastest form of the strong peer, one choice after another, and the examples/s of all that were tried."""
    tried: list[dict[str, Any]] = []

    def speed(variant: dict[str, Any]) -> float:
        with bench.process(STRONG, cache="calibration") as process:
            bench.build(process, STRONG, cell, variant)
            process.ask("start")
            rounds = [process.quiet_round(0.4) for _ in range(3)]
        rate = statistics.median(cell.batch * item["steps"] / item["seconds"] for item in rounds)
        tried.append({**variant, "examples_per_s": rate})
        return rate

    best, best_rate = FIRST_VARIANT, speed(FIRST_VARIANT)
    choices: list[tuple[str, tuple[Any, ...]]] = [
        ("micro_batch", tuple(size for size in MICRO_BATCHES if size < cell.batch)),
        ("form", ("paper",)),
        ("compile", (False,)),
    ]
    for name, values in choices:
        candidates = [best | {name: value} for value in values]
        for candidate in candidates:
            rate = speed(candidate)
            if rate > best_rate:
                best, best_rate = candidate, rate
    return {"variant": best, "tried": tried}


def memory_needed(peer: str, cell: Cell, activation_bytes: int, micro_batch: int | None) -> int:
    """A generous estimate of a peer's memory in bytes, to decide who may be resident at one time."""
    width = cell.shape.width
    at_a_time = min(cell.batch, micro_batch or cell.batch)
    kept = activation_bytes * at_a_time // 2  # some are fused away
    if peer == NAIVE and cell.mode == "train":
        return PROCESS_BYTES + 4 * NAIVE_COPIES * width * cell.rows + kept
    row = 4 * 3 * width if cell.optimizer == "adam" else 4 * (width + 2)
    return PROCESS_BYTES + cell.rows * row + kept


def residents(needs: dict[str, int], available: int) -> list[list[str]]:
    """Groups that fit into memory together, each with ours first; a peer that fits with ours in none is left out."""
    groups: list[list[str]] = []
    for peer in [peer for peer in needs if peer != OURS]:
        for group in groups:
            if sum(needs[member] for member in group) + needs[peer] <= available:
                group.append(peer)
                break
        else:
            if needs[OURS] + needs[peer] <= available:
                groups.append([OURS, peer])
    return groups or [[OURS]]
