"""One run from config to record: open the data, resume or start, train, evaluate the best checkpoint, report."""

import contextlib
import dataclasses
import fcntl
import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import rich.console

from wukong_jax.agreement import SharedError, exchange, lead, leads, process_count, process_index, together
from wukong_jax.config.codec import difference, from_plain, to_plain
from wukong_jax.config.mesh import MeshConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.data.pipeline import check_own_part
from wukong_jax.data.store import Store
from wukong_jax.distributed import leaving_on_errors
from wukong_jax.errors import BusyError, CheckpointError, ConfigError, TrainingError
from wukong_jax.evaluation.collapse import trained_abundance
from wukong_jax.files import write_text
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.sequential.schema import SequenceSchema
from wukong_jax.training.checkpoint import Checkpoints, DamagedCheckpoint, Restored
from wukong_jax.training.curves import draw_curves
from wukong_jax.training.data import data_path, obtain_data, open_data
from wukong_jax.training.display import make_display
from wukong_jax.training.events import EventLog
from wukong_jax.training.loop import VALIDATION, Loop, StoppedBySignal, evaluation_of, has_validation, total_steps
from wukong_jax.training.program import Program, build_program
from wukong_jax.training.progress import Progress
from wukong_jax.training.record import make_record, read_records, write_records
from wukong_jax.training.relayout import saved_layout
from wukong_jax.training.state import TrainState

CONFIG_FILE, RECORD_FILE, CURVES_FILE, CHECKPOINTS = "config.json", "record.jsonl", "curves.png", "checkpoints"
EVENTS, LOCK_FILE = "tensorboard", ".lock"
RUN_FILES = (RECORD_FILE, CURVES_FILE, EVENTS, f"{CHECKPOINTS}.damaged", CHECKPOINTS, CONFIG_FILE)


def default_folder(config: RunConfig, root: pathlib.Path) -> pathlib.Path:
    """<root>/<name>/<hash of what decides the result>: the same command finds its own run again."""
    return root / config.name / config.identity_hash()


