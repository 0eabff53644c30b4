"""What the figures are from: processor or card, its peak, versions."""

import os
import pathlib
import platform
import re
from typing import Any

from benchmarks.side_by_side.peers import OURS, STRONG, Bench

# Dense bf16 TFLOP/s of the tensor cores by a part of the device's name (makers' data sheets, without sparsity).
GPU_PEAKS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L40S": 362, "L4": 121, "B200": 2250}


def describe_machine(bench: Bench, peers: tuple[str, ...]) -> dict[str, Any]:
    """Processor, cores, and the versions that the workers report."""
    with bench.process(OURS) as process:
        versions = process.ask("versions")
    if STRONG in peers:
        with bench.process(STRONG) as process:
            versions |= process.ask("versions")
    return {
        **describe_processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        **versions,
    }


def describe_processor() -> dict[str, str]:
    """Vendor and kind of the processor."""
    fields = dict(
        re.findall(r"^(vendor_id|model name|cpu family|model)\s*: (.*)$", _read("/proc/cpuinfo").split("\n\n")[0], re.M)
    )
    name = fields.get("model name", platform.machine())
    return {
        "vendor": fields.get("vendor_id", "unknown"),
        "cpu": f"{name}, family {fields.get('cpu family')}, model {fields.get('model')}",
    }


def slug(machine: dict[str, Any], allocator: str) -> str:
    """A file name of the machine and the allocator."""
    name = machine.get("device") if machine.get("platform", "cpu") != "cpu" else machine["cpu"]
    words = re.sub(r"\((?:R|TM)\)|family|model|,", "", str(name))
    return "-".join(re.findall(r"[a-z0-9.]+", f"{words} {machine['cores']} cores {allocator}".lower()))


def mkl_note(machine: dict[str, Any]) -> str:
    """Which code path stock PyTorch's float32 products take on this processor."""
    if machine["vendor"] == "GenuineIntel":
        return (
            "On this Intel processor PyTorch's MKL runs its AVX-512 path. On AMD it takes its AVX2 path: the column "
            "`strong, AVX2` (MKL_ENABLE_INSTRUCTIONS=AVX2) shows what a stock PyTorch user gets there."
        )
    return (
        "On AMD PyTorch's MKL takes its AVX2 path, with and without MKL_ENABLE_INSTRUCTIONS: that is `strong`, what a "
        "stock PyTorch user gets. `strong, AVX-512` is the same with a preloaded library that answers MKL's question "
        "for an Intel processor (`int mkl_serv_intel_cpu_true(void) { return 1; }`)."
    )


def data_sheet_peak(device: str) -> float | None:
    """GFLOP/s in bfloat16 of a known card, or None."""
    return next((1e3 * peak for name, peak in GPU_PEAKS.items() if name in device), None)


def _read(path: str) -> str:
    return pathlib.Path(path).read_text()
