"""Made-up records of a sweep: every study, two models, a floor, seeds, and runs that diverged."""

import dataclasses
import json
import pathlib

import numpy as np

import wukong_jax
from tests.tiny import plain_config, tiny_config
from wukong_jax.comparison.records import portable, record_path
from wukong_jax.config.codec import to_plain
from wukong_jax.files import write_text
from wukong_jax.scaling.sweep_records import failure_path
from wukong_jax.training.record import write_records

FLOOR = 0.4
SIZES = tuple(float(size) for size in np.geomspace(0.3, 100, 7).round(3))
BATCH = 16
ROWS = 10_000_000
STORE = pathlib.Path("store")


@dataclasses.dataclass(frozen=True)
class Made:
    """One run to be written; `logloss` None for one that diverged."""

    series: str
    study: str
    varied: dict
    compute: float
    logloss: float | None
    seed: int = 0
    steps: int = 100
    changes: dict = dataclasses.field(default_factory=dict)
    """Keys of the record that replace its own; None takes one away."""


def config_of(made):
    """A config of its own for every setting; parts of Wukong that `varied` turns off are off."""
    config = (tiny_config if made.series.startswith("Wukong") else plain_config)(STORE, batch_size=BATCH)
    words = "-".join(f"{name}{value}" for name, value in made.varied.items())
    name = "".join(
        c for c in f"{made.series}-{made.study}-{made.compute:g}-{words}-{made.steps}" if c.isalnum() or c == "-"
    )
    flags = {name: value for name, value in made.varied.items() if name in ("use_fmb", "use_lcb", "residual")}
    return dataclasses.replace(
        config,
        name="".join(letter for letter in name if letter.isalnum() or letter == "-"),
        model=dataclasses.replace(config.model, **flags),
        train=dataclasses.replace(config.train, seed=made.seed),
    )


def record_of(made):
    """The record that a sweep would keep of it."""
    config = config_of(made)
    facts = {
        "record_version": 1,
        "name": config.name,
        "model": type(config.model).__name__.removesuffix("Config"),
        "config": to_plain(config),
        "config_hash": config.hash(),
        "schema_hash": config.schema.hash(),
        "store_digest": "digest",
        "seed": made.seed,
        "version": "0.1.0",
        "numerics_revision": wukong_jax.NUMERICS_REVISION,
        "jax_version": "0.10.2",
        "python_version": "3.11.2",
        "device": "cpu",
        "platform": "cpu",
        "devices": 1,
        "examples": {"train": ROWS, "valid": 25, "test": 30},
        "dense_parameters": int(made.compute * 1e5),
        "sparse_parameters": 1000,
        "forward_flops_per_example": int(made.compute * 1e6 / 3),
        "training_flops_per_example": int(made.compute * 1e6),
        "steps": made.steps,
        "best_step": made.steps,
        "results": {"test": {"logloss": made.logloss, "auc": 0.7}},
        "best_possible": {"test": {"logloss": FLOOR, "auc": 0.9}},
        "history": [{"split": "train", "step": made.steps, "logloss": 0.5}],
        "examples_per_second": 1000.0,
        "wall_seconds": 12.5,
        "checkpoint": "runs/somewhere/100",
        "series": made.series,
        "study": made.study,
        "varied": made.varied,
    }
    plain = portable(json.loads(json.dumps(facts))) | made.changes
    return {name: value for name, value in plain.items() if value is not None}


def write_made(folder, runs):
    """Write all of them as a sweep does; returns the folder."""
    for made in runs:
        plain = record_of(made)
        if made.logloss is not None:
            write_records(record_path(folder, config_of(made)), [plain])
            continue
        lost = ("results", "steps", "best_step", "history", "store_digest", "wall_seconds", "examples", "best_possible")
        plain = {name: value for name, value in plain.items() if name not in lost} | {"failed": "loss is nan at step 9"}
        write_text(failure_path(folder, config_of(made)), json.dumps(plain) + "\n")
    return folder


def ladder(rng, noise=0.0005, seeds=(0, 1), sizes=SIZES):
    """Wukong falls towards the floor, DLRM stops above it and then diverges."""
    for size in sizes:
        for seed in seeds:
            yield Made("Wukong", "ladder", {"budget_mflop": size}, size, wukong_law(size) + noise * rng.normal(), seed)
            value = None if size == SIZES[-1] else dlrm_law(size) + noise * rng.normal()
            yield Made("DLRM", "ladder", {"budget_mflop": size}, size, value, seed)


def wukong_law(size):
    return FLOOR + 0.1 * size**-0.3


def dlrm_law(size):
    return 0.45 + 0.05 * size**-2.0


KNOBS = {
    ("num_layers", 4): (5.0, -0.5),
    ("num_layers", 8): (9.0, -0.9),
    ("rank", 16): (4.0, -0.2),
    ("rank", 32): (6.5, 0.1),
    ("fmb_mlp.widths", (128, 128)): (8.0, -0.4),
}
"""Knob and value: compute, and change of the LogLoss in percent."""
KNOB_BASE = {"num_layers": 2, "rank": 8, "fmb_mlp.widths": [64, 64]}


def knobs(seeds=(0, 1)):
    """The base at 0.5 (a little other in each seed), and each knob alone; rank 64 diverges."""
    for seed in seeds:
        base = 0.5 + 0.001 * seed
        yield Made("Wukong", "knob", KNOB_BASE, 3.0, base, seed)
        for (name, value), (compute, percent) in KNOBS.items():
            varied = KNOB_BASE | {name: list(value) if isinstance(value, tuple) else value}
            yield Made("Wukong", "knob", varied, compute, base * (1 + percent / 100), seed)
        yield Made("Wukong", "knob", KNOB_BASE | {"rank": 64}, 12.0, None, seed)


ABLATION = {("use_fmb",): 0.9, ("use_lcb",): 0.1, ("residual",): 0.2, ("use_lcb", "residual"): 2.0}


def ablation(seeds=(0, 1, 2)):
    """The full model at 0.5; without a part it is worse by so many percent, by 0.05 more in each seed."""
    full = {"use_fmb": True, "use_lcb": True, "residual": True}
    for seed in seeds:
        yield Made("Wukong", "ablation", full, 3.0, 0.5, seed)
        for parts, percent in ABLATION.items():
            varied = full | dict.fromkeys(parts, False)
            yield Made("Wukong", "ablation", varied, 3.0, 0.5 * (1 + (percent + 0.05 * seed) / 100), seed)


def joint_law(compute, examples):
    return FLOOR + 0.05 * compute**-0.4 + 3.0 * examples**-0.5


def data(rng, noise=0.0002, seeds=(0, 1)):
    """Four sizes, each on four numbers of examples."""
    for compute in (0.5, 2.0, 8.0, 32.0):
        for steps in (100, 400, 1600, 6400):
            for seed in seeds:
                varied = {"budget_mflop": compute, "examples": steps * BATCH}
                value = joint_law(compute, steps * BATCH) + noise * rng.normal()
                yield Made("Wukong", "data", varied, compute, value, seed, steps)


def everything(rng):
    """All four studies, and one that no figure shows."""
    rates = [Made("Wukong", "rates", {"learning_rate": 0.1}, 3.0, 0.6)]
    return [*ladder(rng, seeds=(0,)), *knobs(), *ablation(), *data(rng, seeds=(0,)), *rates]
