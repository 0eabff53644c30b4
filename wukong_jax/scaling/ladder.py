"""From a compute budget to a config: each model grows by its own knobs, see `schedules.py`.

A model's ladder is one row of configs with rising FLOPs: shape after shape, and within a shape width after width up to
where the next shape starts. A rung is the config of that row nearest to
the budget, so that more compute never gives a smaller model. Schema, data, embedding width, optimizers and training
stay those of the base; so do the number of hidden layers of its MLPs, their dropout and their BatchNorm.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from wukong_jax.config.checks import check_positive
from wukong_jax.config.models import ModelConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError
from wukong_jax.scaling.closed_form import forward_flops
from wukong_jax.scaling.flops import TRAINING_FACTOR, Cost, describe_cost
from wukong_jax.scaling.memory import Memory, step_memory
from wukong_jax.scaling.schedules import Shape, shapes
from wukong_jax.scaling.sweep import Point, Points
from wukong_jax.scaling.sweep_processes import machine_memory

MFLOP = 1e6
PF_DAY = 8.64e19
"""FLOPs of a PFLOP/s for a day: 10^15 x 86,400."""
TOLERANCE = 0.10
"""A rung may miss its budget by so much; only the lowest ones do by more than half of it."""
SEARCH_STEPS = 8


def flops_per_example(pf_days: int | float, examples: int | float) -> float:
    """Training FLOPs per example that spend a budget on so many examples: PF-days x 8.64e19 / examples.

    Raises `ConfigError` where one of them is not positive.
    """
    check_positive("pf_days", pf_days)
    check_positive("examples", examples)
    return pf_days * PF_DAY / examples


def pf_days(training_flops: int | float, examples: int | float) -> float:
    """PF-days of training on so many examples: FLOPs per example x examples / 8.64e19."""
    return training_flops * examples / PF_DAY


def rung(base: RunConfig, training_flops: int | float, *, memory_bytes: int | None = None) -> RunConfig:
    """The base with its model grown or shrunk to a budget of training FLOPs per example (3 x forward).

    Raises `ConfigError` for a model without a ladder, a budget below its smallest rung or between two rungs that are
    both more than 10 % away, and for a rung that needs more than `memory_bytes`.
    """
    check_positive("training_flops", training_flops)
    config = dataclasses.replace(base, model=_nearest(base, training_flops))
    if memory_bytes is not None:
        cost = describe_cost(config)
        memory = step_memory(config, cost)
        if memory.total > memory_bytes:
            raise ConfigError(_what_would_fit(base, cost, memory, training_flops, memory_bytes))
    return config


def over_budgets(points: Sequence[Point], mflop: Sequence[int | float], *, memory_bytes: int | None = None) -> Points:
    """Every point's model at each budget in training MFLOP per example, cheap ones first: `varied["budget_mflop"]`.

        over_budgets(points_of("ladder", {"Wukong": wukong, "DLRM": dlrm}), (0.3, 1, 3))
        over_budgets(points, [flops_per_example(pf_days=0.01, examples=4e7) / 1e6])

    Raises `ConfigError` as `rung` does, with this machine's memory unless another is given.
    """
    limit = machine_memory() if memory_bytes is None else memory_bytes
    found = []
    for budget, point in itertools.product(mflop, points):
        try:
            config = rung(point.config, budget * MFLOP, memory_bytes=limit)
        except ConfigError as error:
            raise ConfigError(f"{point}, budget of {budget:g} MFLOP: {error}") from error
        varied = {**point.varied, "budget_mflop": budget}
        found.append(dataclasses.replace(point, varied=varied, config=config))
    return tuple(found)


def smallest_rung(base: RunConfig) -> RunConfig:
    """The first rung of the base's ladder; raises `ConfigError` for a model without one."""
    first = next(shapes(base.model, base.batch_schema))
    return dataclasses.replace(base, model=first.at(0))


def training_flops_of(base: RunConfig, model: ModelConfig) -> int:
    """Training FLOPs per example of a model on the base's schema."""
    return TRAINING_FACTOR * forward_flops(model, base.batch_schema)


