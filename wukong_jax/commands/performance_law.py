"""python -m wukong_jax performance-law: HR and NDCG over depth and width, the best size, and the run to make next."""

import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wukong_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from wukong_jax.performance_law.budgets import Budget
    from wukong_jax.performance_law.comparison import Comparison
    from wukong_jax.performance_law.fit import Fitted
    from wukong_jax.performance_law.report_findings import Findings
    from wukong_jax.performance_law.runs import Runs

PROGRAM = "python -m wukong_jax performance-law"
SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunsOptions:
    """Runs and how a law is fitted to them."""

    runs: pathlib.Path
    """CSV file with one row a run, a .jsonl file of run records, or a folder of them."""
    metric: str
    """Column of the CSV; of records a metric of the test, such as hr@10, or of the validation, such as valid.loss."""
    layers: str | None = None
    """Column of the depth N; by default `layers`, in records config.model.num_layers."""
    dim: str | None = None
    """Column of the width d; by default `dim`, in records config.model.width."""
    panels: tuple[str, ...] = ()
    """Columns whose values name a panel, such as data set and length: a constant each in a pooled fit."""
    panel: str | None = None
    """The panel to fit alone, its columns' values joined by blanks; without it all panels are fitted together."""
    data: str | None = None
    """Column of D', tokens weighted by data quality, for the data term of a pooled fit; or of the tokens alone."""
    quality: str | None = None
    """Column of the data's quality, ApEn' or 1 / real entropy: D' is then the product of --data and this."""
    seed: str | None = None
    """Column of the seeds; runs of one size are repetitions in any case."""
    better: Literal["by-name", "higher", "lower"] = "by-name"
    """Which values of the metric are better; by its name a loss or an error falls, everything else rises."""
    forms: tuple[str, ...] = ()
    """Forms to fit, by default all: performance-law, released, quadratic, quadratic-interaction, power, log-linear."""
    p1: float | None = None
    """The constant p1 of the law's two forms, which runs hardly determine; by default each form's own."""
    draws: int = 1000
    """Fits of the bootstrap."""
    level: float = 0.95
    """Level of all intervals."""
    bootstrap_seed: int = 0
    """Seed of everything drawn: the same seed gives the same output."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions(RunsOptions):
    """Fit all forms of the law to a table of runs: parameters with intervals, quality, and which form predicts best."""

    json: pathlib.Path | None = None
    """JSON file of all that is printed, with all digits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChosenOptions(RunsOptions):
    """One form, in one panel."""

    form: str | None = None
    """The form to use; by default the one that predicts left-out sizes best."""
    at_panel: str | None = None
    """Of a pooled fit, the panel that is asked about; by default the first."""
    at_data: float | None = None
    """D' that is asked about, where the fit has a data term; by default the panel's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(ChosenOptions):
    """Predict the metric of untried sizes, with intervals, and say whether that interpolates or extrapolates."""

    sizes: tuple[str, ...]
    """Sizes as layers x width: 28x54 64x603."""
    json: pathlib.Path | None = None
    """JSON file of all that is printed, with all digits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions(ChosenOptions):
    """What is searched, and what it may cost."""

    layers_range: tuple[int, int] | None = None
    """Fewest and most layers to choose from; by default those measured."""
    dim_range: tuple[int, int] | None = None
    """Smallest and largest width to choose from; by default those measured."""
    dim_multiple: int | None = None
    """Widths are multiples of this; by default 1, or a power of two that leaves at most 256 widths."""
    budget_size: float | None = None
    """Most N d."""
    budget_parameters: float | None = None
    """Most parameters without the item table; needs --backbone and --length."""
    budget_total: float | None = None
    """Most parameters with the item table and positions; needs --items as well."""
    budget_flops: float | None = None
    """Most training FLOPs per token; --candidates counts the loss."""
    backbone: Literal["hstu", "sasrec", "llama"] | None = None
    """Blocks that parameters and FLOPs are counted for."""
    length: int | None = None
    """Longest sequence."""
    items: int | None = None
    """Items of the data set."""
    ffn_ratio: float | None = None
    """Width of the feed-forward layer over d; by default 1 for sasrec, 8/3 for llama."""
    candidates: int = 0
    """Items that the loss scores at each position."""
    tolerance: float | None = None
    """Difference of the metric that does not matter; the noise of one run where that is larger."""
    sigma: float | None = None
    """Standard deviation of one run; by default from repeated runs, else from the law's residuals."""
    target: Literal["regret", "interval"] = "regret"
    """What the next run shall reduce: the cost of choosing wrongly, or the intervals of N* and d*."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecommendOptions(SearchOptions):
    """The best size overall and under each budget, all sizes that are as good, what is promised, and the next run."""

    json: pathlib.Path | None = None
    """JSON file of all that is printed, with all digits and whole regions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions(SearchOptions):
    """Write one self-contained HTML page: answers, surface, profiles, near-optimal region, forms, residuals."""

    out: pathlib.Path
    """Folder of report.html and of the figures."""
    formats: tuple[Literal["png", "svg"], ...] = ()
    """Also write every figure as such a file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """The paper's Tables 1 and 2, and of Table 6 what can be, from its published measurements, beside ours."""

    published: pathlib.Path = pathlib.Path("results/published")
    """Folder of performance_law_grid.csv and of the paper's tables."""
    out: pathlib.Path = pathlib.Path("results/performance_law")
    """Folder of reproduction.md and reproduction.json."""
    draws: int = 1000
    """Fits of the bootstrap."""


