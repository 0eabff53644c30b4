"""Where a training step's time goes: a profiler trace of the real step, its operations sorted by their origin.

    python benchmarks/breakdown.py --cells "S 4096 1M" "M 4096 1M"

An operation's origin is the name stack that JAX leaves in the compiled program: a module or named scope, and whether
the operation was differentiated, `jvp(...)` in the forward and `transpose(jvp(...))` in the backward pass. Operations
that XLA left without a name take the latest part among their operands. Each instant goes in equal shares to the
operations that run in it, so that parts, and the time in which nothing runs, add up to the step. Timing parts alone
would miss fusion and overlap. A Markdown table: milliseconds, forward + backward where there are both.
"""

import argparse
import bisect
import pathlib
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import jax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks.side_by_side.batches import make_batches
from benchmarks.side_by_side.cells import Cell, grid, select
from benchmarks.side_by_side.jax_worker import device_batches
from benchmarks.side_by_side.run_config import make_config
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.process import keep_freed_memory
from wukong_jax.scaling.flops import describe_cost, fm_interactions
from wukong_jax.training.program import build_program

# Which component a name stack is of, the first that matches; in Wukong the layers' own operations are sums and norms.
COMPONENTS = (
    ("embeddings", re.compile(r"/gather/|/embedding_layer/")),
    ("mlp", re.compile(r"/mlp/|/head")),
    ("fm", re.compile(r"/fmb")),
    ("add_norm", re.compile(r"/layer_\d+/")),
)
UPDATES = ("dense_update", "row_update")
PASSES = ("forward", "backward")
OUTSIDE, LOSS, UNSORTED, IDLE = "outside", "loss", "unsorted", "idle"
DIFFERENTIATED = (*(name for name, _ in COMPONENTS), LOSS)
# In the order in which data flows through them; a fusion without a name of its own counts as the last inside it.
PARTS = (OUTSIDE, *(f"{name} {which}" for which in PASSES for name in DIFFERENTIATED), *UPDATES)
STEPS, ROUNDS = 5, 3
# Their events enclose those of the operations inside.
CONTAINERS = ("while", "call", "conditional")

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = .*?\s([a-z][\w\-]*)\((.*)$")
_NAME = re.compile(r'op_name="([^"]*)"')
_CALLS = re.compile(r"(?:calls|to_apply)=%([\w.\-]+)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.\-]+) .*\{$")

Interval = tuple[float, float, str]


def step_breakdown(hlo: str, step: Callable[[], None]) -> dict[str, Any]:
    """Milliseconds by part of `step`, whose compiled program is `hlo`; mean of five steps."""
    parts, containers = sort_operations(hlo)
    step()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                step()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        intervals = [
            (start, end, parts.get(name, UNSORTED))
            for start, end, name in _operations(str(path))
            if name not in containers
        ]
    return {part: 1e-6 * nanoseconds / STEPS for part, nanoseconds in share_out(intervals).items()}


def part_of(op_name: str) -> str | None:
    """The part that a name stack belongs to; None where it says nothing."""
    for scope in UPDATES:
        if f"/{scope}/" in op_name:
            return scope
    component = next((name for name, pattern in COMPONENTS if pattern.search(op_name)), None)
    if component is None and "jvp(" not in op_name:
        return OUTSIDE if op_name.startswith("jit(") else None
    return f"{component or LOSS} {PASSES['transpose(' in op_name]}"


def sort_operations(hlo: str) -> tuple[dict[str, str], set[str]]:
    """The part of each operation of a compiled program, and the names of the operations that contain others."""
    parts: dict[str, str] = {}
    inside: dict[str, set[Any]] = defaultdict(set)
    containers, computation = set(), ""
    for line in hlo.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            computation = header[1]
            continue
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        name, opcode, rest = found.groups()
        if opcode in CONTAINERS:
            containers.add(name)
        if opcode in ("parameter", "constant", "get-tuple-element"):
            continue
        label = _NAME.search(rest)
        candidates: set[Any] = {part_of(label[1])} if label else set()
        candidates -= {None}
        if not candidates:
            candidates = set().union(*(inside[called] for called in _CALLS.findall(rest)))
        if not candidates:
            candidates = {parts[operand] for operand in _OPERAND.findall(rest) if operand in parts}
        if candidates:
            parts[name] = max(candidates, key=PARTS.index)
            inside[computation].add(parts[name])
    return parts, containers


def share_out(intervals: Iterable[Interval]) -> dict[str, float]:
    """Time by part between the first start and the last end, each instant shared equally by what runs in it."""
    intervals = list(intervals)
    totals: dict[str, float] = defaultdict(float)
    edges = sorted({edge for start, end, _ in intervals for edge in (start, end)})
    running: list[list[str]] = [[] for _ in edges]
    for start, end, part in intervals:
        for index in range(bisect.bisect_left(edges, start), bisect.bisect_left(edges, end)):
            running[index].append(part)
    for index in range(len(edges) - 1):
        length, now = edges[index + 1] - edges[index], running[index] or [IDLE]
        for part in now:
            totals[part] += length / len(now)
    return dict(totals)


def _operations(path: str) -> Iterable[tuple[float, float, str]]:
    for plane in jax.profiler.ProfileData.from_file(path).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name is not None and event.duration_ns > 0:
                    yield event.start_ns, event.start_ns + event.duration_ns, str(name)


def measure(cell: Cell) -> dict[str, float]:
    """Milliseconds by part of the cell's training step, the median of three traces."""
    batches = device_batches(make_batches(cell, 4))
    program = build_program(make_config(cell), STEPS * ROUNDS)
    state: Any = program.init()
    compiled: Any = program.train_step
    hlo = compiled.lower(state, batches[0]).compile().as_text() or ""

    def step() -> None:
        nonlocal state
        state = jax.block_until_ready(program.train_step(state, batches[int(state.step) % 4]))

    found = [step_breakdown(hlo, step) for _ in range(ROUNDS)]
    return {part: statistics.median(one.get(part, 0.0) for one in found) for part in (*PARTS, UNSORTED, IDLE)}


def row(cell: Cell, parts: dict[str, float]) -> str:
    """A line of the table."""
    total = sum(parts.values())
    cells = [cell.label, f"{total:.1f}"]
    for name in (OUTSIDE, *DIFFERENTIATED, *UPDATES, UNSORTED, IDLE):
        split = [parts[f"{name} {which}"] for which in PASSES] if name in DIFFERENTIATED else [parts[name]]
        cells.append(f"{' + '.join(f'{one:.1f}' for one in split)} ({sum(split) / total:.0%})")
    cells.append(f"{share_of_mlps(make_config(cell)):.0%}")
    return f"| {' | '.join(cells)} |"


def share_of_mlps(config: RunConfig) -> float:
    """Of the forward FLOPs, those of the MLPs: of the blocks but for their FM, and of the head."""
    flops = describe_cost(config).forward_flops
    assert isinstance(config.model, WukongConfig)
    products = sum(layer.low_rank_flops for layer in fm_interactions(config.model, config.batch_schema))
    blocks = sum(count for path, count in flops.items() if "/fmb" in path or path.startswith("head"))
    return (blocks - products) / sum(flops.values())


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cells", nargs="+", default=[f"{shape} {batch} 1M" for shape in "SML" for batch in (4096, 16384)]
    )
    options = parser.parse_args()
    keep_freed_memory()
    header = ["cell", "step", OUTSIDE, *DIFFERENTIATED, *UPDATES, UNSORTED, IDLE, "FLOPs in MLPs"]
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for cell in select(grid(gpu=False), tuple(f"{cell} train float32 rowwise_adagrad" for cell in options.cells)):
        print(row(cell, measure(cell)), flush=True)


if __name__ == "__main__":
    main()
