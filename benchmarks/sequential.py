"""Sequential recommenders: seconds to compile 4 and 64 layers, and the item table updated whole or row by row.

    python benchmarks/sequential.py

Compiling: the training step of each backbone, width 32, length 50, no compilation cache. Item table: milliseconds of a
step of SASRec with the sampled softmax, batch 128 x length 50, width 50, the two ways in turn; medians with the
smallest and largest.
"""

import argparse
import dataclasses
import statistics
import time
from typing import Any

import jax
import numpy as np

from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import BackboneConfig, HSTUConfig, LlamaConfig, SASRecConfig
from wukong_jax.data.batch import Batch
from wukong_jax.sequential.schema import SequenceSchema
from wukong_jax.training.program import Program, build_program

BATCH, LENGTH = 128, 50
BACKBONES: dict[str, BackboneConfig] = {
    "SASRec": SASRecConfig(width=32, max_length=LENGTH),
    "HSTU": HSTUConfig(width=32, max_length=LENGTH),
    "LLaMA": LlamaConfig(width=32, max_length=LENGTH),
}
UPDATES = {
    "whole": TableRule(update="dense", name="adam"),
    "row by row": TableRule(name="rowwise_adagrad"),
}


def make_case(items: int, model: BackboneConfig, rule: TableRule) -> RunConfig:
    """Training of one backbone on so many items."""
    schema, train = SequenceSchema(items, times=False), TrainConfig(batch_size=BATCH, monitor="ndcg@10")
    return RunConfig(
        "sequential", schema, DataConfig(store="-"), model, tables=TablesConfig((rule,)), train=train,
        sequences=SequencesConfig(),
    )  # fmt: skip


def make_batch(items: int, seed: int) -> Batch:
    """Full histories of items by popularity (Zipf of exponent 1)."""
    rng = np.random.default_rng(seed)
    ids = np.floor(items ** rng.random((BATCH, LENGTH + 1))).astype(np.int32) - 1
    empty = np.zeros((BATCH, 0), np.float32)
    return Batch(ids, empty, empty, empty, np.ones(BATCH, np.float32))


def compile_seconds(model: BackboneConfig, layers: int) -> float:
    """Of the training step, from its trace to machine code."""
    config = make_case(1_000, dataclasses.replace(model, num_layers=layers), UPDATES["whole"])
    program = build_program(config, 10)
    train_step: Any = program.train_step
    start = time.perf_counter()
    train_step.lower(program.abstract_state(), make_batch(1_000, 0)).compile()
    return time.perf_counter() - start


def step_times(items: int, steps: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a step in each round, the item table updated whole and row by row."""
    model = SASRecConfig(width=50, num_layers=2, max_length=LENGTH)
    batches = [jax.device_put(make_batch(items, seed)) for seed in range(4)]
    programs: dict[str, Program] = {
        name: build_program(make_case(items, model, rule), steps) for name, rule in UPDATES.items()
    }
    states = {name: program.init() for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            state = jax.block_until_ready(states[name])
            start = time.perf_counter()
            for step in range(steps):
                state = program.train_step(state, batches[step % len(batches)])
            states[name] = jax.block_until_ready(state)
            if number:  # the first compiles
                times[name].append(1e3 * (time.perf_counter() - start) / steps)
    return times


def spread(times: list[float]) -> str:
    """Median (smallest to largest)."""
    return f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})"


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--items", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=5, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
    print("| seconds to compile | " + " | ".join(f"{layers} layers" for layers in options.layers) + " |")
    print("|---" * (len(options.layers) + 1) + "|")
    for name, model in BACKBONES.items():
        seconds = [f"{compile_seconds(model, layers):.1f}" for layers in options.layers]
        print(f"| {name} | {' | '.join(seconds)} |", flush=True)
    print("\n| items | ms per step, table updated whole | row by row | ratio |\n|---|---|---|---|")
    for items in options.items:
        whole, by_row = step_times(items, options.steps, options.rounds).values()
        ratio = statistics.median(whole) / statistics.median(by_row)
        print(f"| {items:,} | {spread(whole)} | {spread(by_row)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