Command = (
    Annotated[FitOptions, tyro.conf.subcommand("fit")]
    | Annotated[PredictOptions, tyro.conf.subcommand("predict")]
    | Annotated[RecommendOptions, tyro.conf.subcommand("recommend")]
    | Annotated[ReportOptions, tyro.conf.subcommand("report")]
    | Annotated[ReproduceOptions, tyro.conf.subcommand("reproduce")]
)


def main(arguments: Sequence[str]) -> int:
    """Run one subcommand; raises `UserError` where runs and options do not fit."""
    description = "Laws of HR, NDCG or loss over depth N and width d: predict before training, and choose the size."
    options: Any = tyro.cli(Command, args=list(arguments), prog=PROGRAM, description=description)
    try:
        return _run(options)
    except ConfigError as error:
        from wukong_jax.performance_law.option_checks import with_options

        raise ConfigError(with_options(options, str(error))) from error


def _run(options: Any) -> int:
    match options:
        case FitOptions():
            return fit_command(options)
        case PredictOptions():
            return predict_command(options)
        case RecommendOptions():
            return recommend_command(options)
        case ReportOptions():
            return report_command(options)
        case _:
            return reproduce_command(options)


def fit_command(options: FitOptions) -> int:
    """Print the comparison of forms and their parameters."""
    from wukong_jax.performance_law.report_findings import comparison_plain
    from wukong_jax.performance_law.report_tables import fit_lines, panels_table, parameters_table, quality_table

    _check_json(options.json)
    comparison = _compare(options, _read(options))
    tables = [quality_table(comparison), parameters_table(comparison.fits)]
    if len(comparison.fits[0].runs.panels) > 1:
        tables.insert(1, panels_table(comparison))
    _write_json(options.json, options, comparison_plain(comparison))
    _print([table.markdown() for table in tables] + fit_lines(comparison))
    return 0


def predict_command(options: PredictOptions) -> int:
    """Print the predictions."""
    import numpy as np

    from wukong_jax.performance_law.optimum import Size
    from wukong_jax.performance_law.report_tables import law_line, sizes_table
    from wukong_jax.performance_law.search import Search

    _check_json(options.json)
    if not options.sizes:
        raise ConfigError("--sizes: received no size, expected LAYERSxWIDTH, such as 8x64")
    sizes = [_size(text) for text in options.sizes]
    _, law, panel = _chosen(options)
    search = Search(law, panel, options.at_data)
    within = search.measured.within(*(np.array(axis) for axis in zip(*sizes, strict=True)))
    found = [Size(n, d, search.value(n, d), bool(inside)) for (n, d), inside in zip(sizes, within, strict=True)]
    impossible = [f"{one.layers:.0f}x{one.dim:.0f}" for one in found if not law.runs.possible(one.metric.value)]
    plain = {"form": law.form.name, "panel": law.runs.panels[panel], "sizes": found, "impossible": impossible}
    _write_json(options.json, options, plain)
    _print([law_line(law, panel) + "\n", sizes_table(found, law.runs, law.level).markdown()])
    return 0


