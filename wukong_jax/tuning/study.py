"""A search: Optuna proposes settings, the trainer trains them, validation chooses.

Trials run one after the other. Whatever decides what comes next lies in the study's database and the trials' run
folders, so a search that is killed at any moment of a trial's training goes on as if it had not been. (Killed in the
instant in which a trial's settings are drawn, it keeps those drawn and draws the others anew.)
"""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optuna
import rich.console
import sqlalchemy.exc
from optuna.trial import FrozenTrial, TrialState

from wukong_jax.config.codec import difference, from_plain, to_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError, DataError, TrainingError
from wukong_jax.training.loop import VALIDATION, StoppedBySignal, monitored
from wukong_jax.training.progress import Progress
from wukong_jax.training.run import CHECKPOINTS, train
from wukong_jax.tuning.space import Space, propose

BASE, RUN, CONFIG, REASON, DEATHS = "base", "run", "config", "reason", "deaths"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
TRIALS_BEFORE_PRUNING = 5
MAX_DEATHS = 3


@dataclasses.dataclass(frozen=True)
class Search:
    """What decides a search, besides the trials that its study holds."""

    base: RunConfig
    space: Space
    folder: pathlib.Path
    """Run folders of the trials, nothing else."""
    trials: int
    """Finished trials of the study, whatever their end, after which the search stops."""
    seed: int
    prune_after: int | None
    """Evaluations that every trial gets before it may be pruned; None for no pruning."""
    keep: bool
    """Keep the checkpoints of all trials, not of the best one only."""


@contextlib.contextmanager
def open_study(storage: pathlib.Path, name: str, search: Search) -> Iterator[optuna.Study]:
    """The study of that name in the SQLite file, made where there is none.

    Raises `DataError` if the file cannot be used, `ConfigError` if its study searches around another config.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.prune_after is not None:
        pruner = optuna.pruners.MedianPruner(
            TRIALS_BEFORE_PRUNING, n_warmup_steps=search.prune_after, n_min_trials=TRIALS_BEFORE_PRUNING
        )
    try:
        storage.parent.mkdir(parents=True, exist_ok=True)
        database = optuna.storages.RDBStorage(f"sqlite:///{storage}")
    except (OSError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise DataError(f"--storage {storage} cannot be used ({error}); name another file") from error
    try:
        study = optuna.create_study(
            storage=database, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
        )
        _same_base(study, search)
        yield study
    finally:
        database.remove_session()
        database.engine.dispose()


def _same_base(study: optuna.Study, search: Search) -> None:
    """Note the base config in a new study and put the space's own starting points first; refuse another config."""
    if BASE not in study.user_attrs:
        for parameters in search.space.starts(search.base):
            study.enqueue_trial(parameters, skip_if_exists=True)
        study.set_user_attr(BASE, to_plain(search.base))
    known = from_plain(RunConfig, study.user_attrs[BASE])
    lines = difference(known.identity(), search.base.identity())
    if lines:
        raise ConfigError(
            f"study {study.study_name} searches around another config (study -> now):\n  "
            + "\n  ".join(lines)
            + "\ngo on with the same config, or take another --study"
        )


