"""What a sweep costs before it runs: its runs with their FLOPs, and the shares of several machines."""

import dataclasses
import functools
import re
from collections.abc import Sequence

from wukong_jax.config.codec import stable_hash, to_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError
from wukong_jax.scaling.flops import Cost, describe_cost
from wukong_jax.scaling.sweep import Point, Sweep


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A point with its cost."""

    point: Point
    cost: Cost

    @property
    def config(self) -> RunConfig:
        """All settings."""
        return self.point.config

    @functools.cached_property
    def identity(self) -> str:
        """Hash of what decides the result."""
        return self.config.identity_hash()


def plan(sweep: Sweep) -> list[PlannedRun]:
    """The runs in the sweep's order; raises `ConfigError` naming a point whose model cannot be built."""
    costs: dict[str, Cost] = {}
    runs = []
    for point in sweep.points:
        key = step_key(point.config)
        if key not in costs:
            try:
                costs[key] = describe_cost(point.config)
            except ConfigError as error:
                raise ConfigError(f"sweep {sweep.name}, {point}: {error}") from error
        runs.append(PlannedRun(point, costs[key]))
    return runs


def step_key(config: RunConfig) -> str:
    """Hash of what decides the cost of a training step: the same for other seeds, numbers of steps and names."""
    train = (config.train.batch_size, config.train.micro_batch, config.train.progressive)
    shapes = (config.sequences.packing, config.sequences.lengths) if config.sequences is not None else ()
    parts = (config.schema, config.model, config.optimizer, config.tables, config.mesh)
    return stable_hash([*map(to_plain, parts), *train, *shapes])


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8); raises `ConfigError` for what is none."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise ConfigError(f"--shard: received {text!r}, expected I/N with I from 1 to N, such as 1/8")
    return part, parts


def shard(runs: Sequence[PlannedRun], part: int, parts: int) -> list[PlannedRun]:
    """Part 1 to `parts` of the runs, in their order: every run is in one part, whatever is done already.

    The parts have about the same FLOPs: each run, the most expensive first, goes to the part with the least so far.
    A run's FLOPs are those of an example x train.max_steps x batch size where every run has max_steps, else x its
    epochs, so that machines agree before the data are there.
    """
    bounded = all(run.config.train.max_steps for run in runs)

    def work(run: PlannedRun) -> int:
        train = run.config.train
        return run.cost.training_flops * ((train.max_steps or 0) * train.batch_size if bounded else run.config.epochs)

    loads = [(0, 0, index) for index in range(parts)]  # FLOPs, runs, which part
    mine = set()
    for run in sorted(runs, key=lambda run: (-work(run), run.identity)):
        flops, count, index = min(loads)
        loads[index] = flops + work(run), count + 1, index
        if index == part - 1:
            mine.add(run.identity)
    return [run for run in runs if run.identity in mine]
