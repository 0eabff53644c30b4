"""A trained run opened for scoring: program, best checkpoint, store."""

import dataclasses
import pathlib

import rich.console

from wukong_jax.data.obtain_store import check_schema
from wukong_jax.data.store import Store
from wukong_jax.errors import DataError
from wukong_jax.training.data import data_path, open_data
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
    """Load the run's best checkpoint and its store, or the given one; raises `UserError` where they do not fit.

    The store must encode values as the run's own did: the same ids would otherwise mean other values.
    """

    def warn(text: str) -> None:
        console.print(f"warning: {text}", soft_wrap=True, markup=False, highlight=False)

    program, best = load_best(folder, warn)
    path = store or data_path(program.config)
    if not path.exists():
        raise DataError(f"store {path} does not exist; name the store that the run was trained on with --store")
    opened = open_data(program.config, path)
    check_schema(opened, program.config.batch_schema)
    if opened.encoding_digest != best.progress["encoding_digest"]:
        raise DataError(
            f"store {path} encodes values in another way than the one that {folder} was trained on; give that one with "
            "--store, or score raw rows with its vocabularies: `predict --files`"
        )
    return OpenRun(program, best.state, best.step, opened)