def run_search(study: optuna.Study, search: Search, console: rich.console.Console) -> None:
    """Run trials until the study has as many as wanted; an interrupted one goes on at its last checkpoint first.

    Raises `UserError` for a faulty space or data that cannot be read, `StoppedBySignal` if a signal ended it early.
    """
    tidy(study, search)
    while len(done := finished(study)) < search.trials:
        # a sampler of its own for each trial: the next proposal depends on the seed and the trials so far, not on
        # whether the search was interrupted
        seed = int(np.random.SeedSequence([search.seed, len(done)]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        running = study.get_trials(states=(TrialState.RUNNING,))
        trial = optuna.Trial(study, running[0]._trial_id) if running else study.ask()
        console.print(f"trial {trial.number}, {len(done)} of {search.trials} done", markup=False)
        run_trial(study, trial, search, console)
        told = study.trials[trial.number]
        text = f"trial {trial.number}: {told.state.name.lower()} {shown_end(told)} {shown_parameters(told.params)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        tidy(study, search)


def run_trial(study: optuna.Study, trial: optuna.Trial, search: Search, console: rich.console.Console) -> None:
    """Train one trial and tell the study how it ended: complete, pruned, or failed where its settings cannot run."""
    try:
        config = propose(search.space, trial, search.base)
        run = config.identity_hash()
        twin = next((known for known in finished(study) if known.user_attrs.get(RUN) == run), None)
        trial.set_user_attr(RUN, run)
        trial.set_user_attr(CONFIG, to_plain(config))
        if twin is not None:
            trial.set_user_attr(REASON, f"the same settings as trial {twin.number}")
            study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, twin.state)
            return
        reported = len(study.trials[trial.number].intermediate_values)
        _count_death(trial, reported)
        watch = _Watch(trial, reported, config.train.monitor)
        watch.prune()
        record = train(config, search.folder / run, console, on_evaluation=watch)
        watch.report(record["history"])
        study.tell(trial, monitored(record["results"][VALIDATION], config.train.monitor))
    except StoppedBySignal:
        trial.set_user_attr(DEATHS, [])  # stopped on purpose, which says nothing about the trial
        raise
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (ConfigError, TrainingError, jax.errors.JaxRuntimeError) as error:  # the last one: out of memory
        trial.set_user_attr(REASON, str(error))
        study.tell(trial, state=TrialState.FAIL)


def _count_death(trial: optuna.Trial, reported: int) -> None:
    """Note that the trial starts; raises `TrainingError` if it died here MAX_DEATHS times since its last evaluation.

    The system ends a process that needs too much memory without a word; such a trial must not be begun for ever.
    """
    starts = [start for start in trial.user_attrs.get(DEATHS, []) if start == reported]
    if len(starts) >= MAX_DEATHS:
        raise TrainingError(
            f"its process was killed {len(starts)} times after evaluation {reported}, perhaps for want of memory"
        )
    trial.set_user_attr(DEATHS, [*starts, reported])


class _Watch:
    """Reports every validation score of a run once, however often the run was interrupted."""

    def __init__(self, trial: optuna.Trial, reported: int, monitor: str) -> None:
        self._trial, self._reported, self._monitor = trial, reported, monitor

    def __call__(self, progress: Progress) -> None:
        self.report(progress.history)
        self.prune()

    def report(self, history: list[dict[str, Any]]) -> None:
        points = [point for point in history if point["split"] == VALIDATION]
        for index in range(self._reported, len(points)):
            self._trial.report(monitored(points[index], self._monitor), index)
        self._reported = max(self._reported, len(points))

    def prune(self) -> None:
        if self._trial.should_prune():
            raise optuna.TrialPruned


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ended, in order."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the highest score, the earliest of equal ones."""
    complete = [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]
    return max(complete, key=lambda trial: trial.value or 0.0, default=None)


def best_config(trial: FrozenTrial, base: RunConfig, name: str) -> RunConfig:
    """The trial's settings as a config of that name, on the base's data."""
    config = from_plain(RunConfig, trial.user_attrs[CONFIG])
    return dataclasses.replace(config, name=name, data=base.data)


def tidy(study: optuna.Study, search: Search) -> None:
    """Delete the checkpoints of all trials but the best, and all else of those that have no result."""
    best = best_trial(study)
    for trial in finished(study):
        run = trial.user_attrs.get(RUN)
        if search.keep or run is None or (best is not None and run == best.user_attrs[RUN]):
            continue
        folder = search.folder / run
        shutil.rmtree(folder / CHECKPOINTS if trial.state == TrialState.COMPLETE else folder, ignore_errors=True)


def shown_end(trial: FrozenTrial) -> str:
    """Its score, or why it has none."""
    score = f"{trial.value:.5f}" if trial.state == TrialState.COMPLETE and trial.value is not None else ""
    return " ".join(filter(None, (score, trial.user_attrs.get(REASON, ""))))


def shown_parameters(parameters: dict[str, Any]) -> str:
    """`name=value` for each parameter, numbers to four digits."""
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in parameters.items())
