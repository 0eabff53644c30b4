"""The PyTorch peers, strong and naive, in a process of their own."""

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.side_by_side.batches import offsets, read_arrays
from benchmarks.side_by_side.cells import DENSE_RATE, Cell
from benchmarks.side_by_side.torch_model import Tower
from benchmarks.side_by_side.torch_tables import StackedTables, Tables, make_tables
from benchmarks.side_by_side.worker import CHECKED_STEPS, GEMMS, Clock, best_gflops, peak_rss, serve, timed_first

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TorchBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Worker:
    """One built model with its optimizer and batches."""

    def __init__(self) -> None:
        self.cell: Cell
        self.tower: Tower
        self.tables: Tables
        self.optimizer: torch.optim.Optimizer
        self.batches: list[TorchBatch]
        self.naive = False
        self.pieces = 1
        self.loss: Callable[..., torch.Tensor]
        self.predict: Callable[..., torch.Tensor]
        self.clock: Clock
        self.number = 0

    def build(self, cell: dict[str, Any], batches: str, variant: dict[str, Any]) -> dict[str, Any]:
        """Model and optimizer.

        `variant`: naive (bool), form (fused or paper), compile (bool), micro_batch (int, or null for none).
        """
        torch.manual_seed(0)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        if DEVICE == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as XLA's default
        self.cell, self.naive = Cell(**cell), variant["naive"]
        start = time.perf_counter()
        self.tower = Tower(self.cell.shape, variant["form"]).to(DEVICE)
        starts = offsets(self.cell)
        self.tables = StackedTables(self.cell, starts, DEVICE) if self.naive else make_tables(self.cell, starts, DEVICE)
        self.pieces = self.cell.batch // (variant["micro_batch"] or self.cell.batch)
        if self.cell.mode == "train":
            self.optimizer = self._make_optimizer()
        compiled: Callable[[Any], Any] = torch.compile if variant["compile"] else lambda function: function
        self.loss, self.predict = compiled(self._loss), compiled(self._predict)
        self.batches = _batches(read_arrays(batches))
        return {
            "init_s": time.perf_counter() - start,
            "tables": self.tables.kind,
            "same_updates": self.tables.same_updates,
            "platform": DEVICE,
        }

    def _make_optimizer(self) -> torch.optim.Optimizer:
        if isinstance(self.tables, StackedTables) and self.naive:
            return torch.optim.Adam([*self.tower.parameters(), *self.tables.module.parameters()], lr=DENSE_RATE)
        return torch.optim.Adam(self.tower.parameters(), lr=DENSE_RATE, fused=True)

    def load(self, path: str) -> dict[str, Any]:
        """Take over our weights."""
        arrays = read_arrays(path)
        self.tower.load(arrays)
        self.tables.load(arrays["row_numbers"], arrays["rows"])
        return {"dense_parameters": sum(parameter.numel() for parameter in self.tower.parameters())}

    def check(self) -> dict[str, Any]:
        """Losses of the first steps, each before its update (training), and the first batch's logits (inference)."""
        if self.cell.mode == "infer":
            logits, compile_s = timed_first([self.batches[0]] * 2, self._logits)
            return {"logits": logits[0].double().tolist(), "compile_s": compile_s}
        losses, compile_s = timed_first(self.batches[: CHECKED_STEPS + 1], lambda batch: float(self._step(batch)))
        return {"losses": losses, "compile_s": compile_s}

    def start(self) -> dict[str, Any]:
        """Compile and warm up."""
        self.clock = Clock(self._train if self.cell.mode == "train" else self._infer)
        return self.clock.start()

    def round(self, seconds: float) -> dict[str, Any]:
        """One timed round."""
        return self.clock.round(seconds)

    def _train(self, steps: int) -> None:
        for _ in range(steps):
            self._step(self._next())
        _wait()

    def _infer(self, steps: int) -> None:
        for _ in range(steps):
            self._logits(self._next())
        _wait()

    def _step(self, batch: TorchBatch) -> torch.Tensor:
        """One update: micro-batches through the tower, then one backward pass through the tables."""
        ids, numeric, labels = batch
        rows = self.tables(ids)
        if self.pieces == 1:
            total = self.loss(rows, numeric, labels)
            total.backward()
        else:
            total, gradient = torch.zeros((), device=DEVICE), torch.empty_like(rows)
            detached = rows.detach()
            for piece in _slices(len(labels), self.pieces):
                part = detached[piece].requires_grad_()
                loss = self.loss(part, numeric[piece], labels[piece])
                loss.backward()
                gradient[piece] = part.grad
                total += loss.detach()
            rows.backward(gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.tables.update()
        return total.detach()

    def _logits(self, batch: TorchBatch) -> torch.Tensor:
        ids, numeric, _ = batch
        with torch.no_grad():  # under inference_mode fbgemm's tables fail
            rows = self.tables(ids)
            if self.pieces == 1:
                return self.predict(rows, numeric)
            parts = [self.predict(rows[piece], numeric[piece]) for piece in _slices(len(ids), self.pieces)]
            return torch.cat(parts)

    def _loss(self, rows: torch.Tensor, numeric: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The part of the batch's mean loss that these examples have."""
        logits = self._predict(rows, numeric)
        total = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return total / self.cell.batch

    def _predict(self, rows: torch.Tensor, numeric: torch.Tensor) -> torch.Tensor:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.cell.dtype == "bfloat16"):
            logits: torch.Tensor = self.tower(rows, numeric)
        return logits

    def _next(self) -> TorchBatch:
        self.number += 1
        return self.batches[self.number % len(self.batches)]


def gemm_peak(dtype: str) -> dict[str, Any]:
    """GFLOP/s of the best product."""
    rates = []
    for m, k, n in GEMMS:
        shapes = ((m, k), (k, n), (m, n))
        a, b, out = (torch.ones(shape, dtype=getattr(torch, dtype), device=DEVICE) for shape in shapes)

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
            torch.mm(a, b, out=out)
            _wait()

        rates.append(best_gflops(multiply, m, k, n))
    return {"peak_gflops": max(rates)}


def memory() -> dict[str, Any]:
    """Peak of the process, and of the device where it has memory of its own."""
    on_device = {"device_peak_mib": torch.cuda.max_memory_allocated() / 2**20} if DEVICE == "cuda" else {}
    return peak_rss() | on_device


def versions() -> dict[str, Any]:
    """Of torch, and of fbgemm_gpu where it is installed."""
    found = {"torch": torch.__version__}
    with contextlib.suppress(ImportError):
        found["fbgemm_gpu"] = importlib.import_module("fbgemm_gpu").__version__
    return found


def _slices(examples: int, pieces: int) -> Iterator[slice]:
    size = examples // pieces
    return (slice(start, start + size) for start in range(0, examples, size))


def _batches(arrays: dict[str, np.ndarray]) -> list[TorchBatch]:
    ids, numeric, labels = (torch.from_numpy(arrays[name]).to(DEVICE) for name in ("ids", "numeric", "labels"))
    return list(zip(ids.long(), numeric, labels, strict=True))


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Serve the driver."""
    worker = Worker()
    serve(
        {
            "build": worker.build,
            "load": worker.load,
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
