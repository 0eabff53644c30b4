"""The driver's side of a measured process, and how busy the machine was with anything else."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1
OTHERS_ALLOWED = 0.12
TRIES = 4


class WorkerError(Exception):
    """A measured process failed; the message is its traceback."""


class Process:
    """One implementation in a process of its own; `with` ends it."""

    def __init__(self, module: str, environment: dict[str, str], log: pathlib.Path) -> None:
        self.module = module
        self.log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.side_by_side.{module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                text=True,
            )

    def __enter__(self) -> "Process":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pipe, which ends the process; end it by force where it does not."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; raises `WorkerError`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died: the answer below is empty
        line = self.process.stdout.readline()
        if not line:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise WorkerError(f"{self.module} ended at {command!r} with {self.process.wait()}; its last lines:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.module} failed at {command!r}:\n{answer['error']}")
        return answer

    def quiet_round(self, seconds: float) -> dict[str, Any]:
        """A round in which other processes took at most 12 % of the cores; after four tries, the quietest of them."""
        rounds = []
        for _ in range(TRIES):
            busy, own, start = busy_seconds(), self._cpu_seconds(), time.perf_counter()
            answer = self.ask("round", seconds=seconds)
            capacity = CORES * (time.perf_counter() - start)
            others = busy_seconds() - busy - (self._cpu_seconds() - own)
            rounds.append(answer | {"others": max(others, 0.0) / capacity})
            if rounds[-1]["others"] <= OTHERS_ALLOWED:
                break
        return min(rounds, key=lambda answer: answer["others"])

    def _cpu_seconds(self) -> float:
        """CPU time of the process's threads."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def busy_seconds() -> float:
    """CPU time of the whole machine that was not idle, with what the host took away (steal)."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def available_bytes() -> int:
    """Memory that new processes can have."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/meminfo has no MemAvailable: the benchmark needs Linux")
