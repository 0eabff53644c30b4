"""Where a training step's time goes: a profiler trace of the real step, its operations sorted by their origin.

An operation's origin is the name stack that JAX leaves in the compiled program: `transpose(jvp(...))` is the backward
pass, `jvp(...)` the forward pass, and the step's named scopes are the rest. Operations that XLA left without a name
take the latest part among their operands. Each instant goes in equal shares to the operations that run in it, so
that parts, and the time in which nothing runs, add up to the step. Timing parts alone would miss fusion and overlap.
"""

import bisect
import pathlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import jax

# In the order in which data flows through them; a fusion of several counts as the last. `outside` is what is neither
# differentiated nor in a named scope: cutting the batch, adding gradients up.
PARTS = ("outside", "gather", "forward", "backward", "dense_update", "row_update")
SCOPES = ("gather", "dense_update", "row_update")
UNSORTED, IDLE = "unsorted", "idle"
STEPS = 5
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
    for scope in SCOPES:
        if f"/{scope}/" in op_name:
            return scope
    if "transpose(" in op_name:
        return "backward"
    if "jvp(" in op_name:
        return "forward"
    return "outside" if op_name.startswith("jit(") else None


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
        for called in _CALLS.findall(rest):
            candidates |= inside[called]
        candidates -= {None}
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
