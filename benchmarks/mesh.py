"""What the mesh costs where there is one device: the training step of the programs, and the same one jitted plainly.

    python benchmarks/mesh.py --cells "S 4096 1M" "M 4096 1M"

Both steps run in turn in one process on batches that lie on the device, each several times a round; medians of the
rounds (lowest to highest) and the ratio of the medians.
"""

import argparse
import functools
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks.side_by_side.batches import make_batches
from benchmarks.side_by_side.cells import Cell, grid, select
from benchmarks.side_by_side.in_turn import rates_in_turn, shown
from benchmarks.side_by_side.run_config import make_config
from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.plan import plan_embeddings
from wukong_jax.embeddings.table_ops import ONE_DEVICE
from wukong_jax.models.registry import build_model, table_specs
from wukong_jax.ops.platform import compiler_options
from wukong_jax.process import keep_freed_memory
from wukong_jax.training.micro_batch import micro_batch_size
from wukong_jax.training.objective import make_objective
from wukong_jax.training.optim import dense_optimizer
from wukong_jax.training.program import build_program, uses_slot
from wukong_jax.training.state import TrainState, init_state
from wukong_jax.training.step import make_train_step

BATCHES = 4


def without_mesh(config: RunConfig, steps: int) -> tuple[Callable[..., Any], TrainState]:
    """The step and its first state with no mesh and no sharding at all."""
    platform = jax.default_backend()
    model = build_model(config.model, config.batch_schema)
    plan = plan_embeddings(config.batch_schema, table_specs(config.model, config.batch_schema), config.tables)
    optimizer = dense_optimizer(config.optimizer, plan, steps)
    part_of = functools.partial(micro_batch_size, config, platform)
    step = make_train_step(model, make_objective(config, plan), optimizer, config, steps, part_of, ONE_DEVICE)
    jitted = jax.jit(step, donate_argnums=0, compiler_options=compiler_options(platform))
    init = functools.partial(init_state, model, plan, optimizer, config, slot=uses_slot(config, platform))
    return jitted, jax.jit(init)()


def measure(cell: Cell, rounds: int, steps: int) -> tuple[list[float], list[float]]:
    """Examples per second of each round, with the mesh of one device and without."""
    config, drawn = make_config(cell), make_batches(cell, BATCHES)
    empty, ones = np.zeros((cell.batch, 0), np.float32), np.ones(cell.batch, np.float32)
    batches = [
        jax.device_put(Batch(drawn["ids"][i], drawn["numeric"][i], empty, drawn["labels"][i][:, None], ones))
        for i in range(BATCHES)
    ]
    program = build_program(config, 10**6)
    plain, state = without_mesh(config, 10**6)
    first, second = rates_in_turn(
        [(program.train_step, program.init()), (plain, state)], batches, cell.batch, rounds, steps
    )
    return first, second


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["S 4096 1M", "M 4096 1M"], help="configuration, batch, rows")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="steps a round")
    options = parser.parse_args()
    keep_freed_memory()
    print("| cell | with the mesh, examples/s | without | with / without |")
    print("| --- | --- | --- | --- |")
    words = tuple(f"{cell} train float32 rowwise_adagrad" for cell in options.cells)
    for cell in select(grid(gpu=False), words):
        with_mesh, plain = measure(cell, options.rounds, options.steps)
        ratio = statistics.median(with_mesh) / statistics.median(plain)
        print(f"| {cell.label} | {shown(with_mesh)} | {shown(plain)} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
