"""python -m wukong_jax fit: scaling laws of runs, or of any table, with intervals."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from wukong_jax.config.checks import check_positive
from wukong_jax.config.command_line import parse
from wukong_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    import rich.console

    from wukong_jax.scaling.fit import Fitted
    from wukong_jax.scaling.points import Points
    from wukong_jax.scaling.read_points import Source
    from wukong_jax.scaling.selection import Comparison


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """Fit scaling laws to every series of a sweep's records or of a CSV table.

    Forms: power A x^-alpha, saturating E + A x^-alpha, known-floor, log-linear c + b ln x; with --joint
    E + A N^-alpha + B D^-beta. Intervals are a bootstrap's; the form that predicts left-out points best is marked.
    """

    points: pathlib.Path
    """Folder of run records, such as results/scaling/<sweep>, or a CSV file."""
    x: str = "compute"
    """Records: compute (training MFLOP/example), examples or parameters. CSV: a column."""
    y: str = "logloss"
    """Test metric of the records, or a column of the CSV; it gets better as it falls."""
    study: str = "ladder"
    """Study of the records."""
    series: str = "series"
    """CSV: column that names the curve of a row."""
    seed: str | None = None
    """CSV: column of the seeds."""
    forms: tuple[str, ...] = ()
    """Forms to fit; by default all that the points allow."""
    loss: Literal["squares", "huber"] = "squares"
    """Squared error of the metric, or Huber's loss of its logarithm's error (delta 0.001), for outliers."""
    relative: bool = False
    """The metric is relative LogLoss in percent: laws start at -100, so that `power` is y = -100 + A x^-alpha."""
    floor: float | None = None
    """Best possible value, for the form known-floor; by default the records' own, if their data has one."""
    significant: float | None = None
    """Smallest difference of two runs that counts; by default 1.96 standard errors from the seeds or the best form."""
    joint: bool = False
    """Fit L(N, D) in compute per example and examples instead."""
    examples: str = "examples"
    """CSV with --joint: column of the examples trained on."""
    budgets: tuple[float, ...] = ()
    """With --joint: totals of training FLOPs (of N x D in a CSV's units) to divide best between N and D."""
    draws: int = 1000
    """Fits of the bootstrap."""
    level: float = 0.95
    """Level of all intervals but that of the tail, 95 %."""
    bootstrap_seed: int = 0
    """Seed of the bootstrap: the same seed gives the same intervals."""
    out: pathlib.Path | None = None
    """JSON file of all that is printed, with all digits."""


def main(arguments: Sequence[str]) -> int:
    """Fit, print and write; raises `UserError` where options or points do not fit."""
    options = parse(FitOptions, arguments, "python -m wukong_jax fit")
    _check(options)
    import rich.console

    from wukong_jax.scaling.fit_display import print_left_out

    console = rich.console.Console()
    source = read(options)
    print_left_out(source, console)
    result = (fit_joint if options.joint else fit_curves)(options, source, console)
    if options.out is not None:
        from wukong_jax.files import write_text

        left_out = [run._asdict() for run in source.left_out]
        text = json.dumps(plain({"options": described(options), **result, "left_out": left_out}), indent=1)
        write_text(options.out, text + "\n")
    return 0


def _check(options: FitOptions) -> None:
    from wukong_jax.scaling.fit import check_bootstrap
    from wukong_jax.scaling.laws import JOINT, law_named

    check_bootstrap(options.draws, options.level)
    if options.bootstrap_seed < 0:
        raise ConfigError(f"--bootstrap-seed: received {options.bootstrap_seed}, expected 0 or more")
    for form in options.forms:
        if law_named(form) is JOINT:
            raise ConfigError(f"--forms: {form} takes two inputs; choose it with --joint")
    if len(set(options.forms)) < len(options.forms):
        raise ConfigError(f"--forms: received {' '.join(options.forms)}, expected each form once")
    if options.significant is not None:
        check_positive("--significant", options.significant)
    if options.floor is not None and not math.isfinite(options.floor):
        raise ConfigError(f"--floor: received {options.floor}, expected a number")
    if options.relative and options.points.is_dir():
        raise ConfigError("--relative: the metrics of run records are not relative; leave it out")
    if options.budgets and not options.joint:
        raise ConfigError("--budgets: a budget is divided by the joint law; add --joint")
    if options.budgets and options.points.is_dir() and options.x != "compute":
        raise ConfigError(f"--budgets: are divided between compute and examples, but --x is {options.x}")
    for budget in options.budgets:
        check_positive("--budgets", budget)
    if options.joint and (options.forms or options.floor is not None):
        raise ConfigError("--joint: has a form of its own, with a fitted floor; leave out --forms and --floor")
    if options.out is not None and options.out.is_dir():
        raise ConfigError(f"--out: {options.out} is a folder, expected the name of a JSON file")