def train(
    config: RunConfig,
    folder: pathlib.Path,
    console: rich.console.Console,
    *,
    fresh: bool = False,
    force: bool = False,
    on_evaluation: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Train, or go on where the folder's run stopped; returns the run record, also written to `record.jsonl`.

    A finished run is not trained again. `on_evaluation` is called after each evaluation that this call computes; what
    it raises ends the run there. Raises `ConfigError` if the folder holds a run of another config, or if `fresh`
    would overwrite one without `force`; `StoppedBySignal` if a signal ended it early. The processes of a job call it
    together; process 0 alone writes.
    """
    _check_same_everywhere(config, str(folder.resolve()), fresh, force)
    anew: bool = lead(lambda: _starts_anew(config, folder, fresh, force))
    if not anew and lead(lambda: _is_finished(config, folder, console)):
        return next(read_records(folder / RECORD_FILE))
    store = obtain_data(config, console)

    def build() -> tuple[Program, int]:
        check_validation(config, store)
        steps = total_steps(config, store)
        program = build_program(config, steps)
        _check_processes(program)
        return program, steps

    program, steps = together(build)
    with contextlib.ExitStack() as held:

        def take_folder() -> None:
            held.enter_context(only_process(folder))
            if anew:  # only now that nothing stands in the way of the new run
                delete_run(folder)

        lead(take_folder)
        return _train_here(program, store, steps, folder, console, on_evaluation)


def _starts_anew(config: RunConfig, folder: pathlib.Path, fresh: bool, force: bool) -> bool:
    """Whether a run in the folder is to be deleted; raises `ConfigError` if it neither may be nor can go on."""
    anew = fresh and holds_run(folder)
    if anew and not force:
        raise ConfigError(f"{folder} holds a run; add --force to delete it, or choose another folder with --run-dir")
    if not anew:
        check_same_config(config, folder)
    return anew


def _check_same_everywhere(config: RunConfig, *options: str | bool) -> None:
    """Raise `ConfigError` unless all processes of a job were given the same settings, folder and other options."""
    given = exchange(lambda: [config.hash(), *options])

    def compare() -> None:
        if given[process_index()] != given[0]:
            shown = (
                "" if given[process_index()][0] != given[0][0] else f" ({given[process_index()][1:]}, {given[0][1:]})"
            )
            raise ConfigError(
                f"this process was given other settings, or another run folder, than process 0{shown}; start all with "
                "the same command in the same folder"
            )

    exchange(compare)


def _check_processes(program: Program) -> None:
    """Raise `ConfigError` unless the mesh has all devices of all processes, and these hold the rows that they read."""
    if process_count() == 1:
        return
    devices = jax.device_count()
    if program.mesh.size != devices:
        shape = " x ".join(str(size) for size in program.mesh.devices.shape)
        raise ConfigError(
            f"mesh: {shape} uses {program.mesh.size} of the {devices} devices of {process_count()} processes, expected "
            f"all of them; for example --mesh.data {devices} --mesh.model 1"
        )
    train = program.config.train
    for size in (train.batch_size, train.eval_batch_size):
        held = program.batch_shardings.ids.addressable_devices_indices_map((size,)).values()
        check_own_part((rows for (rows,) in held), size, process_index(), process_count())


def _train_here(
    program: Program,
    store: Store,
    steps: int,
    folder: pathlib.Path,
    console: rich.console.Console,
    on_evaluation: Callable[[Progress], None] | None,
) -> dict[str, Any]:
    config = program.config
    checkpoints = Checkpoints(folder / CHECKPOINTS, config.train.keep_last)
    with checkpoints, leaving_on_errors(SharedError, TrainingError, StoppedBySignal):
        progress = _run_loop(program, store, steps, folder, checkpoints, console, on_evaluation)
        checkpoints.wait()
        as_saved = functools.partial(saved_layout, program)
        best = checkpoints.restore_best(program.abstract_state(), progress.best_step, _warner(console), as_saved)
        if best is None:
            raise CheckpointError(f"{folder / CHECKPOINTS} has no whole checkpoint left; run the same command again")
        results = evaluate_all(program, store, best.state)
        seen = (store.split("train"), config.train, config.data.shuffle, best.step)
        plan_of = program.objective.example_plan
        abundance = trained_abundance(program.plan, best.state.tables, *seen, plan_of)
    cost, saved = describe_cost(config), folder / CHECKPOINTS
    record = make_record(config, store, cost, progress, results, abundance, saved, best.step)

    def write() -> None:
        draw_curves(folder / CURVES_FILE, f"{config.name}, seed {config.train.seed}", progress.history)
        write_records(folder / RECORD_FILE, [record])

    lead(write)
    return record


def _run_loop(
    program: Program,
    store: Store,
    steps: int,
    folder: pathlib.Path,
    checkpoints: Checkpoints,
    console: rich.console.Console,
    on_evaluation: Callable[[Progress], None] | None,
) -> Progress:
    """All steps that are left. The state ends with this function: beside it the best one may not fit into memory."""
    state, progress = _resume_or_start(program, store, checkpoints, console)
    lead(lambda: write_text(folder / CONFIG_FILE, json.dumps(to_plain(program.config), indent=1)))
    wanted = program.config.train.tensorboard and leads()
    events = together(lambda: EventLog(folder / EVENTS if wanted else None, progress.step))
    display = make_display(console, progress.step, steps)
    display.message(f"run folder {folder}, {steps} steps of {program.config.train.batch_size} examples")
    try:
        Loop(program, store, checkpoints, display, events, state, progress, steps, on_evaluation).run()
    finally:
        display.close()
        events.close()
    return progress


def evaluate_all(program: Program, store: Store, state: TrainState) -> dict[str, dict[str, float]]:
    """Metrics of validation and test with exact AUC and, where there is a group, gAUC."""
    batch_size = program.config.train.eval_batch_size
    return {
        name: program.objective.evaluate(evaluation_of(program, state), split, batch_size, exact=True)
        for name, split in store.splits.items()
        if name != "train" and split.rows
    }


def load_best(folder: pathlib.Path, warn: Callable[[str], None]) -> tuple[Program, Restored]:
    """The program and the best whole checkpoint of a run folder; raises `CheckpointError` if there is none."""
    config = load_config(folder)
    none_there = CheckpointError(f"{folder / CHECKPOINTS} holds no whole checkpoint; train the run first")
    if not (folder / CHECKPOINTS).is_dir():
        raise none_there
    if config.mesh.devices > jax.device_count():  # a look at it needs no more than one
        config = dataclasses.replace(config, mesh=MeshConfig())
    program = build_program(config, 1)
    with Checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        as_saved = functools.partial(saved_layout, program)
        best = checkpoints.restore_best(program.abstract_state(), _best_step(checkpoints), warn, as_saved)
    if best is None:
        raise none_there
    return program, best


def _best_step(checkpoints: Checkpoints) -> int | None:
    """The best step as the latest whole checkpoint knows it."""
    for step in reversed(checkpoints.steps()):
        with contextlib.suppress(DamagedCheckpoint):
            return checkpoints.progress(step)["progress"]["best_step"]
    return None


def load_config(folder: pathlib.Path) -> RunConfig:
    """The config of a run folder; raises `ConfigError` if it holds none."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(
            f"{folder} is no run folder (it has no {CONFIG_FILE}); train.py prints the folder it writes to"
        )
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
        raise _other_config(folder, lines)


