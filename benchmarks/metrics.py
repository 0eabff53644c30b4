"""Time of the streaming metrics inside a jitted step, and of exact AUC and gAUC on the host.

    python benchmarks/metrics.py

A full buffer is merged into bins once in 2^19 examples; `mean` has that in it, `median` and `longest` stand apart.
"""

import statistics
import time

import jax
import numpy as np

from wukong_jax.evaluation.auc import RECENT
from wukong_jax.evaluation.grouped import exact_auc, grouped_auc
from wukong_jax.evaluation.metrics import init_metrics, update_metrics


def update_times(batch: int, rng: np.random.Generator) -> list[float]:
    """Milliseconds of each of the updates of four whole buffers of examples, compilation left out."""
    logits = jax.device_put(rng.normal(size=batch).astype(np.float32))
    labels = jax.device_put((rng.random(batch) < 0.25).astype(np.float32))
    weights = jax.device_put(np.ones(batch, np.float32))
    update = jax.jit(update_metrics, donate_argnums=0)
    state = jax.block_until_ready(update(init_metrics(), logits, labels, weights))
    times = []
    for _ in range(4 * RECENT // batch):
        start = time.perf_counter()
        state = jax.block_until_ready(update(state, logits, labels, weights))
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Print both tables."""
    rng = np.random.default_rng(0)
    print("| batch | median, ms | mean, ms | longest, ms | mean, ns an example |")
    print("|---:|---:|---:|---:|---:|")
    for batch in (1_024, 4_096, 16_384, 65_536):
        times = update_times(batch, rng)
        mean = statistics.mean(times)
        print(
            f"| {batch} | {statistics.median(times):.2f} | {mean:.2f} | {max(times):.0f} | {1e6 * mean / batch:.0f} |",
            flush=True,
        )
    labels, scores = (rng.random(10**6) < 0.25).astype(np.float32), rng.normal(size=10**6).astype(np.float32)
    groups = rng.integers(100_000, size=10**6)
    print("\n| on the host, 1M rows | s |\n|---|---:|")
    for name, call in (
        ("exact AUC", lambda: exact_auc(labels, scores)),
        ("gAUC, 100k groups", lambda: grouped_auc(labels, scores, groups)),
    ):
        start = time.perf_counter()
        call()
        print(f"| {name} | {time.perf_counter() - start:.2f} |")


if __name__ == "__main__":
    main()
