"""The figures of a comparison: mean and standard deviation over seeds, and paired differences to the first row."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from wukong_jax.comparison.records import RecordedRun, check_protocol
from wukong_jax.config.codec import stable_hash
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import DataError

METRICS = {"auc": "AUC", "logloss": "LogLoss", "gauc": "gAUC", "ndcg": "NDCG", "hr": "HR", "mrr": "MRR", "loss": "loss"}
LOWER_IS_BETTER = ("logloss", "loss")


class Spread(NamedTuple):
    """Mean and sample standard deviation of `size` values; NaN where undefined."""

    mean: float
    std: float
    size: int

    @property
    def error(self) -> float:
        """Standard error of the mean: std / sqrt(size)."""
        return self.std / math.sqrt(self.size) if self.size else math.nan


class Row(NamedTuple):
    """One model's runs."""

    config: str
    """Name of the config, with the hash of its settings where two rows have the same."""
    model: str
    by_seed: dict[int, RecordedRun]

    def scores(self, metric: str) -> dict[int, float]:
        """Test score by seed; NaN where the run's was undefined."""
        return {seed: score(run, metric) for seed, run in sorted(self.by_seed.items())}

    def fact(self, name: str) -> Any:
        """A field of the record that does not depend on the seed."""
        return next(iter(self.by_seed.values())).record[name]

    def median(self, name: str) -> float:
        """Median of a field of the record over the runs."""
        return statistics.median(run.record[name] for run in self.by_seed.values())


class Difference(NamedTuple):
    """First row minus another, paired by seed."""

    config: str
    metric: str
    spread: Spread
    ahead: str
    """Name of the config that is ahead by more than the standard error, or "neither"; "-" with a single pair."""


class Comparison(NamedTuple):
    """Rows in order, the metrics that all of them have, and every row's differences to the first."""

    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    differences: tuple[Difference, ...]


def base(metric: str) -> str:
    """`auc` of `auc/click`, `ndcg` of `ndcg@10`."""
    return metric.partition("/")[0].partition("@")[0]


def rises(metric: str) -> bool:
    """Whether a model is better with a higher value."""
    return base(metric) not in LOWER_IS_BETTER


def heading(metric: str) -> str:
    """`auc/click` as `AUC click`, `ndcg@10` as `NDCG@10`."""
    name, _, label = metric.partition("/")
    return f"{name.replace(base(metric), METRICS[base(metric)], 1)} {label}".strip()


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1)."""
    count = len(values)
    mean = math.fsum(values) / count if count else math.nan
    return Spread(mean, statistics.stdev(values) if count > 1 else math.nan, count)


def score(run: RecordedRun, metric: str) -> float:
    """A test metric of one run; NaN where the record has none, as it was undefined."""
    value = run.record["results"]["test"][metric]
    return math.nan if value is None else value


def settings_hash(config: RunConfig) -> str:
    """Hash of what decides the result but the seed: runs that share it are one row."""
    plain = config.identity()
    del plain["train"]["seed"]
    return stable_hash(plain)


def make_rows(runs: Sequence[RecordedRun], first: str | None = None) -> tuple[Row, ...]:
    """Group runs by their settings, in the order of their first appearance; those of the config `first` come first."""
    groups: dict[str, dict[int, RecordedRun]] = {}
    for run in runs:
        groups.setdefault(settings_hash(run.config), {})[run.config.train.seed] = run
    names = [next(iter(group.values())).config.name for group in groups.values()]
    rows = [
        Row(
            name if names.count(name) == 1 else f"{name} ({key[:6]})",
            next(iter(group.values())).record["model"],
            group,
        )
        for (key, group), name in zip(groups.items(), names, strict=True)
    ]
    if first is not None and first not in [row.config for row in rows]:
        raise DataError(f"no row named {first!r}; the records have {sorted(row.config for row in rows)}")
    return tuple(sorted(rows, key=lambda row: row.config != first) if first else rows)


def compare_rows(rows: Sequence[Row]) -> Comparison:
    """All figures; raises `DataError` or `ConfigError` where the runs cannot stand in one table."""
    runs = [run for row in rows for run in row.by_seed.values()]
    if not runs:
        raise DataError("no finished run to compare; run the command without --dry-run first")
    for run in runs:
        _check_comparable(runs[0], run)
    known = [name for name in runs[0].record["results"]["test"] if base(name) in METRICS]
    metrics = [name for name in known if all(name in run.record["results"]["test"] for run in runs)]
    ordered = sorted(metrics, key=lambda name: list(METRICS).index(base(name)))
    differences = tuple(difference(rows[0], row, metric) for row in rows[1:] for metric in ordered)
    return Comparison(tuple(rows), tuple(ordered), differences)


def difference(first: Row, other: Row, metric: str) -> Difference:
    """First minus other over the seeds that both have; ahead is who leads by more than the standard error."""
    ours, theirs = first.scores(metric), other.scores(metric)
    found = spread([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    gain = found.mean if rises(metric) else -found.mean
    ahead = "neither"
    if math.isnan(gain) or math.isnan(found.error):
        ahead = "-"
    elif abs(gain) > found.error:
        ahead = first.config if gain > 0 else other.config
    return Difference(other.config, metric, found, ahead)


def _check_comparable(base: RecordedRun, run: RecordedRun) -> None:
    if "test" not in run.record["results"]:
        raise DataError(f"records {run.path}: the run has no test metrics; prepare the data with a test split")
    if run.record.get("numerics_revision") != base.record.get("numerics_revision"):
        raise DataError(
            f"records {base.path} and {run.path} are of different numerics revisions; keep them in different folders"
        )
    if run.record["store_digest"] != base.record["store_digest"]:
        raise DataError(
            f"records {base.path} and {run.path} are of different data (store digests "
            f"{base.record['store_digest'][:12]} and {run.record['store_digest'][:12]}); keep them in different folders"
        )
    check_protocol(base.config, run.config)
