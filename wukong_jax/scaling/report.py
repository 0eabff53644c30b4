"""The report of a sweep: a section for each study with its figure, its tables and what they say."""

import dataclasses
import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from wukong_jax.scaling.report_changes import ablation_figure, knob_figure
from wukong_jax.scaling.report_curves import data_figure, ladder_figure
from wukong_jax.scaling.report_data import STUDIES, Run, Study, read_runs, study_of
from wukong_jax.scaling.report_effects import Effects, effects
from wukong_jax.scaling.report_epochs import courses, epochs_figure, epochs_table
from wukong_jax.scaling.report_law_tables import (
    allocation_table,
    joint_table,
    laws_table,
    ranking_table,
    verdict_lines,
)
from wukong_jax.scaling.report_laws import JointLaws, curve_laws, joint_laws
from wukong_jax.scaling.report_tables import (
    Table,
    effects_table,
    lost_table,
    runs_table,
    settings_table,
    totals_table,
    varied_text,
)

SECTIONS = (*STUDIES, "epochs", "runs", "totals")
TITLES = {
    "ladder": "LogLoss against compute",
    "knob": "One knob at a time",
    "ablation": "Ablation",
    "data": "LogLoss against examples",
    "epochs": "Epoch by epoch",
    "runs": "Runs",
    "totals": "Totals",
}


@dataclasses.dataclass(frozen=True)
class Section:
    """One part of a report; `name` is one of `SECTIONS`."""

    name: str
    text: tuple[str, ...] = ()
    """Paragraphs of plain text."""
    figure: Figure | None = None
    caption: str = ""
    tables: tuple[Table, ...] = ()

    @property
    def title(self) -> str:
        """Its heading."""
        return TITLES[self.name]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a folder of records says."""

    name: str
    """The folder's name."""
    sections: tuple[Section, ...]

    def section(self, name: str) -> Section:
        """One section by its name."""
        return next(section for section in self.sections if section.name == name)


def make_report(folder: pathlib.Path, metric: str = "logloss") -> Report:
    """Read, fit and draw all that a folder's records allow; raises `UserError` where they do not belong together.

    A study without runs is left out, and its section says so.
    """
    runs = read_runs(folder, metric)
    makers = {"ladder": _ladder, "knob": _knob, "ablation": _ablation, "data": _data}
    sections = []
    for name in STUDIES:
        study = study_of(runs, name)
        sections.append(_absent(name, runs) if study is None else makers[name](study, folder, metric))
    sections += [_epochs(study_of(runs, "ladder"), metric), _runs(runs)]
    return Report(folder.resolve().name, (*sections, Section("totals", tables=(totals_table(runs),))))


def _absent(name: str, runs: Sequence[Run]) -> Section:
    lost = sum(run.study == name for run in runs)
    why = f"all of its {lost} runs diverged or have no LogLoss" if lost else "no run of it is recorded"
    return Section(name, (f"Left out: of the study {name!r} {why}.",))


def _ladder(study: Study, folder: pathlib.Path, metric: str) -> Section:
    laws = curve_laws(folder, metric)
    tables = [settings_table(study)]
    if laws.comparisons:
        tables += [laws_table(laws), ranking_table(laws)]
    caption = (
        "Test LogLoss over compute: mean over the seeds, bars of one standard deviation where there are several. Lines "
        "are the laws that predict left-out points best, shaded their 95 % intervals; without a law the points are "
        "joined."
    )
    if study.floor is not None:
        caption += " Right: what is left to the best possible LogLoss."
    return Section(
        "ladder", (*_remarks(study), *verdict_lines(laws)), ladder_figure(study, laws), caption, tuple(tables)
    )


def _knob(study: Study, folder: pathlib.Path, metric: str) -> Section:
    found = effects(study)
    if not found:
        return Section("knob", (*_remarks(study), "Left out: no setting is a whole model, to be the base."))
    caption = (
        "LogLoss change in percent against the base (+) over compute, one line a knob, its values beside the points; "
        "mean over the seeds, paired with the base's, and bars of one standard deviation where there are several."
    )
    tables = (effects_table(found, "One knob at a time", paper=False),)
    return Section("knob", _remarks(study), knob_figure(found), caption, tables)


def _ablation(study: Study, folder: pathlib.Path, metric: str) -> Section:
    found = effects(study)
    text = [*_remarks(study), *_without_base(study, found)]
    if not any(one.others or one.lost for one in found):
        return Section("ablation", (*text, "Left out: there is no setting besides the full model."))
    caption = (
        "LogLoss change in percent against the full model: mean over the seeds, paired with the full model's, and "
        "bars of one standard deviation where there are several. Hatched: the paper's figures, on its own data."
    )
    tables = (effects_table(found, "Ablation", paper=True),)
    return Section("ablation", tuple(text), ablation_figure(found), caption, tables)


def _without_base(study: Study, found: Sequence[Effects]) -> list[str]:
    missing = sorted(set(study.series) - {one.series for one in found})
    return [f"Left out: the full model of {', '.join(missing)} is not recorded."] if missing else []


def _data(study: Study, folder: pathlib.Path, metric: str) -> Section:
    laws: JointLaws = joint_laws(folder, metric)
    tables = [settings_table(study)]
    if laws.fits:
        tables += [joint_table(laws), allocation_table(laws)]
    caption = (
        "Test LogLoss over the examples trained on, a curve for each series and size: mean over the seeds, bars of one "
        "standard deviation where there are several. Lines are the joint law of the series; without one the points "
        "are joined."
    )
    text = [*_remarks(study), *(f"No joint law: {message}." for message in laws.refused.values())]
    return Section("data", tuple(text), data_figure(study, laws), caption, tuple(tables))


def _epochs(study: Study | None, metric: str) -> Section:
    found = () if study is None else courses(study, metric)
    if not found:
        return Section("epochs", ("Left out: no setting of the study 'ladder' has runs of several epochs.",))
    caption = (
        "Validation LogLoss after each evaluation of runs of several epochs, the least marked: behind it a model "
        "overfits. The first seed of each size."
    )
    return Section("epochs", (), epochs_figure(found), caption, (epochs_table(found),))


def _runs(runs: Sequence[Run]) -> Section:
    others = sorted({run.study for run in runs} - set(STUDIES))
    text = (f"Without a figure of their own: the studies {', '.join(others)}.",) if others else ()
    lost = (lost_table(runs),) if any(run.reason for run in runs) else ()
    return Section("runs", text, tables=(runs_table(runs), *lost))


def _remarks(study: Study) -> tuple[str, ...]:
    """On how many examples, what is not shown, and what diverged."""
    counts = [run.examples for setting in study.settings for run in setting.runs]
    low, high = min(counts), max(counts)
    remarks = [f"Trained on {low:,.0f}{'' if low == high else f' to {high:,.0f}'} examples."]
    floor = study.floor
    below = [s.first for s in study.settings if floor is not None and s.logloss.mean <= floor]
    if below:
        names = "; ".join(f"{run.series}, {varied_text(run)}" for run in below)
        remarks.append(f"At or below the floor, so not shown over it: {names}.")
    if study.lost:
        remarks.append(f"{len(study.lost)} runs diverged or have no LogLoss: they are listed under {TITLES['runs']}.")
    return tuple(remarks)
