"""Ours: the training and evaluation step of `train.py`, from `build_program`, in a process of its own."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.side_by_side.batches import distinct_rows, read_arrays, write_arrays
from benchmarks.side_by_side.cells import Cell
from benchmarks.side_by_side.run_config import make_config
from benchmarks.side_by_side.worker import CHECKED_STEPS, GEMMS, Clock, best_gflops, peak_rss, serve, timed_first
from wukong_jax.data.batch import Batch
from wukong_jax.process import keep_freed_memory
from wukong_jax.training.optim import parameter_path
from wukong_jax.training.program import Program, build_program

STEPS_OF_THE_RUN = 100_000


class Worker:
    """One built program with its state and batches."""

    def __init__(self) -> None:
        self.cell: Cell
        self.program: Program
        self.state: Any
        self.batches: list[Batch]
        self.clock: Clock
        self.number = 0

    def build(self, cell: dict[str, Any], batches: str, cache: str) -> dict[str, Any]:
        """Config, compiled functions and state, with the persistent compilation cache in the folder `cache`."""
        keep_freed_memory()  # as train.py does; without effect on another allocator than glibc's
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        self.cell = Cell(**cell)
        start = time.perf_counter()
        self.program = build_program(make_config(self.cell), STEPS_OF_THE_RUN)
        self.state = jax.block_until_ready(self.program.init())
        seconds = time.perf_counter() - start
        self.batches = device_batches(read_arrays(batches))
        return {"init_s": seconds, "device": jax.devices()[0].device_kind, "platform": jax.default_backend()}

    def export(self, path: str) -> dict[str, Any]:
        """Write the dense parameters and the rows that the batches touch, for the peers."""
        leaves = jax.tree_util.tree_leaves_with_path(self.state.params)
        arrays = {parameter_path(key): np.asarray(leaf, np.float32) for key, leaf in leaves}
        (table,) = self.state.tables.values()
        rows = distinct_rows(self.cell, np.stack([np.asarray(batch.ids) for batch in self.batches]))
        write_arrays(path, arrays | {"row_numbers": rows, "rows": np.asarray(table[rows], np.float32)})
        return {}

    def check(self) -> dict[str, Any]:
        """Losses of the first steps, each before its update (training), and the first batch's logits (inference)."""
        if self.cell.mode == "infer":
            logits, compile_s = timed_first([self.batches[0]] * 2, self._logits)
            return {"logits": np.asarray(logits[0], np.float64).tolist(), "compile_s": compile_s}
        losses, compile_s = timed_first(self.batches[: CHECKED_STEPS + 1], self._loss)
        return {"losses": losses, "compile_s": compile_s}

    def _logits(self, batch: Batch) -> Any:
        _, logits = self.program.eval_step(self.state, (), batch)
        return jax.block_until_ready(logits[:, 0])

    def _loss(self, batch: Batch) -> float:
        self.state = dataclasses.replace(self.state, loss_sum=jnp.zeros(()))
        self.state = self.program.train_step(self.state, batch)
        return float(jax.block_until_ready(self.state).loss_sum)

    def start(self) -> dict[str, Any]:
        """Compile and warm up."""
        self.clock = Clock(self._train if self.cell.mode == "train" else self._infer)
        return self.clock.start()

    def round(self, seconds: float) -> dict[str, Any]:
        """One timed round."""
        return self.clock.round(seconds)

    def _train(self, steps: int) -> None:
        for _ in range(steps):
            self.state = self.program.train_step(self.state, self._next())
        jax.block_until_ready(self.state)

    def _infer(self, steps: int) -> None:
        logits: Any = None
        for _ in range(steps):
            _, logits = self.program.eval_step(self.state, (), self._next())
        jax.block_until_ready(logits)

    def _next(self) -> Batch:
        self.number += 1
        return self.batches[self.number % len(self.batches)]


def memory() -> dict[str, Any]:
    """Peak of the process, and of the device where it has memory of its own."""
    stats = jax.devices()[0].memory_stats() or {}
    on_device = {"device_peak_mib": stats["peak_bytes_in_use"] / 2**20} if "peak_bytes_in_use" in stats else {}
    return peak_rss() | on_device


def versions() -> dict[str, Any]:
    """Of jax, and what it runs on."""
    device = jax.devices()[0]
    return {"jax": jax.__version__, "platform": device.platform, "device": device.device_kind}


def gemm_peak(dtype: str) -> dict[str, Any]:
    """GFLOP/s of the best product; bfloat16 products also with float32 results, which is the fast form on CPU."""
    multiply = jax.jit(lambda a, b, out: jnp.matmul(a, b, preferred_element_type=out), static_argnums=2)
    rates = []
    for m, k, n in GEMMS:
        a, b = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
        for out in sorted({dtype, "float32"}):
            run = functools.partial(lambda *operands: jax.block_until_ready(multiply(*operands)), a, b, out)
            rates.append(best_gflops(run, m, k, n))
    return {"peak_gflops": max(rates)}


def device_batches(arrays: dict[str, np.ndarray]) -> list[Batch]:
    """Arrays [batches, rows, ...] of `make_batches` as batches on the device."""
    batches = []
    for ids, numeric, labels in zip(arrays["ids"], arrays["numeric"], arrays["labels"], strict=True):
        size = len(labels)
        batch = Batch(ids, numeric, np.zeros((size, 0), np.float32), labels[:, None], np.ones(size, np.float32))
        batches.append(jax.device_put(batch))
    return batches


def main() -> None:
    """Serve the driver."""
    worker = Worker()
    serve(
        {
            "build": worker.build,
            "export": worker.export,
            "check": worker.check,
            "start": worker.start,
            "round": worker.round,
            "memory": memory,
            "peak": gemm_peak,
            "versions": versions,
        }
    )


if __name__ == "__main__":
    main()
