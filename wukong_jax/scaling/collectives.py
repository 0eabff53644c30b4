"""Collectives of a program, read from its HLO: what each device sends, and what links take for it.

    find_collectives(jax.jit(f).lower(x).compile().as_text())

has what XLA made of the program, with the partitioner's own collectives; `lower(x).as_text("hlo")` has what the program
itself asks for. XLA's CPU compiler widens bfloat16 collectives to float32, so there only the second shows them.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from wukong_jax.errors import DataError

Kind = Literal["all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OTHER_KINDS = ("ragged-all-to-all", "collective-broadcast")  # refused rather than left out of a count

COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) (?:\(.*\) -> .*)?\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?[\w.\-]+ = (?P<type>.+?) (?P<kind>[a-z][a-z\-]*)\((?P<rest>.*)")
ARRAY = re.compile(r"\b(?P<dtype>pred|token|bf16|[a-z]+\d+\w*)\[(?P<shape>[\d,]*)\]")
ROLES = "to_apply|calls|called_computations|body|condition|branch_computations|true_computation|false_computation"
CALLED = re.compile(rf"\b(?P<role>{ROLES})=(?:\{{(?P<several>[^{{}}]*)\}}|(?P<one>%?[\w.\-]+))")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class ArrayType(NamedTuple):
    """Type and shape of an array, as HLO writes them."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        bits = {"pred": "8", "token": "0"}.get(self.dtype) or re.findall(r"\d+", self.dtype)[0]
        return -(-math.prod(self.shape) * int(bits) // 8)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective, as each device of its group runs it."""

    kind: Kind
    arrays: tuple[ArrayType, ...]
    """Its results on a device; an all-to-all may have one for each device of the group."""
    group: int
    """Devices that take part together."""
    times: int | None
    """How often a run of the program comes to it; None where the data decide (in a while loop, in a branch)."""
    scope: str
    """Where it comes from, by JAX's names of scopes and operations; empty where the text has none."""

    @property
    def result_bytes(self) -> int:
        """Bytes of the results on a device."""
        return sum(array.bytes for array in self.arrays)

    @property
    def whole_bytes(self) -> int:
        """Bytes of the larger of what goes in and what comes out, on a device."""
        return self.result_bytes * (self.group if self.kind == "reduce-scatter" else 1)

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device sends each time, along rings or straight to each other device.

        For g devices and results of R bytes: all-reduce 2 (g - 1)/g R, all-gather and all-to-all (g - 1)/g R,
        reduce-scatter (g - 1) R, collective-permute R.
        """
        share = (self.group - 1) / self.group
        factors = {"all-reduce": 2 * share, "reduce-scatter": self.group - 1.0, "collective-permute": 1.0}
        return factors.get(self.kind, share) * self.result_bytes


def find_collectives(hlo: str) -> tuple[Collective, ...]:
    """All collectives that a program can come to, loops' and branches' once; raises `DataError` for a form unknown."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    entry = None
    for line in hlo.splitlines():
        if (head := COMPUTATION.match(line)) is not None:
            lines = computations.setdefault(head["name"], [])
            entry = head["name"] if head["entry"] else entry
        else:
            lines.append(line)
    if entry is None:
        raise DataError("no ENTRY computation in the text; expected HLO, as of `lowered.compile().as_text()`")
    devices = math.prod(int(count) for count in re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", hlo[:4096]))
    return tuple(_visit(computations, entry, 1, devices))


def largest_collective(collectives: Iterable[Collective], kinds: Iterable[Kind] = KINDS) -> Collective | None:
    """The one of most `whole_bytes` among some kinds; None where there is none of them."""
    wanted = set(kinds)
    found = (collective for collective in collectives if collective.kind in wanted)
    return max(found, key=lambda collective: collective.whole_bytes, default=None)


def _visit(computations: dict[str, list[str]], name: str, times: int | None, devices: int) -> Iterator[Collective]:
    """The collectives of a computation and of those that it calls."""
    if name not in computations:
        raise DataError(f"the text calls {name!r}, but has no such computation; expected the HLO of a whole module")
    for line in computations[name]:
        instruction = INSTRUCTION.match(line)
        if instruction is None or instruction["kind"].endswith(("-update", "-done")):  # counted at their start
            continue
        if (found := _collective(instruction, times, devices)) is not None:
            yield found
        trips = TRIPS.search(line)
        for called in CALLED.finditer(instruction["rest"].partition(", metadata=")[0]):
            inner = times
            if called["role"] in ("body", "condition"):
                inner = times * int(trips[1]) if trips is not None and times is not None else None
            elif "computation" in called["role"] and called["role"] != "called_computations":
                inner = None
            for other in (called["several"] or called["one"]).split(","):
                yield from _visit(computations, other.strip().lstrip("%"), inner, devices)


def _collective(instruction: re.Match[str], times: int | None, devices: int) -> Collective | None:
    name, rest = instruction["kind"], instruction["rest"]
    if name.removesuffix("-start") in OTHER_KINDS:
        raise DataError(f"the collective {name} is not counted yet; its line: {instruction[0].strip()[:200]}")
    kind = next((kind for kind in KINDS if kind == name.removesuffix("-start")), None)
    if kind is None:
        return None
    arrays = [
        ArrayType(found["dtype"], tuple(int(size) for size in found["shape"].split(",") if size))
        for found in ARRAY.finditer(instruction["type"])
    ]
    operands = _operands(rest)
    if name.endswith("-start") and len(arrays) > operands:  # operands, results, and what the runtime keeps
        arrays = arrays[operands : 2 * operands]
    scope = re.search(r'op_name="([^"]*)"', rest)
    return Collective(kind, tuple(arrays), _group(rest, devices), times, scope[1] if scope is not None else "")


def _operands(rest: str) -> int:
    """Operands before the parenthesis that ends them."""
    depth, commas = 0, 0
    for character in rest:
        if character == ")" and depth == 0:
            break
        depth += (character in "([{") - (character in ")]}")
        commas += character == "," and depth == 0
    return commas + 1


def _group(rest: str, devices: int) -> int:
    """Devices of a group, of any of HLO's four ways to write groups; of a permutation its devices in all."""
    if (pairs := re.search(r"source_target_pairs=\{([\d,{}]*)\}", rest)) is not None:
        return len(set(re.findall(r"\d+", pairs[1])))
    if (listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest)) is not None:
        return len(listed[1].split(","))
    if (iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest)) is not None:
        return int(iota[1])
    if (mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\([^{]*\))? \{([^}]*)\}", rest)) is not None:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else sizes[name] for name, part in axes)
    if re.search(r"replica_groups=\{\}", rest) is not None and devices > 1:
        return devices
    raise DataError(f"replica groups in a form that is not known: ...{rest[:200]}")