def read(options: FitOptions) -> "Source":
    """The points of the folder or table."""
    from wukong_jax.scaling.points import RELATIVE_ORIGIN
    from wukong_jax.scaling.read_points import read_records, read_table

    origin = RELATIVE_ORIGIN if options.relative else 0.0
    if options.points.is_dir():
        inputs = (options.x, "examples") if options.joint else (options.x,)
        return read_records(options.points, options.study, inputs, options.y, origin=origin, floor=options.floor)
    if not options.points.is_file():
        raise DataError(f"--points: {options.points} does not exist, expected a folder of run records or a CSV file")
    inputs = (options.x, options.examples) if options.joint else (options.x,)
    return read_table(
        options.points, inputs, options.y, options.series, options.seed, origin=origin, floor=options.floor
    )


def fit_curves(options: FitOptions, source: "Source", console: "rich.console.Console") -> dict[str, Any]:
    """All forms of all series, and the ranking of the series; series that no form fits are said."""
    from wukong_jax.scaling.fit_display import print_comparison, print_ranking, print_refused
    from wukong_jax.scaling.saturation import rank, saturation
    from wukong_jax.scaling.selection import compare_forms

    comparisons, found, refused = [], [], {}
    for points in source.points:
        try:
            comparison = compare_forms(
                points,
                options.forms or None,
                loss=options.loss,
                draws=options.draws,
                level=options.level,
                seed=options.bootstrap_seed,
            )
        except DataError as error:
            refused[points.series] = str(error)
            continue
        comparisons.append(comparison)
        deviation = deviation_of(options, points, comparison)
        found.append(saturation(points, deviation, source.exploded(points.series)))
        print_comparison(comparison, console)
    if not comparisons:
        raise DataError("; ".join(refused.values()))
    print_refused(refused, console)
    print_ranking(rank(found), console)
    return {
        "series": [_comparison_plain(comparison) for comparison in comparisons],
        "saturation": [one._asdict() | {"state": one.state} for one in rank(found)],
        "not_fitted": refused,
    }


def deviation_of(options: FitOptions, points: "Points", comparison: "Comparison") -> float:
    """Standard deviation of one run: as given, else as the runs show it."""
    from wukong_jax.scaling.saturation import deviation_of_threshold
    from wukong_jax.scaling.selection import compare_forms, run_deviation

    if options.significant is not None:
        return deviation_of_threshold(options.significant)
    if options.forms:  # the misfit of a form that was asked for is no noise
        comparison = compare_forms(points, None, loss=options.loss, draws=options.draws, level=options.level)
    return run_deviation(points, comparison)


def fit_joint(options: FitOptions, source: "Source", console: "rich.console.Console") -> dict[str, Any]:
    """L(N, D) of each series and the best division of each budget."""
    from wukong_jax.scaling.allocation import allocate
    from wukong_jax.scaling.fit import fit_series
    from wukong_jax.scaling.fit_display import print_allocations, print_fits, print_refused
    from wukong_jax.scaling.read_points import MFLOP

    unit = MFLOP if options.points.is_dir() and options.x == "compute" else 1.0
    described_series, refused = [], {}
    for points in source.points:
        try:
            fit = fit_series(
                points,
                "joint",
                loss=options.loss,
                draws=options.draws,
                level=options.level,
                seed=options.bootstrap_seed,
            )
        except DataError as error:
            refused[points.series] = str(error)
            continue
        allocations = allocate(fit, [budget / unit for budget in options.budgets])
        allocations = tuple(one._replace(budget=one.budget * unit) for one in allocations)
        print_fits(points.series, [fit], None, console)
        print_allocations(points.series, allocations, console)
        division = [one._asdict() for one in allocations]
        described_series.append({"series": points.series, "fits": [_fit_plain(fit)], "allocations": division})
    if not described_series:
        raise DataError("; ".join(refused.values()))
    print_refused(refused, console)
    return {"series": described_series, "not_fitted": refused}


def described(options: FitOptions) -> dict[str, Any]:
    """The options, paths as they were given."""
    return {
        name: str(value) if isinstance(value, pathlib.Path) else value
        for name, value in dataclasses.asdict(options).items()
        if name != "out"
    }


def plain(value: Any) -> Any:
    """JSON values: named tuples as objects, and null for what is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _comparison_plain(comparison: "Comparison") -> dict[str, Any]:
    return {
        "series": comparison.series,
        "best": comparison.best,
        "verdict": comparison.verdict,
        "rivals": comparison.rivals,
        "skipped": comparison.skipped,
        "fits": [_fit_plain(fit) for fit in comparison.fits],
    }


def _fit_plain(fit: "Fitted") -> dict[str, Any]:
    return {
        "form": fit.law.name,
        "formula": fit.law.formula,
        "origin": fit.origin,
        "floor": fit.points.floor if fit.law.from_floor else None,
        "loss": fit.loss,
        "level": fit.level,
        "bootstrap": str(fit.noise),
        "runs": len(fit.points.y),
        "points": int(fit.points.groups.max()) + 1,
        "parameters": fit.parameters,
        "change_at_last_4x": fit.gain() if fit.law.variables == 1 else None,
        "diagnostics": fit.diagnostics,
    }
