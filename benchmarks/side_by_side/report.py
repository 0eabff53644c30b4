"""The Markdown section and the plot, from the records of finished cells."""

import collections
import pathlib
import re
import statistics
from typing import Any, NamedTuple

from benchmarks.side_by_side.cells import Cell, in_words
from benchmarks.side_by_side.machine import data_sheet_peak, mkl_note
from benchmarks.side_by_side.mkl_path import OTHER_PATHS, STRONG_AVX2, STRONG_AVX512
from benchmarks.side_by_side.peers import NAIVE, OURS, STRONG
from wukong_jax.files import whole_file, write_text

TITLES = {
    OURS: "ours",
    STRONG: "strong",
    STRONG_AVX2: "strong, AVX2",
    STRONG_AVX512: "strong, AVX-512",
    NAIVE: "naive",
}
Record = dict[str, Any]


class Speed(NamedTuple):
    """Examples per second over the rounds."""

    median: float
    low: float
    high: float


def speeds(record: Record) -> dict[str, Speed]:
    """Speed by peer; ours from the group with the strong peer."""
    found: dict[str, Speed] = {}
    for group in record["groups"]:
        for peer, result in group.items():
            found.setdefault(peer, _speed(record, result))
    return found


def ratios(record: Record) -> dict[str, float]:
    """Ours over each peer, by medians of the rounds that were timed in turn with it."""
    return {
        peer: _speed(record, group[OURS]).median / _speed(record, result).median
        for group in record["groups"]
        for peer, result in group.items()
        if peer != OURS
    }


def peaks(record: Record) -> dict[str, float]:
    """The highest measured product of all peers in the cell's type, and each one's own; GFLOP/s."""
    by_peer = {
        peer: result["peak_gflops"]
        for group in record["groups"][::-1]
        for peer, result in group.items()
        if "peak_gflops" in result
    }
    return {"best": max(by_peer.values()), **by_peer}


def shown(records: list[Record]) -> list[str]:
    """The peers that have a column: all but a path of MKL that was not to be measured."""
    asked = {peer for record in records for group in (*record["groups"], record["left_out"]) for peer in group}
    return [peer for peer in TITLES if peer in asked or peer not in OTHER_PATHS]


def markdown(machine: dict[str, Any], allocator: str, records: list[Record], plot: str | None) -> str:
    """The whole section."""
    parts = [f"## Speed: {_device(machine)}\n", _machine(machine, allocator)]
    for mode, title in (("train", "Training step"), ("infer", "Inference")):
        chosen = [record for record in records if record["cell"]["mode"] == mode]
        if chosen:
            parts += [f"### {title}, examples/s: median of the rounds (lowest to highest)\n", _speed_table(chosen)]
    if plot:
        parts.append(f"![Speed relative to the strong PyTorch Wukong]({plot})\n")
    parts += ["### Memory, compile time, equality\n", _cost_table(records)]
    parts += [_notes(machine, records)]
    return "\n".join(parts)


def write_section(path: pathlib.Path, name: str, section: str) -> None:
    """Put the section between the markers of `name` in a file, at its end where there are none yet."""
    begin, end = f"<!-- speed {name}: begin -->", f"<!-- speed {name}: end -->"
    block = f"{begin}\n{section.rstrip()}\n{end}"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Performance\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    new = pattern.sub(lambda _: block, old) if pattern.search(old) else f"{old.rstrip()}\n\n{block}\n"
    write_text(path, new)