@dataclasses.dataclass(frozen=True)
class Hardware:
    """A device and its links, each way and per device: bytes, bytes/s, seconds."""

    name: str
    memory: float
    memory_bandwidth: float
    link: float
    """Between the devices of a host."""
    network: float
    """Between hosts."""
    host_devices: int
    latency: float = 2e-5
    """Of a collective, and `latency_per_device` for each device in it: assumed, not of a data sheet."""
    latency_per_device: float = 5e-7

    def ring_seconds(self, sent: float, devices: int) -> float:
        """All-gather, reduce-scatter, all-reduce: `sent` by each device along rings that use all ports of a host."""
        across = sent / (self.network * self.host_devices) if devices > self.host_devices else 0.0
        return self._start(devices) + max(sent / self.link, across)

    def exchange_seconds(self, sent: float, devices: int) -> float:
        """All-to-all: `sent` by each device in equal parts to all others, of which few are in its own host."""
        outside = max(devices - self.host_devices, 0) / max(devices - 1, 1)
        return self._start(devices) + max(sent * (1 - outside) / self.link, sent * outside / self.network)

    def _start(self, devices: int) -> float:
        return self.latency + self.latency_per_device * devices


PRESETS = {
    # NVIDIA's data sheets: H100 SXM, H200 SXM (NVLink: 900 GB/s in both directions), A100 80 GB SXM; as in DGX systems
    # a port of 400 Gb/s (A100: 200) for each GPU. cpu: a guess for processes that share a machine of any memory.
    "h100": Hardware("h100", 80e9, 3.35e12, 450e9, 50e9, 8),
    "h200": Hardware("h200", 141e9, 4.8e12, 450e9, 50e9, 8),
    "a100": Hardware("a100", 80e9, 2.04e12, 300e9, 25e9, 8),
    "cpu": Hardware("cpu", math.inf, 2e10, 4e9, 1e9, 64, 5e-5, 1e-5),
}
