"""Examples per second of the training step, without the CPU kernels, and of the whole loop as train.py logs them.

    python benchmarks/loop.py --cells "S 4096 1M" "M 4096 1M"

For each cell a store of Zipf ids is written into a temporary folder; then, in turn, the step alone on batches that lie
on the device, the same with `model.implementation` xla_cpu, and `train()` with input, log, evaluation and checkpoints.
Medians of the rounds (lowest to highest).
"""

import argparse
import dataclasses
import io
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import jax
import rich.console

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks.side_by_side.batches import make_batches
from benchmarks.side_by_side.cells import Cell, grid, select
from benchmarks.side_by_side.jax_worker import device_batches
from benchmarks.side_by_side.run_config import make_config
from wukong_jax.config.run import DataConfig, RunConfig
from wukong_jax.data.store import StoreWriter
from wukong_jax.process import keep_freed_memory
from wukong_jax.training.program import build_program
from wukong_jax.training.run import train

STORED_BATCHES = 32


def write_store(cell: Cell, path: pathlib.Path) -> None:
    """32 batches to train on, one to validate on."""
    config = make_config(cell)
    drawn = make_batches(cell, STORED_BATCHES + 1)
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in drawn.items()}
    flat["labels"] = flat["labels"][:, None]
    edge = STORED_BATCHES * cell.batch
    with StoreWriter(path, config.batch_schema) as writer:
        for split, rows in (("train", slice(0, edge)), ("valid", slice(edge, None))):
            writer.append(split, {name: flat[name][rows] for name in writer.kinds})


def bare_step(config: RunConfig, cell: Cell, steps: int) -> float:
    """Examples per second of the compiled step alone."""
    batches = device_batches(make_batches(cell, 4))
    program = build_program(config, steps)
    state = jax.block_until_ready(program.train_step(program.init(), batches[0]))
    start = time.perf_counter()
    for step in range(steps):
        state = program.train_step(state, batches[step % 4])
    jax.block_until_ready(state)
    return steps * cell.batch / (time.perf_counter() - start)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["S 4096 1M", "M 4096 1M"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STORED_BATCHES)
    options = parser.parse_args()
    keep_freed_memory()
    words = tuple(f"{cell} train float32 rowwise_adagrad" for cell in options.cells)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
    print("| cell | step | step, xla_cpu | loop | step / xla_cpu | loop / step |\n|---|---|---|---|---|---|")
    for cell in select(grid(gpu=False), words):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            write_store(cell, root / "store")
            base = make_config(cell)
            epochs = -(-options.steps // STORED_BATCHES)
            settings = dataclasses.replace(base.train, epochs=epochs, max_steps=options.steps, log_every_steps=8)
            config = dataclasses.replace(base, data=DataConfig(store=str(root / "store")), train=settings)
            model: Any = base.model
            plain = dataclasses.replace(config, model=dataclasses.replace(model, implementation="xla_cpu"))
            steps, plain_steps, loops = [], [], []
            for number in range(options.rounds):
                steps.append(bare_step(config, cell, options.steps))
                plain_steps.append(bare_step(plain, cell, options.steps))
                record = train(config, root / f"run_{number}", rich.console.Console(file=io.StringIO()))
                loops.append(record["examples_per_second"])
        columns = (steps, plain_steps, loops)
        shown = [f"{statistics.median(v):,.0f} ({min(v):,.0f} to {max(v):,.0f})" for v in columns]
        step, plain_step, loop = map(statistics.median, columns)
        print(f"| {cell.label} | {' | '.join(shown)} | {step / plain_step:.2f} | {loop / step:.2f} |", flush=True)


if __name__ == "__main__":
    main()
