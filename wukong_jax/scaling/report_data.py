"""The runs of a sweep's folder as a report needs them: by study and by setting, checked to belong together."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from wukong_jax.comparison.records import RecordedRun, read_folder
from wukong_jax.comparison.table import Spread, settings_hash, spread
from wukong_jax.config.codec import to_plain
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.scaling.read_points import MFLOP
from wukong_jax.scaling.sweep_records import read_failures
from wukong_jax.training.record import best_possible

STUDIES = ("ladder", "knob", "ablation", "data")
LABELS = {"series": str, "study": str, "varied": dict}


class Run(NamedTuple):
    """One run; LogLoss and AUC of the test split."""

    series: str
    study: str
    varied: dict[str, Any]
    seed: int
    compute: float
    """Training MFLOP/example."""
    examples: float
    """Examples trained on, repeats counted; NaN for a run that diverged."""
    logloss: float
    auc: float
    """NaN where undefined."""
    reason: str
    """Why there is no LogLoss; empty where there is one."""
    floor: float | None
    """Best possible LogLoss, where it is known."""
    settings: str
    """Hash of what decides the result but the seed."""
    recorded: RecordedRun


class Setting(NamedTuple):
    """Runs that differ in their seed only, at least one, all of them with a LogLoss."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """For what does not depend on the seed."""
        return self.runs[0]

    @property
    def by_seed(self) -> dict[int, float]:
        """Test LogLoss."""
        return {run.seed: run.logloss for run in self.runs}

    @property
    def logloss(self) -> Spread:
        """Mean and deviation over the seeds."""
        return spread([run.logloss for run in self.runs])

    @property
    def auc(self) -> Spread:
        """Mean and deviation over the seeds."""
        return spread([run.auc for run in self.runs])

    @property
    def examples(self) -> float:
        """Mean of the examples trained on: they differ only where runs stop early."""
        return spread([run.examples for run in self.runs]).mean


class Study(NamedTuple):
    """The runs of one study, which were trained and tested on the same terms."""

    name: str
    settings: tuple[Setting, ...]
    """In the order of series, compute and examples."""
    lost: tuple[Run, ...]
    """Runs without a LogLoss: they diverged."""
    floor: float | None
    """Best possible LogLoss of the test split, where it is known."""

    @property
    def series(self) -> list[str]:
        """Names of the curves."""
        return series_of([setting.first for setting in self.settings])


def read_runs(folder: pathlib.Path, metric: str = "logloss") -> tuple[Run, ...]:
    """All runs of a folder, finished or diverged, by series, compute, examples and seed; raises `UserError`."""
    if metric.partition("/")[0] != "logloss":
        raise ConfigError(
            f"--metric: received {metric!r}, expected logloss, or logloss/LABEL for data of several labels"
        )
    if not folder.is_dir():
        raise DataError(f"--records: {folder} is no folder, expected one of a sweep, such as results/scaling/<sweep>")
    finished = read_folder(folder)
    known = {run.config.identity_hash() for run in finished}
    failed = [run for run in read_failures(folder) if run.config.identity_hash() not in known]
    if not finished:
        more = f", only {len(failed)} notes of runs that diverged" if failed else ""
        raise DataError(
            f"--records: {folder} has no run record (*.jsonl){more}; train with python -m wukong_jax sweep first"
        )
    runs = [_run(run, metric) for run in (*finished, *failed)]
    return tuple(sorted(runs, key=lambda run: (series_order(run.series), run.compute, _known(run.examples), run.seed)))


def series_order(series: str) -> tuple[bool, str]:
    """Sorts names of series: Wukong, which the others are compared with, first."""
    return (not series.startswith("Wukong"), series)


def series_of(runs: Sequence[Run]) -> list[str]:
    """Names of their series, Wukong first."""
    return sorted({run.series for run in runs}, key=series_order)


def study_of(runs: Sequence[Run], name: str) -> Study | None:
    """The runs of one study; None where none has a LogLoss; raises `DataError` if they do not belong together."""
    chosen = [run for run in runs if run.study == name]
    _check_same_terms(chosen)
    groups: dict[str, list[Run]] = {}
    for run in chosen:
        if not run.reason:
            groups.setdefault(run.settings, []).append(run)
    if not groups:
        return None
    settings = tuple(Setting(tuple(group)) for group in groups.values())
    if name == "ladder":
        _check_one_setting_a_size(settings)
    floors = {run.floor for group in groups.values() for run in group}
    return Study(name, settings, tuple(run for run in chosen if run.reason), floors.pop() if len(floors) == 1 else None)


def _run(recorded: RecordedRun, metric: str) -> Run:
    record, config = recorded.record, recorded.config
    for key, kind in LABELS.items():
        if not isinstance(record.get(key), kind):
            raise DataError(
                f"records {recorded.path}: {key} is {record.get(key)!r}, expected the record of a sweep; train with "
                "python -m wukong_jax sweep, or move the file away"
            )
    scores = (record.get("results") or {}).get("test") or {}
    if scores and metric not in scores:
        raise DataError(
            f"records {recorded.path}: no test metric {metric!r}; choose one with --metric: {', '.join(sorted(scores))}"
        )
    values = [scores.get(name) for name in (metric, metric.replace("logloss", "auc", 1))]
    logloss, auc = (math.nan if value is None else float(value) for value in values)
    why = "the LogLoss is not finite" if scores else "no test metrics; prepare the data with a test split"
    return Run(
        record["series"],
        record["study"],
        record["varied"],
        config.train.seed,
        record["training_flops_per_example"] / MFLOP,
        float(record.get("steps", math.nan) * config.train.batch_size),
        logloss,
        auc,
        "" if math.isfinite(logloss) else str(record.get("failed") or why),
        best_possible(record, metric),
        settings_hash(config),
        recorded,
    )


def _check_same_terms(runs: Sequence[Run]) -> None:
    """Compare every term among the runs that have it: the note of a diverged run does not have all."""
    known: dict[str, tuple[Any, Run]] = {}
    for run in runs:
        for name, value in _terms(run).items():
            expected, base = known.setdefault(name, (value, run))
            if value != expected:
                raise DataError(
                    f"records {base.recorded.path} and {run.recorded.path} of the study {run.study!r} differ in {name} "
                    f"({expected} and {value}), so they cannot stand in one figure; keep them in different folders, or "
                    "give one another study"
                )


def _terms(run: Run) -> dict[str, Any]:
    """What all runs of a study share, but for what is varied on purpose; batch size and steps may differ."""
    train, record = run.recorded.config.train, run.recorded.record
    terms = {
        "numerics_revision": record.get("numerics_revision"),
        "schema": run.recorded.config.schema.hash(),
        "epochs": train.epochs,
        "monitor": train.monitor,
        "plateau": to_plain(train.plateau),
    }
    if "failed" not in record:  # the note of a run that diverged does not say it
        terms["store_digest"] = record.get("store_digest")
    return {name: value for name, value in terms.items() if name not in run.varied}


def _check_one_setting_a_size(settings: Sequence[Setting]) -> None:
    """A curve over compute has one point at each; other settings of that size would be taken for other seeds."""
    known: dict[tuple[str, float], Run] = {}
    for setting in settings:
        run = setting.first
        other = known.setdefault((run.series, run.compute), run)
        if other is not run:
            raise DataError(
                f"records {other.recorded.path} and {run.recorded.path}: two settings of the study 'ladder' in series "
                f"{run.series!r} with {run.compute:g} MFLOP/example; give one of them another series or study"
            )


def _known(value: float) -> float:
    return math.inf if math.isnan(value) else value
