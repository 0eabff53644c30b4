"""Time of a training step against the number of table rows: it must not grow.

    python benchmarks/rows.py

One process, the sizes in turn, several rounds; medians with the smallest and largest. Wukong with 26 fields, batch
4096, ids drawn log-uniformly (Zipf of exponent 1), row-sparse row-wise Adagrad or lazy Adam.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import numpy as np

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.process import keep_freed_memory
from wukong_jax.training.program import build_program

FIELDS, BATCH = 26, 4096
CASES = [
    (10_000, 64, "rowwise_adagrad"),
    (1_000_000, 64, "rowwise_adagrad"),
    (10_000_000, 64, "rowwise_adagrad"),
    (10_000_000, 64, "adam"),
    (10_000, 16, "rowwise_adagrad"),
    (50_000_000, 16, "rowwise_adagrad"),
]


def make_case(rows: int, width: int, optimizer: Any) -> RunConfig:
    """A small Wukong, so that the tables' part shows."""
    schema = DatasetSchema(tuple(CategoricalFeature(f"C{i}", rows // FIELDS) for i in range(FIELDS)))
    model = WukongConfig(width=width, num_layers=2, fmb_mlp=MLPConfig((64,)), head=MLPConfig((64,)))
    tables = TablesConfig((TableRule(name=optimizer),))
    return RunConfig("rows", schema, DataConfig(store="-"), model, tables=tables, train=TrainConfig(batch_size=BATCH))


def make_batches(rows: int, count: int) -> list[Batch]:
    """Batches of skewed ids."""
    rng = np.random.default_rng(0)
    size = rows // FIELDS
    empty = np.zeros((BATCH, 0), np.float32)
    return [
        Batch(
            np.floor(size ** rng.random((BATCH, FIELDS))).astype(np.int32) - 1,
            empty,
            empty,
            rng.integers(0, 2, (BATCH, 1)).astype(np.float32),
            np.ones(BATCH, np.float32),
        )
        for _ in range(count)
    ]


def measure(rows: int, width: int, optimizer: str, steps: int, rounds: int) -> tuple[list[float], float]:
    """Milliseconds of a step in each round, and the share of ids that are distinct in a batch."""
    program = build_program(make_case(rows, width, optimizer), steps)
    state = program.init()
    batches = [jax.device_put(batch) for batch in make_batches(rows, 8)]
    flat = np.asarray(batches[0].ids) + np.arange(FIELDS) * (rows // FIELDS)
    distinct = len(np.unique(flat)) / flat.size
    for batch in batches:
        state = program.train_step(state, batch)
    times = []
    for _ in range(rounds):
        jax.block_until_ready(state)
        start = time.perf_counter()
        for number in range(steps):
            state = program.train_step(state, batches[number % len(batches)])
        jax.block_until_ready(state)
        times.append(1e3 * (time.perf_counter() - start) / steps)
    return times, distinct


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds")
    options = parser.parse_args()
    keep_freed_memory()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, batch {BATCH}, {FIELDS} fields\n")
    print("| rows | width | optimizer | ms per step, median (min to max) | distinct ids in a batch |")
    print("|---|---|---|---|---|")
    for rows, width, optimizer in CASES:
        times, distinct = measure(rows, width, optimizer, options.steps, options.rounds)
        spread = f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})"
        print(f"| {rows:,} | {width} | {optimizer} | {spread} | {distinct:.0%} |", flush=True)


if __name__ == "__main__":
    main()
