"""Settings of a study against its base: LogLoss change in percent, for the knobs and the ablation."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wukong_jax.comparison.table import Spread, spread
from wukong_jax.config.models import WukongConfig
from wukong_jax.scaling.report_data import Run, Setting, Study

PARTS = {"use_fmb": "FMB", "use_lcb": "LCB", "residual": "residual"}
"""The parts of Wukong that an ablation takes out."""
PUBLISHED = {"no FMB": 0.80, "no LCB": 0.03, "no residual": 0.08, "no LCB and no residual": 1.84}
"""Relative LogLoss change in percent of the paper's figure 4, on its own data."""


class Effect(NamedTuple):
    """One setting, and what it changes."""

    changed: dict[str, Any]
    """The keys of `varied` that differ from the base's, with their values."""
    setting: Setting
    change: Spread
    """100 (LogLoss / LogLoss of the base - 1), paired by seed; no deviation where one seed or none is shared."""

    @property
    def label(self) -> str:
        """`no LCB and no residual`, `num_layers 4`."""
        return label(self.changed)


class Effects(NamedTuple):
    """One series of a study."""

    series: str
    base: Setting
    others: tuple[Effect, ...]
    lost: tuple[tuple[dict[str, Any], Run], ...]
    """Runs that diverged, with what they change."""


def effects(study: Study) -> tuple[Effects, ...]:
    """Every series of the study against its base; series without one are left out."""
    found = []
    for series in study.series:
        settings = [setting for setting in study.settings if setting.first.series == series]
        base = base_of(settings)
        if base is None:
            continue
        others = [
            Effect(changed(setting.first.varied, base.first.varied), setting, change(setting, base))
            for setting in settings
            if setting is not base
        ]
        lost = [(changed(run.varied, base.first.varied), run) for run in study.lost if run.series == series]
        variants = tuple((changes, run) for changes, run in lost if changes)  # a lost seed of the base is no variant
        found.append(Effects(series, base, tuple(others), variants))
    return tuple(found)


def base_of(settings: Sequence[Setting]) -> Setting | None:
    """The setting that the others are compared with.

    Of those that are no Wukong without one of its parts, the one that differs from all others in the fewest values of
    `varied`; of equals the cheapest; None where every setting lacks a part.
    """
    full = [setting for setting in settings if _is_whole(setting)]

    def distance(setting: Setting) -> tuple[int, float]:
        differing = [len(changed(other.first.varied, setting.first.varied)) for other in settings]
        return sum(differing), setting.first.compute

    return min(full, key=distance, default=None)


def changed(varied: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The keys whose values differ from the base's; None where only the base has a key."""
    names = [*varied, *(name for name in base if name not in varied)]
    return {name: varied.get(name) for name in names if varied.get(name) != base.get(name)}


def change(setting: Setting, base: Setting) -> Spread:
    """LogLoss change in percent over the seeds that both have; of the means, without deviation, where there is none."""
    ours, theirs = setting.by_seed, base.by_seed
    shared = [100 * (ours[seed] / theirs[seed] - 1) for seed in ours if seed in theirs]
    return spread(shared or [100 * (setting.logloss.mean / base.logloss.mean - 1)])


def label(changes: Mapping[str, Any]) -> str:
    """What a setting changes, in words: parts taken out as `no FMB`."""
    ends = {name.rpartition(".")[2]: name for name in changes if changes[name] is False}
    parts = {ends[field]: f"no {part}" for field, part in PARTS.items() if field in ends}
    others = [f"{name} {shown_value(value)}" for name, value in changes.items() if name not in parts]
    return " and ".join([*parts.values(), *others]) or "as the base"


def shown_value(value: Any) -> str:
    """`3 × 2048` for three equal widths, else as JSON has it, words without quotes."""
    if isinstance(value, list) and len({json.dumps(item) for item in value}) == 1:
        return shown_value(value[0]) if len(value) == 1 else f"{len(value)} × {shown_value(value[0])}"
    return value if isinstance(value, str) else json.dumps(value)


def _is_whole(setting: Setting) -> bool:
    model = setting.first.recorded.config.model
    return not isinstance(model, WukongConfig) or all(getattr(model, name) for name in PARTS)