def check_validation(config: RunConfig, store: Store) -> None:
    """Raise `ConfigError` where the settings need a validation score that the store cannot give."""
    if not has_validation(store):
        if config.train.plateau is not None:
            mend = "prepare the data with such a split" if config.sequences is None else "use holdout='last_two'"
            raise ConfigError(
                f"train.plateau: store {store.path} has no rows in the split {VALIDATION!r}, so there is no score to "
                f"react to; {mend}, or leave train.plateau out"
            )
        return
    if isinstance(config.schema, SequenceSchema):
        return
    columns = store.split(VALIDATION).columns
    counted = columns["weights"] > 0 if "weights" in columns else np.ones(len(columns["labels"]), bool)
    if not counted.any():
        raise ConfigError(
            f"schema.weight: {config.schema.weight!r} is 0 in all rows of the split {VALIDATION!r}, so that it has no "
            "score; prepare the data with another split or other weights"
        )
    labels = np.asarray(columns["labels"])[counted]
    for name, column in zip(config.schema.labels, labels.T, strict=True):
        if config.train.monitor == "auc" and column.min() == column.max():
            raise ConfigError(
                f"train.monitor: label {name!r} is {column[0]:g} in all rows of the split {VALIDATION!r} that count, "
                "so its AUC is undefined; use --train.monitor logloss, or prepare the data with another split"
            )


def holds_run(folder: pathlib.Path) -> bool:
    """Whether there is anything of a run in the folder."""
    return any((folder / name).exists() for name in RUN_FILES)


def delete_run(folder: pathlib.Path) -> None:
    """Delete a run, and nothing else in the folder; the config last: it guards what is left if we are killed."""
    for name in RUN_FILES:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def only_process(folder: pathlib.Path, work: str = "training this run", option: str = "--run-dir") -> Iterator[None]:
    """Create the folder and keep other processes out of it while the block runs.

    Raises `BusyError` if another process is there, `ConfigError` if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise ConfigError(f"run folder {folder} cannot be written ({error}); choose another with {option}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back by the system however the process ends
        except BlockingIOError as error:
            raise BusyError(
                f"{folder}: another process is {work}; wait for it, or choose another folder with {option}"
            ) from error
        yield


def _resume_or_start(
    program: Program, store: Store, checkpoints: Checkpoints, console: rich.console.Console
) -> tuple[TrainState, Progress]:
    as_saved = functools.partial(saved_layout, program)
    restored = checkpoints.restore_latest(program.abstract_state(), _warner(console), as_saved)
    if restored is None:
        return program.init(), Progress()
    saved = restored.progress

    def check() -> None:
        lines = difference(from_plain(RunConfig, saved["config"]).identity(), program.config.identity())
        if lines:
            raise _other_config(checkpoints.folder, lines)
        if saved["store_digest"] != store.digest:
            raise _other_data(checkpoints.folder, store.path)

    lead(check)
    progress = Progress.from_json(restored.progress["progress"])
    console.print(f"resuming after step {progress.step}")
    return restored.state, progress


def _is_finished(config: RunConfig, folder: pathlib.Path, console: rich.console.Console) -> bool:
    """Whether the folder holds the record of the finished run; refused if config or data changed since."""
    record = next(read_records(folder / RECORD_FILE), None) if (folder / RECORD_FILE).is_file() else None
    if record is None:
        return False
    lines = difference(from_plain(RunConfig, record["config"]).identity(), config.identity())
    if lines:
        raise _other_config(folder, lines)
    path = data_path(config)
    if path.exists() and open_data(config, path, verify=False).digest != record["store_digest"]:
        raise _other_data(folder, path)
    text = f"{folder} holds the finished run; nothing to train (--fresh --force trains it anew)"
    console.print(text, soft_wrap=True, markup=False, highlight=False)
    return True


def _warner(console: rich.console.Console) -> Callable[[str], None]:
    return lambda text: console.print(f"warning: {text}", soft_wrap=True, markup=False, highlight=False)


def _other_config(folder: pathlib.Path, lines: list[str]) -> ConfigError:
    return ConfigError(
        f"{folder} holds a run of another configuration (run -> now):\n  " + "\n  ".join(lines) + "\n"
        "go on with the same settings, choose another folder with --run-dir, or start anew with --fresh --force"
    )


def _other_data(folder: pathlib.Path, store: pathlib.Path) -> CheckpointError:
    return CheckpointError(
        f"{folder}: this run was trained on other data than store {store} now holds; "
        "restore that store, choose another folder with --run-dir, or start anew with --fresh --force"
    )
