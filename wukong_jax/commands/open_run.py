"""A trained run opened for scoring: program, best checkpoint, store."""

import dataclasses
import pathlib

import rich.console

from wukong_jax.data.obtain_store import obtain_store
from wukong_jax.data.store import Store
from wukong_jax.training.program import Program
from wukong_jax.training.run import load_best
from wukong_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """What scoring needs."""

    program: Program
    state: TrainState
    step: int
    store: Store


def open_run(folder: pathlib.Path, store: pathlib.Path | None, console: rich.console.Console) -> OpenRun:
    """Load the run's best checkpoint and its store, or the given one; raises `UserError` where they do not fit."""
    program, best = load_best(folder, console.print)
    data = program.config.data
    if store is not None:
        data = dataclasses.replace(data, store=str(store), recipe=None)
    return OpenRun(program, best.state, best.step, obtain_store(data, program.config.schema, console))