def _rising(base: RunConfig) -> Iterator[tuple[int, Shape]]:
    """(FLOPs at its entry, shape) of the ladder's shapes, without those that start no higher than one before."""
    highest = 0
    for shape in shapes(base.model, base.batch_schema):
        flops = training_flops_of(base, shape.at(0))
        if flops > highest:
            highest = flops
            yield flops, shape


def _nearest(base: RunConfig, budget: int | float) -> ModelConfig:
    below, above = _beside(base, budget)
    nearest = min((below, above), key=lambda model: abs(training_flops_of(base, model) - budget))
    if abs(training_flops_of(base, nearest) / budget - 1) > TOLERANCE:
        raise ConfigError(
            f"training_flops: received {budget:,.0f} per example; the rungs beside it take "
            f"{training_flops_of(base, below):,} and {training_flops_of(base, above):,}, more than "
            f"{TOLERANCE:.0%} away; take one of these budgets"
        )
    return nearest


def _beside(base: RunConfig, budget: int | float) -> tuple[ModelConfig, ModelConfig]:
    """The largest rung within the budget and the next one."""
    found: Shape | None = None
    following: ModelConfig | None = None
    for flops, shape in _rising(base):
        if flops > budget:
            following = shape.at(0)
            break
        found = shape
    if found is None:
        name, smallest = type(base.model).__name__.removesuffix("Config"), smallest_rung(base).model
        raise ConfigError(
            f"training_flops: received {budget:,.0f} per example, but the smallest {name} on this schema and embedding "
            f"width takes {training_flops_of(base, smallest):,}; give more, or a narrower embedding"
        )
    step = _widest(base, found, budget)
    below, above = found.at(step), found.at(step + 1)
    limit = math.inf if following is None else training_flops_of(base, following)
    if following is not None and training_flops_of(base, above) >= limit:
        above = following
    return below, above


def _widest(base: RunConfig, shape: Shape, budget: int | float) -> int:
    """The step of a shape's largest width within the budget, by doubling and bisection."""

    def fits(step: int) -> bool:
        return training_flops_of(base, shape.at(step)) <= budget

    above = next(2**power for power in itertools.count() if not fits(2**power))
    below = above // 2 if above > 1 else 0
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if fits(middle) else (below, middle)
    return below


def _what_would_fit(base: RunConfig, cost: Cost, memory: Memory, budget: int | float, limit: int) -> str:
    """The message of a refusal: what is needed, and every single change that would do."""
    excess, ways = memory.total - limit, []
    rows = sum(spec.rows for spec, _ in cost.tables)
    fewer = rows - math.ceil(excess * rows / (memory.tables + memory.slots))
    if fewer >= len(cost.tables):
        ways.append(f"at most {fewer:,} rows in the tables instead of {rows:,}")
    examples = (limit - memory.total + memory.activations) // cost.activation_bytes
    if examples >= 1:
        ways.append(
            f"at most {examples:,} examples at a time instead of {memory.examples:,} (train.micro_batch, or "
            "train.batch_size with BatchNorm)"
        )
    largest = _largest_that_fits(base, budget, limit)
    if largest is not None:
        ways.append(f"a budget of {largest:,} training FLOPs per example")
    needs = ", ".join(
        f"{name} {size / 2**20:,.1f}"
        for name, size in zip(("tables", "slots", "dense", "activations"), memory[:4], strict=True)
    )
    return (
        f"memory: {budget:,.0f} training FLOPs per example need {memory.total / 2**20:,.1f} MiB ({needs}), but there "
        f"are {limit / 2**20:,.1f} MiB; what would fit: {'; or '.join(ways) or 'nothing but more memory'}"
    )


def _largest_that_fits(base: RunConfig, budget: int | float, limit: int) -> int | None:
    """Training FLOPs of about the largest rung within the memory, by bisection of their logarithm; None if none is."""
    found: int | None = None
    low: int | float = training_flops_of(base, smallest_rung(base).model)
    candidate, high = low, budget
    for _ in range(SEARCH_STEPS):
        config = dataclasses.replace(base, model=_beside(base, candidate)[0])
        if step_memory(config, describe_cost(config)).total <= limit:
            found = max(found or 0, training_flops_of(base, config.model))
            low = candidate
        elif found is None:
            return None
        else:
            high = candidate
        candidate = math.sqrt(low * high)
    return found