def recommend_command(options: RecommendOptions) -> int:
    """Print the best sizes and the next runs."""
    from wukong_jax.performance_law.report_findings import findings_plain
    from wukong_jax.performance_law.report_tables import law_line, next_table, no_run_line, optima_table, optimum_lines

    _check_json(options.json)
    findings = _findings(options)
    metric, measured = findings.fit.runs.metric, findings.search.measured
    lines = [law_line(findings.fit, findings.panel), findings.lattice.searched + "\n"]
    lines.append(optima_table(findings.optima, metric).markdown())
    for question, found in findings.optima.items():
        lines += [*optimum_lines(question, found, findings.fit.runs), ""]
    following = findings.following
    if following is not None and not following.worthwhile:
        lines.append(no_run_line(following))
    elif following is not None:
        lines.append(next_table(following, measured.within(following.layers, following.dims)).markdown())
    _write_json(options.json, options, findings_plain(findings))
    _print(lines)
    return 0


def report_command(options: ReportOptions) -> int:
    """Write the page."""
    from wukong_jax.performance_law.option_checks import check_writable
    from wukong_jax.performance_law.report import write_report

    if options.out.exists() and not options.out.is_dir():
        raise ConfigError(f"--out: {options.out} is a file, expected the name of a folder")
    check_writable("--out", options.out)
    for path in write_report(_findings(options), options.out, options.formats):
        print(path)
    return 0


def reproduce_command(options: ReproduceOptions) -> int:
    """Print and write the comparison with the paper."""
    from wukong_jax.performance_law.reproduce import reproduce, write_reproduction

    found = reproduce(options.published, options.draws)
    paths = write_reproduction(found, options.out)
    _print([found.markdown(), *map(str, paths)])
    return 0


def _read(options: RunsOptions) -> "Runs":
    from wukong_jax.performance_law.read_runs import read_runs

    rising = {"by-name": None, "higher": True, "lower": False}[options.better]
    if not options.runs.exists():
        raise ConfigError(f"--runs: {options.runs} does not exist, expected a CSV file or run records")
    runs = read_runs(
        options.runs,
        options.metric,
        layers=options.layers,
        dim=options.dim,
        panel=list(options.panels) or None,
        data=options.data,
        quality=options.quality,
        seed=options.seed,
        rising=rising,
    )
    return runs if options.panel is None else runs.only(options.panel)


def _compare(options: RunsOptions, runs: "Runs", forms: Sequence[str] = ()) -> "Comparison":
    from wukong_jax.config.checks import check_unique
    from wukong_jax.performance_law.comparison import compare
    from wukong_jax.performance_law.law import FORMS

    named = list(forms or options.forms)
    check_unique("--forms", named)
    if options.p1 is not None and named and all(form in FORMS and FORMS[form].p1 is None for form in named):
        having = " or ".join(form.name for form in FORMS.values() if form.p1 is not None)
        raise ConfigError(f"--p1: received {options.p1:g}, but {' and '.join(named)} has no p1; fit {having}")
    if options.bootstrap_seed < 0:
        raise ConfigError(f"--bootstrap-seed: received {options.bootstrap_seed}, expected 0 or more")
    return compare(
        runs,
        named or None,
        p1=options.p1,
        draws=options.draws,
        level=options.level,
        seed=options.bootstrap_seed,
        announce=lambda line: print(line, file=sys.stderr, flush=True),
    )


def _chosen(options: ChosenOptions) -> "tuple[Comparison, Fitted, int]":
    """The forms, the one that is used, and the number of the panel asked about."""
    if options.at_data is not None and options.data is None:
        raise ConfigError(f"--at-data: received {options.at_data:g}, but there is no data term; give --data")
    runs = _read(options)
    if options.at_panel is not None and options.at_panel not in runs.panels:
        panels = ", ".join(map(repr, runs.panels))
        raise ConfigError(f"--at-panel: received {options.at_panel!r}, expected one of {panels}")
    panel = 0 if options.at_panel is None else runs.panel_number(options.at_panel)
    if options.form is not None and options.forms and options.form not in options.forms:
        raise ConfigError(f"--form: received {options.form!r}, which is not among --forms {' '.join(options.forms)}")
    comparison = _compare(options, runs, () if options.forms or options.form is None else (options.form,))
    if options.form is not None and options.form in comparison.skipped:
        raise DataError(comparison.skipped[options.form])
    law = comparison.fit(options.form or comparison.best)
    if options.at_data is not None and not law.has_data_term:
        raise ConfigError(
            f"--at-data: received {options.at_data:g}, but D' does not vary within panels, so there is no data term; "
            "leave it out"
        )
    return comparison, law, panel


