"""Tables of a report on a sweep."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from wukong_jax.comparison.report import shown as shown_spread
from wukong_jax.comparison.table import Spread, spread
from wukong_jax.scaling.page_table import Table
from wukong_jax.scaling.read_points import MFLOP
from wukong_jax.scaling.report_data import Run, Setting, Study
from wukong_jax.scaling.report_effects import PUBLISHED, Effects, label, shown_value

PETA = 1e15


def settings_table(study: Study) -> Table:
    """Every setting of a study: LogLoss, AUC and, where recorded, stability."""
    known = study.floor is not None
    health = _health_headings([run for setting in study.settings for run in setting.runs])
    rows = []
    for setting in study.settings:
        run = setting.first
        gap = [f"{setting.logloss.mean - study.floor:.5f}"] if study.floor is not None else []
        size = [f"{run.compute:.4g}", f"{run.recorded.record['dense_parameters']:,}", f"{setting.examples:,.0f}"]
        scores = [shown_spread(setting.logloss), *gap, shown_spread(setting.auc)]
        cells = [run.series, varied_text(run), *size, str(len(setting.runs)), *scores]
        rows.append((*cells, *_health(setting.runs, health)))
    headings = ["series", "varied", "MFLOP/example", "dense parameters", "examples trained on", "seeds", "LogLoss"]
    headings += ["minus floor"] if known else []
    floor = f"; best possible LogLoss {study.floor:.5f}" if study.floor is not None else ""
    title = f"Test scores, mean ± standard deviation over the seeds{floor}"
    return Table(title, (*headings, "AUC", *health), tuple(rows))


def effects_table(found: Sequence[Effects], title: str, *, paper: bool) -> Table:
    """LogLoss change in percent against each series' base."""
    rows = []
    for one in found:
        base = one.base
        rows.append((one.series, f"base: {varied_text(base.first)}", *_size_and_score(base), "0", "0"))
        for effect in sorted(one.others, key=lambda effect: _published_order(effect.label)):
            published = f"{PUBLISHED[effect.label]:+.2f}" if effect.label in PUBLISHED else "-"
            figures = (*_size_and_score(effect.setting), percent(effect.change), published)
            rows.append((one.series, effect.label, *figures))
        for changes, run in one.lost:
            rows.append((one.series, label(changes), f"{run.compute:.4g}", f"seed {run.seed}", "diverged", "-", "-"))
    headings = ("series", "changed", "MFLOP/example", "seeds", "LogLoss", "change, %", "paper, %")
    columns = len(headings) - (not paper)
    return Table(title, headings[:columns], tuple(row[:columns] for row in rows))


def runs_table(runs: Sequence[Run]) -> Table:
    """Every run with a LogLoss."""
    kept = [run for run in runs if not run.reason]
    health = _health_headings(kept)
    rows = []
    for run in kept:
        record = run.recorded.record
        labels = (run.series, run.study, varied_text(run), str(run.seed))
        size = (f"{run.compute:.4g}", f"{run.examples:,.0f}")
        auc = "-" if math.isnan(run.auc) else f"{run.auc:.5f}"
        wall = f"{record['wall_seconds']:,.1f}" if "wall_seconds" in record else "-"
        rows.append((*labels, *size, f"{run.logloss:.5f}", auc, wall, *_health((run,), health)))
    headings = ("series", "study", "varied", "seed", "MFLOP/example", "examples trained on", "LogLoss", "AUC")
    return Table("Every run", (*headings, "wall time, s", *health), tuple(rows))


def lost_table(runs: Sequence[Run]) -> Table:
    """Every run without a LogLoss, and why."""
    rows = [
        (run.series, run.study, varied_text(run), str(run.seed), f"{run.compute:.4g}", run.reason)
        for run in runs
        if run.reason
    ]
    headings = ("series", "study", "varied", "seed", "MFLOP/example", "reason")
    return Table("Runs that diverged or have no LogLoss", headings, tuple(rows))


def totals_table(runs: Sequence[Run]) -> Table:
    """Compute spent by the finished runs, and where they ran."""
    kept = [run for run in runs if "steps" in run.recorded.record]
    spent = math.fsum(run.compute * MFLOP * run.examples for run in kept) / PETA
    hours = math.fsum(run.recorded.record.get("wall_seconds", 0.0) for run in kept) / 3600
    rows = [
        ("runs that finished", str(len(kept))),
        ("runs that diverged or have no LogLoss", str(sum(bool(run.reason) for run in runs))),
        ("training compute of the runs that finished, PFLOP", f"{spent:.4g}"),
        ("their wall time, training and evaluation, hours", f"{hours:.4g}"),
    ]
    for name, key in (("devices", "device"), ("jax", "jax_version"), ("Python", "python_version")):
        rows.append((name, _distinct(run.recorded.record.get(key) for run in kept)))
    rows.append(("wukong_jax", _distinct(run.recorded.record.get("version") for run in kept)))
    rows.append(("numerics revision", _distinct(run.recorded.record.get("numerics_revision") for run in kept)))
    return Table("Totals", ("what", "value"), tuple(rows))


def percent(value: Spread) -> str:
    """`+0.803 ± 0.021`; without the deviation where there is one value."""
    return f"{value.mean:+.3f}" + ("" if math.isnan(value.std) else f" ± {value.std:.3f}")


def varied_text(run: Run) -> str:
    """`num_layers 4, rank 8`."""
    return ", ".join(f"{name} {shown_value(value)}" for name, value in run.varied.items()) or "-"


def _published_order(name: str) -> int:
    return list(PUBLISHED).index(name) if name in PUBLISHED else len(PUBLISHED)


def _size_and_score(setting: Setting) -> tuple[str, ...]:
    return (f"{setting.first.compute:.4g}", str(len(setting.runs)), shown_spread(setting.logloss))


def _health_headings(runs: Iterable[Run]) -> tuple[str, ...]:
    """The columns of stability and collapse that some of the runs have."""
    records = [run.recorded.record for run in runs]
    keys = {"loss spikes": "loss_spikes", "abundance": "information_abundance"}
    return tuple(name for name, key in keys.items() if any(record.get(key) is not None for record in records))


def _health(runs: Sequence[Run], headings: Sequence[str]) -> list[str]:
    cells = []
    if "loss spikes" in headings:
        spikes = [run.recorded.record["loss_spikes"] for run in runs if "loss_spikes" in run.recorded.record]
        cells.append(str(sum(map(len, spikes))) if len(spikes) == len(runs) else "-")
    if "abundance" in headings:
        shares = [_abundance(run.recorded.record.get("information_abundance") or {}) for run in runs]
        known = [share for share in shares if share is not None]
        cells.append(f"{spread(known).mean:.3f}" if known else "-")
    return cells


def _abundance(tables: dict[str, Any]) -> float | None:
    """Mean over the tables of information abundance / the most it can be; tables of one row or column cannot fall."""
    shares = []
    for found in tables.values():
        most = min(found["rows"], found["width"])
        if found["information_abundance"] is not None and most > 1:
            shares.append(found["information_abundance"] / most)
    return spread(shares).mean if shares else None


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values if value is not None})) or "-"
