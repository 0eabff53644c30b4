"""The best trials of a search, trained with more seeds: one seed's score does not choose between good settings."""

import dataclasses
import pathlib
import shutil
import statistics
from typing import NamedTuple

import jax
import optuna
import rich.console
from optuna.trial import FrozenTrial, TrialState

from wukong_jax.config.codec import from_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import TrainingError
from wukong_jax.training.loop import VALIDATION, monitored
from wukong_jax.training.run import CHECKPOINTS, train
from wukong_jax.tuning.study import CONFIG, RUN, Search, finished


class Finalist(NamedTuple):
    """A trial and its validation scores, the trial's own first, one for each seed."""

    trial: FrozenTrial
    scores: tuple[float, ...]
    runs: tuple[pathlib.Path, ...]
    """Run folders, in the same order; the checkpoints of the trial's own may be gone."""

    @property
    def mean(self) -> float:
        """Mean score over the seeds."""
        return statistics.fmean(self.scores)


def best_trials(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """The complete trials of the highest scores, best first, the earliest of equal ones; one of twins."""
    complete = [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: -(trial.value or 0.0))
    return list({trial.user_attrs[RUN]: trial for trial in reversed(best)}.values())[::-1][:count]


def run_finalists(
    study: optuna.Study, search: Search, count: int, seeds: int, console: rich.console.Console
) -> list[Finalist]:
    """Train the `count` best trials with `seeds` seeds each, the trial's own among them; best mean first.

    Finished runs are not trained again, a stopped one goes on. A trial that cannot be trained with one of the seeds is
    left out, and said to be. Raises `UserError` for data that cannot be read, `StoppedBySignal` if a signal came.
    """
    found = []
    for trial in best_trials(study, count):
        scores, runs = [float(trial.value or 0.0)], [search.folder / trial.user_attrs[RUN]]
        try:
            for config in _other_seeds(trial, seeds):
                console.print(f"trial {trial.number}, seed {config.train.seed}", markup=False)
                runs.append(search.folder / config.identity_hash())
                record = train(config, runs[-1], console)
                scores.append(monitored(record["results"][VALIDATION], config.train.monitor))
        except (TrainingError, jax.errors.JaxRuntimeError) as error:
            console.print(f"trial {trial.number} is out: {error}", markup=False, soft_wrap=True)
            continue
        found.append(Finalist(trial, tuple(scores), tuple(runs)))
    found.sort(key=lambda finalist: -finalist.mean)
    for other in found[1:]:
        for run in other.runs:
            if not search.keep:
                shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
    return found


def _other_seeds(trial: FrozenTrial, seeds: int) -> list[RunConfig]:
    config = from_plain(RunConfig, trial.user_attrs[CONFIG])
    first = config.train.seed + 1
    return [
        dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
        for seed in range(first, first + seeds - 1)
    ]