def _findings(options: SearchOptions) -> "Findings":
    from wukong_jax.performance_law.next_run import next_run
    from wukong_jax.performance_law.noise import noise_of
    from wukong_jax.performance_law.optimum import optimum
    from wukong_jax.performance_law.report_findings import Findings
    from wukong_jax.performance_law.search import Search, allowed

    budgets = _budgets(options)
    comparison, law, panel = _chosen(options)
    search = Search(law, panel, options.at_data)
    multiple = options.dim_multiple or (2 if options.backbone == "llama" else None)  # its rotary pairs halve a head
    lattice = search.measured.lattice(options.layers_range, options.dim_range, multiple)
    questions: dict[str, list[Budget]] = {"overall": []}
    questions |= {f"{one.name} at most {one.limit:,.6g}": [one] for one in budgets}
    if len(budgets) > 1:
        questions["all budgets"] = budgets
    optima = {
        question: optimum(search, lattice, kept, tolerance=options.tolerance, sigma=options.sigma)
        for question, kept in questions.items()
    }
    noise = noise_of(law, options.sigma)
    following = None
    if noise.sigma > 0:
        sizes = allowed(lattice, budgets)
        following = next_run(search, *sizes, noise, target=options.target, seed=options.bootstrap_seed)
    return Findings(options.runs.stem, comparison, law, panel, options.at_data, lattice, optima, following)


def _budgets(options: SearchOptions) -> "list[Budget]":
    from wukong_jax.performance_law.budgets import (
        Budget,
        backbone_named,
        flops_per_token,
        non_embedding_parameters,
        size,
        total_parameters,
    )
    from wukong_jax.performance_law.option_checks import check_counted

    check_counted(options)
    found = [] if options.budget_size is None else [Budget("N d", options.budget_size, size)]
    counted = [options.budget_parameters, options.budget_total, options.budget_flops]
    if all(limit is None for limit in counted):
        return found
    if options.backbone is None or options.length is None:
        raise ConfigError("budgets of parameters and FLOPs: count blocks; give --backbone and --length")
    backbone = backbone_named(options.backbone, options.ffn_ratio)
    if options.budget_parameters is not None:
        cost = non_embedding_parameters(backbone, options.length)
        found.append(Budget("parameters without the item table", options.budget_parameters, cost))
    if options.budget_total is not None:
        if options.items is None:
            raise ConfigError("--budget-total: counts the item table, items x d; give --items")
        cost = total_parameters(backbone, options.length, options.items)
        found.append(Budget("parameters with the item table", options.budget_total, cost))
    if options.budget_flops is not None:
        cost = flops_per_token(backbone, options.length, options.candidates)
        found.append(Budget("training FLOPs per token", options.budget_flops, cost))
    return found


def _size(text: str) -> tuple[float, float]:
    found = SIZE.fullmatch(text)
    if found is None or not (int(found[1]) and int(found[2])):
        raise ConfigError(f"--sizes: received {text!r}, expected layers x width, such as 28x54")
    return float(found[1]), float(found[2])


def _print(lines: Sequence[str]) -> None:
    print("\n".join(lines))


def _check_json(path: pathlib.Path | None) -> None:
    if path is not None and path.is_dir():
        raise ConfigError(f"--json: {path} is a folder, expected the name of a JSON file")
    if path is not None:
        from wukong_jax.performance_law.option_checks import check_writable

        check_writable("--json", path.parent)


def _write_json(path: pathlib.Path | None, options: RunsOptions, found: dict[str, Any]) -> None:
    """To be called before anything is printed: the reader of a pipe may go away."""
    if path is None:
        return
    from wukong_jax.files import write_text
    from wukong_jax.performance_law.report_findings import plain

    given = {name: value for name, value in dataclasses.asdict(options).items() if name != "json"}
    write_text(path, json.dumps(plain({"options": given, **found}), indent=1) + "\n")
