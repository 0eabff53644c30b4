"""The side of a measured process: commands from stdin, answers on stdout, one JSON object a line."""

import json
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

CHECKED_STEPS = 2
LONG_STEP = 0.5
GEMMS = ((4096, 512, 512), (4096, 4096, 4096))

Handlers = Mapping[str, Callable[..., dict[str, Any]]]


def serve(handlers: Handlers) -> None:
    """Answer {"command": name, ...arguments} until the driver closes the pipe; an error is an answer too."""
    # libraries print on file descriptor 1: keep it for the answers alone
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = handlers[request.pop("command")](**request)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def peak_rss() -> dict[str, Any]:
    """MiB of the largest resident set so far (VmHWM)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return {"peak_rss_mib": int(line.split()[1]) / 1024}
    raise RuntimeError("/proc/self/status has no VmHWM: the benchmark needs Linux")


def timed_first(batches: Sequence[Any], call: Callable[[Any], Any]) -> tuple[list[Any], float]:
    """Results of `call` on each batch, and the seconds of the first, which compiles, less the fastest of the rest."""
    results, times = [], []
    for batch in batches:
        start = time.perf_counter()
        results.append(call(batch))
        times.append(time.perf_counter() - start)
    return results, max(times[0] - min(times[1:]), 0.0)


class Clock:
    """Rounds of a step: `run(n)` does n steps and returns when all of their results are there."""

    def __init__(self, run: Callable[[int], None]) -> None:
        self.run = run
        self.step_seconds = 0.0

    def start(self) -> dict[str, Any]:
        """The first call, which compiles, less an ordinary step; then an estimate of an ordinary step."""
        first = self._time(1)
        self.step_seconds = self._time(1)
        if self.step_seconds < LONG_STEP:
            self.step_seconds = self._time(2) / 2
        return {"compile_s": max(first - self.step_seconds, 0.0)}

    def round(self, seconds: float) -> dict[str, Any]:
        """About `seconds` of steps, at least one; before it one that is not timed, unless a step is long."""
        if self.step_seconds < LONG_STEP:
            self.run(1)
        steps = max(1, round(seconds / self.step_seconds))
        elapsed = self._time(steps)
        self.step_seconds = elapsed / steps
        return {"steps": steps, "seconds": elapsed}

    def _time(self, steps: int) -> float:
        start = time.perf_counter()
        self.run(steps)
        return time.perf_counter() - start


def best_gflops(multiply: Callable[[], None], m: int, k: int, n: int, seconds: float = 0.4) -> float:
    """The fastest of several products of [m, k] and [k, n], in GFLOP/s; the first one is not timed."""
    multiply()
    best, end, times = float("inf"), time.perf_counter() + seconds, 0
    while times < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        multiply()
        best, times = min(best, time.perf_counter() - start), times + 1
    return 2e-9 * m * k * n / best
