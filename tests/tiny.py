"""A tiny store, config and run that the tests of training and of the commands share."""

import contextlib
import dataclasses
import functools
import io
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import rich.console

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import LogisticRegressionConfig, WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature
from wukong_jax.data.store import Store, StoreWriter, open_store, widths
from wukong_jax.training.checkpoint import Checkpoints
from wukong_jax.training.display import PlainDisplay
from wukong_jax.training.events import EventLog
from wukong_jax.training.loop import Loop, total_steps
from wukong_jax.training.program import Program, build_program
from wukong_jax.training.progress import Progress
from wukong_jax.training.state import TrainState

SCHEMA = DatasetSchema(
    categorical=(CategoricalFeature("user", 9), CategoricalFeature("item", 21)),
    multi_hot=(MultiHotFeature("tags", 6, 3, "mean"),),
    numeric=(NumericFeature("price"),),
    group="user",
)
ROWS = {"train": 70, "valid": 25, "test": 30}
STEPS_PER_EPOCH = 4
"""70 rows in batches of 16."""


def write_store(
    path: pathlib.Path, schema: DatasetSchema = SCHEMA, rows: dict[str, int] = ROWS, seed: int = 0
) -> Store:
    """Random rows whose labels depend on the first id column, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    with StoreWriter(path, schema) as writer:
        for split, count in rows.items():
            ids = np.zeros((count, schema.id_columns), np.int32)
            for feature in schema.id_features:
                part = schema.id_slices()[feature.name]
                ids[:, part] = rng.integers(0, feature.vocabulary_size, (count, part.stop - part.start))
                if isinstance(feature, MultiHotFeature):  # at least one value, a varying number of them
                    places = np.arange(feature.max_length)
                    ids[:, part][places[None] > rng.integers(0, feature.max_length, count)[:, None]] = -1
            chance = np.where(ids[:, :1] % 2 == 0, 0.2, 0.8)
            columns = {
                "ids": ids,
                "labels": (rng.random((count, len(schema.labels))) < chance).astype(np.float32),
                "numeric": rng.normal(size=(count, len(schema.numeric))).astype(np.float32),
                "weights": rng.uniform(0.5, 2, count).astype(np.float32),
                "group": ids[:, 0].astype(np.int64),
                "time": np.arange(count, dtype=np.int64),
            }
            writer.append(split, {kind: columns[kind] for kind in widths(schema)})
    return open_store(path)


def table_rule(update: str, name: str) -> TablesConfig:
    """One rule for all tables."""
    return TablesConfig((TableRule(update=update, name=name, learning_rate=0.05, l2=1e-3),))


def tiny_config(store: pathlib.Path, schema: DatasetSchema = SCHEMA, **train: Any) -> RunConfig:
    """Wukong with everything that keeps state: dropout, BatchNorm, schedule, clipping, row-sparse tables."""
    settings = {"batch_size": 16, "epochs": 3, "log_every_steps": 3, "eval_batch_size": 16, "checkpoint_every_steps": 5}
    return RunConfig(
        name="tiny",
        schema=schema,
        data=DataConfig(store=str(store)),
        model=WukongConfig(
            width=4,
            num_layers=1,
            num_fmb=2,
            num_lcb=2,
            rank=2,
            fmb_mlp=MLPConfig((4,)),
            head=MLPConfig((4,), dropout=0.2, batch_norm=True),
        ),
        optimizer=OptimizerConfig(
            learning_rate=0.01, clip_norm=1.0, schedule=ScheduleConfig(decay="cosine", warmup_steps=2)
        ),
        tables=table_rule("row_sparse", "adagrad"),
        train=TrainConfig(**(settings | train)),
    )


def plain_config(store: pathlib.Path, schema: DatasetSchema = SCHEMA, **train: Any) -> RunConfig:
    """Logistic regression: the quickest to compile, where the model does not matter."""
    config = tiny_config(store, schema, **train)
    return dataclasses.replace(config, model=LogisticRegressionConfig(), optimizer=OptimizerConfig(learning_rate=0.01))


def memory_console(**options: Any) -> rich.console.Console:
    """A console that prints into a string: `printed(console)`."""
    return rich.console.Console(file=io.StringIO(), width=200, **options)


def printed(console: rich.console.Console) -> str:
    """What was printed on a `memory_console`."""
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def compiled(config: RunConfig, steps: int) -> Program:
    """The program of a config, compiled once for all tests of a process, wherever their stores lie."""
    anywhere = dataclasses.replace(config, data=DataConfig(store="anywhere"))
    anywhere = dataclasses.replace(anywhere, train=dataclasses.replace(config.train, tensorboard=False, keep_last=1))
    quickly = jax.config.read("jax_disable_most_optimizations")
    return dataclasses.replace(_compiled(anywhere, steps, quickly), config=config)


def compiled_with_shared_evaluation(config: RunConfig, steps: int) -> Program:
    """As `compiled`; configs of one model share the compiled evaluation, the slowest part, whatever their rates."""
    train = TrainConfig(eval_batch_size=config.train.eval_batch_size)
    tables, optimizer = table_rule("row_sparse", "adagrad"), OptimizerConfig(learning_rate=0.01)
    any_rates = dataclasses.replace(config, name="tiny", tables=tables, optimizer=optimizer, train=train)
    return dataclasses.replace(compiled(config, steps), eval_step=compiled(any_rates, 1).eval_step)


@functools.cache
def _compiled(config: RunConfig, steps: int, quickly: bool) -> Program:
    """Of its own for files that let XLA optimise little: what others get must not depend on which came first."""
    return build_program(config, steps)


def before_step(program: Program, step: int, act: Callable[[], None]) -> Program:
    """The program with `act` called just before the given step (counted from 1) is computed."""

    def train_step(state: TrainState, batch: Any) -> TrainState:
        if int(state.step) + 1 == step:
            act()
        return program.train_step(state, batch)

    return dataclasses.replace(program, train_step=train_step)


def send_sigterm() -> None:
    """SIGTERM to this process, which the loop turns into a save after the step."""
    signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def opened_loop(program: Program, store: Store, folder: pathlib.Path) -> Iterator[Loop]:
    """A loop that goes on from the folder's latest checkpoint, or starts."""
    steps = total_steps(program.config, store)
    with Checkpoints(folder, program.config.train.keep_last) as checkpoints:
        restored = checkpoints.restore_latest(program.abstract_state(), print)
        state = program.init() if restored is None else restored.state
        progress = Progress() if restored is None else Progress.from_json(restored.progress["progress"])
        display = PlainDisplay(memory_console(), steps)
        yield Loop(program, store, checkpoints, display, EventLog(None), state, progress, steps)


def run_loop(program: Program, store: Store, folder: pathlib.Path) -> tuple[TrainState, Progress]:
    """Train to the end, from wherever the folder's checkpoints stand."""
    with opened_loop(program, store, folder) as loop:
        loop.run()
        return loop.state, loop.progress


def assert_same_state(actual: TrainState, expected: TrainState) -> None:
    """Every leaf but the work space, bit by bit."""
    left, right = (jax.tree_util.tree_leaves_with_path(state.replace(scratch={})) for state in (actual, expected))
    assert [path for path, _ in left] == [path for path, _ in right]
    for (path, a), (_, b) in zip(left, right, strict=True):
        assert a.dtype == b.dtype, path
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(path)


def without_times(progress: Progress) -> dict[str, Any]:
    """All of the progress that must not depend on interruptions."""
    plain = progress.to_json()
    for name in ("train_seconds", "timed_examples", "wall_seconds"):
        del plain[name]
    return plain
