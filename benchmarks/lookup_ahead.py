"""What it brings to look rows up beside the pass over the part (`mesh.lookup_ahead`) or batch before theirs.

    python benchmarks/lookup_ahead.py --devices 2 --cells "S 4096 1M" --parts 4

Tables are dealt out over all devices (of a CPU as many as asked for). Four steps run in turn in one process: the batch
at once, at once with the next batch's rows looked up beside it (`train.semi_synchronous`), in parts, in parts looked up
ahead. Medians (lowest to highest) of the rounds, and the ratios of looked up ahead to not.
"""

import argparse
import dataclasses
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
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.data.batch import Batch
from wukong_jax.process import keep_freed_memory
from wukong_jax.training.program import Program, build_program

BATCHES = 4


def program_of(cell: Cell, devices: int, part: int | None, *, ahead: bool) -> Program:
    """The step of the programs over so many devices."""
    config = make_config(cell)
    mesh = MeshConfig(devices, 1, (PlacementRule(".*", "dealt_rows"),), lookup_ahead=ahead and part is not None)
    train = dataclasses.replace(config.train, micro_batch=part, semi_synchronous=ahead and part is None)
    return build_program(dataclasses.replace(config, mesh=mesh, train=train), 10**6)


def step_of(program: Program) -> Callable[..., Any]:
    """The step, waited for where the training loop does so too."""
    if not program.one_at_a_time:
        return program.train_step
    return lambda state, batch: jax.block_until_ready(program.train_step(state, batch))


def measure(cell: Cell, devices: int, parts: int, rounds: int, steps: int) -> list[list[float]]:
    """Examples per second of each round: at once, then looked up ahead; in parts, then looked up ahead."""
    pieces = (None, cell.batch // parts)
    programs = [program_of(cell, devices, part, ahead=ahead) for part in pieces for ahead in (False, True)]
    drawn = make_batches(cell, BATCHES)
    empty, ones = np.zeros((cell.batch, 0), np.float32), np.ones(cell.batch, np.float32)
    batches = [
        jax.device_put(
            Batch(drawn["ids"][i], drawn["numeric"][i], empty, drawn["labels"][i][:, None], ones),
            programs[0].batch_shardings,
        )
        for i in range(BATCHES)
    ]

    arms = [(step_of(program), program.init()) for program in programs]
    return rates_in_turn(arms, batches, cell.batch, rounds, steps)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--cells", nargs="+", default=["S 4096 1M"], help="configuration, batch, rows")
    parser.add_argument("--parts", type=int, default=4, help="parts of a batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="steps a round")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    keep_freed_memory()
    print(f"{options.devices} devices: {jax.devices()[0].device_kind}; batches in {options.parts} parts\n")
    print("| cell | at once, examples/s | next batch ahead | ahead / not | in parts | next part ahead | ahead / not |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    words = tuple(f"{cell} train float32 rowwise_adagrad" for cell in options.cells)
    for cell in select(grid(gpu=False), words):
        rates = measure(cell, options.devices, options.parts, options.rounds, options.steps)
        medians = [statistics.median(each) for each in rates]
        columns = [shown(rates[0]), shown(rates[1]), f"{medians[1] / medians[0]:.3f}"]
        columns += [shown(rates[2]), shown(rates[3]), f"{medians[3] / medians[2]:.3f}"]
        print(f"| {cell.label} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
