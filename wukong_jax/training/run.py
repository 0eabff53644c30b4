"""One run from config to record: open the data, resume or start, train, evaluate the best checkpoint, report."""

import json
import pathlib
import shutil
from typing import Any

import rich.console

from wukong_jax.config.codec import difference, from_plain, to_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.data.obtain_store import obtain_store
from wukong_jax.data.store import Store
from wukong_jax.errors import CheckpointError, ConfigError
from wukong_jax.evaluation.evaluator import evaluate_split
from wukong_jax.files import write_text
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.training.checkpoint import Checkpoints, Restored
from wukong_jax.training.curves import draw_curves
from wukong_jax.training.display import make_display
from wukong_jax.training.events import EventLog
from wukong_jax.training.loop import Loop, total_steps
from wukong_jax.training.program import Program, build_program
from wukong_jax.training.progress import Progress
from wukong_jax.training.record import make_record, read_records, write_records
from wukong_jax.training.state import TrainState

CONFIG_FILE, RECORD_FILE, CURVES_FILE, CHECKPOINTS = "config.json", "record.jsonl", "curves.png", "checkpoints"


def default_folder(config: RunConfig, root: pathlib.Path) -> pathlib.Path:
    """<root>/<name>/<hash of what decides the result>: the same command finds its own run again."""
    return root / config.name / config.identity_hash()


def train(
    config: RunConfig, folder: pathlib.Path, console: rich.console.Console, *, fresh: bool = False, force: bool = False
) -> dict[str, Any]:
    """Train, or go on where the folder's run stopped; returns the run record, also written to `record.jsonl`.

    A finished run is not trained again. Raises `ConfigError` if the folder holds a run of another config, or if `fresh`
    would overwrite one without `force`; `StoppedBySignal` if a signal ended it early.
    """
    if fresh and folder.exists() and any(folder.iterdir()):
        if not force:
            raise ConfigError(f"{folder} holds a run; add --force to delete it, or choose another folder with --run-dir")
        shutil.rmtree(folder)
    check_same_config(config, folder)
    if (folder / RECORD_FILE).is_file():
        console.print(f"{folder} holds the finished run; nothing to train (--fresh --force trains it anew)", soft_wrap=True)
        return next(iter(read_records(folder / RECORD_FILE)))
    store = obtain_store(config.data, config.schema, console)
    steps = total_steps(config, store)
    program = build_program(config, steps)
    make_folder(folder)
    with Checkpoints(folder / CHECKPOINTS, config.train.keep_last) as checkpoints:
        state, progress = _resume_or_start(program, store, checkpoints, console)
        write_text(folder / CONFIG_FILE, json.dumps(to_plain(config), indent=1))
        events = EventLog(folder / "tensorboard" if config.train.tensorboard else None)
        display = make_display(console, progress.step, steps)
        display.message(f"run folder {folder}, {steps} steps of {config.train.batch_size} examples")
        loop = Loop(program, store, checkpoints, display, events, state, progress, steps)
        try:
            loop.run()
        finally:
            display.close()
            events.close()
        checkpoints.wait()
        best_step = progress.best_step if progress.best_step is not None else progress.step
        best = checkpoints.restore(best_step, program.abstract_state())
        results = evaluate_all(program, store, best.state)
        location = str(folder / CHECKPOINTS / str(best_step))
    record = make_record(config, store, describe_cost(config), progress, results, location)
    draw_curves(folder / CURVES_FILE, f"{config.name}, seed {config.train.seed}", progress.history)
    write_records(folder / RECORD_FILE, [record])
    return record


def evaluate_all(program: Program, store: Store, state: TrainState) -> dict[str, dict[str, float]]:
    """Metrics of validation and test with exact AUC and, where there is a group, gAUC."""
    batch_size = program.config.train.eval_batch_size
    return {
        name: evaluate_split(lambda m, b: program.eval_step(state, m, b), split, batch_size, exact=True)
        for name, split in store.splits.items()
        if name != "train"
    }


def load_best(folder: pathlib.Path, warn: Any) -> tuple[Program, Restored]:
    """The program and the best whole checkpoint of a run folder; raises `CheckpointError` if there is none."""
    config = load_config(folder)
    program = build_program(config, 1)
    with Checkpoints(folder / CHECKPOINTS, config.train.keep_last) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise CheckpointError(f"{folder / CHECKPOINTS} holds no whole checkpoint; train the run first")
        best = checkpoints.progress(steps[-1])["progress"]["best_step"]
        return program, checkpoints.restore(best if best in steps else steps[-1], program.abstract_state())


def load_config(folder: pathlib.Path) -> RunConfig:
    """The config of a run folder; raises `ConfigError` if it holds none."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} is no run folder (it has no {CONFIG_FILE}); train.py prints the folder it writes to")
    try:
        return from_plain(RunConfig, json.loads(path.read_text()))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}); start the run anew with --fresh --force") from error


def check_same_config(config: RunConfig, folder: pathlib.Path) -> None:
    """Raise `ConfigError` with a readable difference if the folder's run had another config."""
    if not (folder / CONFIG_FILE).is_file():
        return
    lines = difference(load_config(folder).identity(), config.identity())
    if lines:
        raise ConfigError(
            f"{folder} holds a run of another configuration (run -> now):\n  " + "\n  ".join(lines) + "\n"
            "go on with the same settings, choose another folder with --run-dir, or start anew with --fresh --force"
        )


def make_folder(folder: pathlib.Path) -> None:
    """Create the run folder; raises `ConfigError` if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"run folder {folder} cannot be written ({error}); choose another with --run-dir") from error


def _resume_or_start(
    program: Program, store: Store, checkpoints: Checkpoints, console: rich.console.Console
) -> tuple[TrainState, Progress]:
    def warn(text: str) -> None:
        console.print(f"warning: {text}", soft_wrap=True)

    restored = checkpoints.restore_latest(program.abstract_state(), warn)
    if restored is None:
        return program.init(), Progress()
    if restored.progress["store_digest"] != store.digest:
        raise CheckpointError(
            f"checkpoint {checkpoints.folder}: it was trained on other data than store {store.path} now holds; "
            "restore that store, choose another folder with --run-dir, or start anew with --fresh --force"
        )
    progress = Progress.from_json(restored.progress["progress"])
    console.print(f"resuming after step {progress.step}")
    return restored.state, progress


