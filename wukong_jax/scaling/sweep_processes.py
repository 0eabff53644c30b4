"""Worker processes: starting them with a share of the cores, asking them to stop, reading what they last said."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import wukong_jax

MEMORY_SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"
TAIL_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Worker:
    """A process that does one task; see `sweep_worker`."""

    process: subprocess.Popen[bytes]
    log: pathlib.Path
    """All that it prints."""

    def stop(self) -> None:
        """Ask it to save and end."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        self.stop()

    def said(self) -> str:
        """The last line that it printed."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""


def start_worker(task: dict[str, Any], log: pathlib.Path, slot: int, jobs: int) -> Worker:
    """Start a worker on a task, with the cores of one of `jobs` slots; its output is added to the log."""
    root = str(pathlib.Path(wukong_jax.__file__).parents[1])
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    if jobs > 1:  # on a GPU each would take three quarters of the memory for itself
        environment.setdefault(MEMORY_SHARE, f"{0.9 / jobs:.3f}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "wukong_jax.scaling.sweep_worker"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died already: its exit code tells
        process.stdin.write(json.dumps(task | {"cores": cores_of(slot, jobs)}).encode() + b"\n")
        process.stdin.flush()
    return Worker(process, log)


def cores_of(slot: int, jobs: int) -> list[int] | None:
    """The cores of slot 0 to `jobs` - 1, an equal share; None for all (one job, or a system that binds none)."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if jobs >= len(cores):
        return [cores[slot % len(cores)]]
    return cores[slot * len(cores) // jobs : (slot + 1) * len(cores) // jobs]


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit where that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [physical]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or the word max
            limits.append(int(pathlib.Path(path).read_text()))
    return min(limits)