def plot_ratios(path: pathlib.Path, records: list[Record]) -> bool:
    """Bars of every peer's speed relative to the strong one, by cell; False, and no file, without a strong peer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [record for record in records if STRONG in speeds(record)]
    modes = sorted({record["cell"]["mode"] for record in records}, reverse=True)
    if not modes:
        return False
    figure, axes = pyplot.subplots(len(modes), 1, figsize=(11, 3.5 * len(modes)), layout="constrained", squeeze=False)
    for axis, mode in zip(axes[:, 0], modes, strict=True):
        chosen = [record for record in records if record["cell"]["mode"] == mode]
        for place, peer in enumerate(peer for peer in shown(records) if peer != STRONG):
            heights = [_relative(record, peer) for record in chosen]
            positions = [index + 0.27 * (place - 1) for index in range(len(chosen))]
            axis.bar(positions, heights, width=0.25, label=TITLES[peer])
        axis.axhline(1, color="black", linewidth=1)
        axis.set_xticks(range(len(chosen)), [_short(record).replace(" ", "\n") for record in chosen], fontsize=8)
        axis.set_ylabel(f"{mode}: speed, strong = 1")
        axis.legend()
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    pyplot.close(figure)
    return True


def _speed(record: Record, result: dict[str, Any]) -> Speed:
    batch = record["cell"]["batch"]
    rates = [batch * item["steps"] / item["seconds"] for item in result["rounds"]]
    return Speed(statistics.median(rates), min(rates), max(rates))


def _relative(record: Record, peer: str) -> float:
    to_ours = ratios(record)
    if peer == OURS:
        return to_ours[STRONG]
    return to_ours[STRONG] / to_ours[peer] if peer in to_ours else 0.0


def _speed_table(records: list[Record]) -> str:
    columns = shown(records)
    header = ["cell", *(TITLES[peer] for peer in columns), *(f"ours / {TITLES[peer]}" for peer in columns[1:])]
    header += ["GFLOP/s: ours, strong", "share of peak: ours, strong"]
    rows = []
    for record in records:
        found, to_ours, peak = speeds(record), ratios(record), peaks(record)["best"]
        row = [_short(record), *(_spread(found.get(peer)) for peer in columns)]
        row += [f"{to_ours[peer]:.2f}" if peer in to_ours else "-" for peer in columns[1:]]
        rates = [1e-9 * record["flops"] * found[peer].median if peer in found else None for peer in (OURS, STRONG)]
        row.append(", ".join(f"{rate:.0f}" if rate else "-" for rate in rates))
        row.append(", ".join(f"{rate / peak:.0%}" if rate else "-" for rate in rates))
        rows.append(row)
    return _table(header, rows)


def _cost_table(records: list[Record]) -> str:
    columns = shown(records)
    multiplied = [peer for peer in columns if peer != NAIVE]
    header = ["cell", *(f"peak RSS, MiB: {TITLES[peer]}" for peer in columns)]
    header += ["compile, s (cached): ours", "strong"]
    header += [f"GEMM peak, GFLOP/s: {'; '.join(TITLES[peer] for peer in multiplied)}"]
    header += ["largest difference from ours: strong, naive"]
    rows = []
    for record in records:
        results = {peer: result for group in record["groups"][::-1] for peer, result in group.items()}
        row = [f"{_short(record)} {record['cell']['mode']}"]
        row += [_memory(results[peer]) if peer in results else "-" for peer in columns]
        for peer in (OURS, STRONG):
            cold = record["checks"].get(peer, {}).get("cold_compile_s")
            warm = results.get(peer, {}).get("warm_compile_s")  # none where there was no memory to time the peer
            row.append(f"{cold:.1f} ({warm:.1f})" if cold is not None and warm is not None else "-")
        by_peer = peaks(record)
        row.append("; ".join(f"{by_peer[peer]:.0f}" if peer in by_peer else "-" for peer in multiplied))
        row.append(", ".join(_difference(record["checks"].get(peer)) for peer in (STRONG, NAIVE)))
        rows.append(row)
    return _table(header, rows)


def _codes(records: list[Record]) -> str:
    """Which code how many cells were measured with."""
    counts = collections.Counter(record["code"] for record in records)
    return ", ".join(f"{code} ({count} cells)" for code, count in counts.items())


def _notes(machine: dict[str, Any], records: list[Record]) -> str:
    tables = sorted({check["tables"] for record in records for check in record["checks"].values() if "tables" in check})
    variants = {_variant(record["variant"]): [] for record in records if STRONG in record["checks"]}  # type: dict[str, list[str]]
    for record in records:
        if STRONG in record["checks"]:
            variants[_variant(record["variant"])].append(f"{_short(record)} {record['cell']['mode']}")
    disturbed = sum(
        item["others"] > 0.12 for r in records for group in r["groups"] for x in group.values() for item in x["rounds"]
    )
    rounds = sum(len(x["rounds"]) for r in records for group in r["groups"] for x in group.values())
    lines = [
        "- Every implementation runs in a process of its own, rounds in turn, the same threads and allocator; resident "
        "together, or, where memory does not hold all, in groups with ours in each. Losses on the same weights were "
        "compared first (inference: logits); the other path of MKL is the same program and was not.",
        f"- Rounds with more than 12 % of the cores taken by others, after four tries: {disturbed} of {rounds}.",
        "- Share of peak: FLOPs (training 3 x forward) / time / the fastest matrix product of any of them "
        "(4096 x 512 x 512 or 4096^3) in the same processes.",
        "- The strong peer's form is the fastest at the first batch and number of rows of its shape; the other path of "
        "MKL runs in that form too.",
        f"- The step's code, by its digest: {_codes(records)}.",
        f"- Tables of the peers: {'; '.join(tables) or 'none'}.",
        *(f"- Strong peer, {variant}: {', '.join(cells)}." for variant, cells in variants.items()),
        *(
            f"- Does not fit into memory beside ours: {', '.join(record['left_out'])} at {_short(record)}."
            for record in records
            if record["left_out"]
        ),
    ]
    if machine["platform"] == "cpu":
        lines.append(f"- {mkl_note(machine)}")
    elif (peak := data_sheet_peak(machine["device"])) is not None:
        lines += [_mfu(record, peak) for record in records if record["cell"]["dtype"] == "bfloat16"]
    return "\n".join(lines) + "\n"


def _mfu(record: Record, peak: float) -> str:
    achieved = 1e-9 * record["flops"] * speeds(record)[OURS].median
    return (
        f"- MFU in bfloat16 at {_short(record)} {record['cell']['mode']}: {achieved / peak:.1%} of {peak:.0f} GFLOP/s."
    )


def _machine(machine: dict[str, Any], allocator: str) -> str:
    versions = ", ".join(f"{name} {machine[name]}" for name in ("jax", "torch", "fbgemm_gpu") if name in machine)
    return (
        f"{machine['cpu']} ({machine['vendor']}), {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"Python {machine['python']}, {versions}; allocator: {allocator}.\n"
    )


def _device(machine: dict[str, Any]) -> str:
    return str(machine["device"] if machine["platform"] != "cpu" else machine["cpu"].split(",")[0])


def _short(record: Record) -> str:
    cell = Cell(**record["cell"])
    extra = ["lazy Adam"] if cell.optimizer == "adam" else []
    extra += ["bf16"] if cell.dtype == "bfloat16" else []
    return " ".join([f"{cell.shape_name} {cell.batch} {in_words(cell.rows)}", *extra])


def _variant(variant: dict[str, Any]) -> str:
    compiled = "torch.compile" if variant["compile"] else "not compiled"
    pieces = f"micro-batches of {variant['micro_batch']}" if variant["micro_batch"] else "whole batches"
    return f"{variant['form']} projections, {compiled}, {pieces}"


def _spread(speed: Speed | None) -> str:
    return f"{_count(speed.median)} ({_count(speed.low)} to {_count(speed.high)})" if speed else "-"


def _count(rate: float) -> str:
    return f"{rate:,.0f}" if rate < 10_000 else f"{rate / 1000:,.1f}k"


def _memory(result: dict[str, Any]) -> str:
    device = f" + {result['device_peak_mib']:.0f} on the device" if "device_peak_mib" in result else ""
    return f"{result['peak_rss_mib']:.0f}{device}"


def _difference(check: dict[str, Any] | None) -> str:
    if check is None:
        return "-"
    return f"{max(check[name] for name in ('loss', 'loss_after_1_step', 'logits') if name in check):.0e}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
