"""How long a step takes on this machine: measured for some models, by FLOP/s between them for the others."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from wukong_jax.config.codec import from_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.errors import UserError
from wukong_jax.scaling.sweep_plan import PlannedRun, step_key
from wukong_jax.training.data import data_path, open_data
from wukong_jax.training.program import build_program

STEPS, SECONDS = 10, 3.0
"""Most steps, and seconds, of one measurement."""


class Timing(NamedTuple):
    """What one model's training step takes."""

    step_seconds: float
    """Median of some steps after the first one."""
    start_seconds: float
    """Building, compiling and the first step."""


def measuring_order(runs: Sequence[PlannedRun]) -> list[RunConfig]:
    """One config for each distinct step: each series' largest, each one's smallest, then halving the gaps between."""
    series: dict[str, dict[str, PlannedRun]] = {}
    for run in sorted(runs, key=lambda run: -step_flops(run)):
        series.setdefault(run.point.series, {}).setdefault(step_key(run.config), run)
    ranked = [(round_, run) for group in series.values() for round_, run in _ends_first(list(group.values()))]
    configs: dict[str, RunConfig] = {}
    for _, run in sorted(ranked, key=lambda item: item[0]):
        configs.setdefault(step_key(run.config), run.config)
    return list(configs.values())


def _ends_first(runs: list[PlannedRun]) -> list[tuple[int, PlannedRun]]:
    """Each run with the round in which it is measured: 0 the first, 1 the last, then the middles of the gaps."""
    rounds = {0: 0} | ({len(runs) - 1: 1} if len(runs) > 1 else {})
    gaps, number = [(0, len(runs) - 1)], 2
    while gaps:
        halves = []
        for low, high in gaps:
            middle = (low + high) // 2
            if high - low > 1:
                rounds[middle] = number
                halves += [(low, middle), (middle, high)]
        gaps, number = halves, number + 1
    return [(rounds[index], run) for index, run in enumerate(runs)]


def step_flops(run: PlannedRun) -> int:
    """Training FLOPs of one step."""
    return run.cost.training_flops * run.config.train.batch_size


def interpolate(runs: Sequence[PlannedRun], measured: Mapping[str, Timing]) -> dict[str, Timing]:
    """Timings by `step_key`: the measured ones, and by FLOP/s for the others.

    FLOP/s = exp(linear in log FLOPs of a step between the measured ones of the series, constant beyond them); a series
    of which none was measured takes those of all series. Where nothing was measured the result is empty.
    """
    points: dict[str, dict[int, tuple[float, float]]] = {}
    for run in runs:
        timing = measured.get(step_key(run.config))
        if timing is not None:
            flops = max(step_flops(run), 1)
            points.setdefault(run.point.series, {})[flops] = flops / timing.step_seconds, timing.start_seconds
    everything = {flops: value for group in points.values() for flops, value in group.items()}
    found = dict(measured)
    for run in runs if everything else []:
        known = sorted(points.get(run.point.series, everything).items())
        logs = np.log([flops for flops, _ in known])
        flops = max(step_flops(run), 1)
        rate = np.exp(np.interp(np.log(flops), logs, np.log([rate for _, (rate, _) in known])))
        start = np.interp(np.log(flops), logs, [start for _, (_, start) in known])
        found.setdefault(step_key(run.config), Timing(float(flops / rate), float(start)))
    return found


def print_timings(configs: Sequence[dict[str, Any]], seconds: float) -> None:
    """Print one JSON object a line: the device, then each config's timing, until `seconds` have passed."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    _print({"platform": device.platform, "device": device.device_kind, "memory": limit})
    end = time.monotonic() + seconds
    for plain in configs:
        if time.monotonic() >= end:
            break
        config = from_plain(RunConfig, plain)
        try:
            _print({"step_key": step_key(config), **measure(config)._asdict()})
        except (UserError, jax.errors.JaxRuntimeError) as error:  # the last one: out of memory
            _print({"step_key": step_key(config), "error": str(error).partition("\n")[0]})


def measure(config: RunConfig) -> Timing:
    """Build the config's training step and time it, on rows of its store or, where there is none yet, on random ids."""
    begun = time.monotonic()
    program = build_program(config, STEPS)
    batch = jax.device_put(_some_batch(config), program.batch_shardings)
    state = jax.block_until_ready(program.train_step(program.init(), batch))
    start = time.monotonic() - begun
    times: list[float] = []
    while len(times) < STEPS and sum(times) < SECONDS:
        before = time.monotonic()
        state = jax.block_until_ready(program.train_step(state, batch))
        times.append(time.monotonic() - before)
    return Timing(statistics.median(times), start)


def _some_batch(config: RunConfig) -> Batch:
    schema, rows = config.batch_schema, config.train.batch_size
    path = data_path(config)
    if path.exists():
        split = open_data(config, path, verify=False).split("train")
        return split.take(np.arange(rows) % split.rows)
    rng = np.random.default_rng(0)
    ids = np.zeros((rows, schema.id_columns), np.int32)
    for feature in schema.id_features:
        part = schema.id_slices()[feature.name]
        ids[:, part] = rng.integers(0, feature.vocabulary_size, (rows, part.stop - part.start))
    return Batch(
        ids,
        rng.normal(size=(rows, len(schema.numeric))).astype(np.float32),
        rng.normal(size=(rows, schema.vector_columns)).astype(np.float32),
        rng.integers(0, 2, (rows, len(schema.labels))).astype(np.float32),
        np.ones(rows, np.float32),
    )


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
