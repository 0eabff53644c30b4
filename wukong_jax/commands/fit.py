"""python -m wukong_jax fit: scaling laws of runs, or of any table, with intervals."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from wukong_jax.commands.json_values import plain
from wukong_jax.config.checks import check_positive
from wukong_jax.config.command_line import parse
from wukong_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    import rich.console

    from wukong_jax.scaling.allocation import Allocation
    from wukong_jax.scaling.fit import Fitted
    from wukong_jax.scaling.points import Points
    from wukong_jax.scaling.read_points import Source
    from wukong_jax.scaling.run_noise import RunNoise
    from wukong_jax.scaling.saturation import Saturation
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
    study: str | None = None
    """Records: the study, ladder when not given."""
    series: str | None = None
    """CSV: column that names the curve of a row, series when not given."""
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
    examples: str | None = None
    """CSV with --joint: column of the examples trained on, examples when not given."""
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
    options = with_usual_names(options)
    import rich.console

    from wukong_jax.scaling.fit_display import print_left_out

    console = rich.console.Console()
    source = read(options)
    try:
        found = fit_joint(options, source) if options.joint else fit_curves(options, source)
    except DataError:  # the runs that were left out may be why
        print_left_out(source, console)
        raise
    if options.out is not None:  # before anything is printed: the reader of a pipe may go away
        from wukong_jax.files import write_text

        left_out = [run._asdict() for run in source.left_out]
        text = json.dumps(plain({"options": described(options), **found.plain(), "left_out": left_out}), indent=1)
        write_text(options.out, text + "\n")
    print_left_out(source, console)
    found.print(console)
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
    _check_source(options)
    if options.budgets and not options.joint:
        raise ConfigError("--budgets: a budget is divided by the joint law; add --joint")
    if options.budgets and options.points.is_dir() and options.x != "compute":
        raise ConfigError(f"--budgets: are divided between compute and examples, but --x is {options.x}")
    for budget in options.budgets:
        check_positive("--budgets", budget)
    if options.joint and (options.forms or options.floor is not None):
        raise ConfigError("--joint: has a form of its own, with a fitted floor; leave out --forms and --floor")
    if options.joint and options.significant is not None:
        raise ConfigError("--significant: is for the ranking of the series, which --joint does not make; leave it out")
    if options.out is not None and options.out.is_dir():
        raise ConfigError(f"--out: {options.out} is a folder, expected the name of a JSON file")


def _check_source(options: FitOptions) -> None:
    """Raise `ConfigError` for options that records, or a CSV, do not read."""
    if options.points.is_dir():
        if options.relative:
            raise ConfigError("--relative: the metrics of run records are not relative; leave it out")
        for name in ("series", "seed", "examples"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name}: is a column of a CSV file; leave it out with a folder of run records")
    elif options.points.is_file() and options.study is not None:
        raise ConfigError("--study: is of a folder of run records; leave it out with a CSV file")
    if options.examples is not None and not options.joint:
        raise ConfigError("--examples: is an input of the joint law; add --joint, or leave it out")


def with_usual_names(options: FitOptions) -> FitOptions:
    """The names that are read and were not given; those that are not read stay None."""
    usual = {"study": "ladder"} if options.points.is_dir() else {"series": "series"}
    if options.joint and not options.points.is_dir():
        usual["examples"] = "examples"
    missing: dict[str, Any] = {name: value for name, value in usual.items() if getattr(options, name) is None}
    return dataclasses.replace(options, **missing)


def read(options: FitOptions) -> "Source":
    """The points of the folder or table."""
    from wukong_jax.scaling.points import RELATIVE_ORIGIN
    from wukong_jax.scaling.read_points import read_records, read_table

    origin = RELATIVE_ORIGIN if options.relative else 0.0
    if options.points.is_dir():
        inputs = (options.x, "examples") if options.joint else (options.x,)
        assert options.study is not None, "as with_usual_names leaves it"
        return read_records(options.points, options.study, inputs, options.y, origin=origin, floor=options.floor)
    if not options.points.is_file():
        raise DataError(f"--points: {options.points} does not exist, expected a folder of run records or a CSV file")
    assert options.series is not None, "as with_usual_names leaves it"
    inputs = (options.x,) if options.examples is None else (options.x, options.examples)
    return read_table(
        options.points, inputs, options.y, options.series, options.seed, origin=origin, floor=options.floor
    )


class Curves(NamedTuple):
    """All forms of all series, and the ranking of the series."""

    comparisons: "list[Comparison]"
    ranking: "list[Saturation]"
    refused: dict[str, str]
    """By series that no form fits: why."""

    def plain(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {
            "series": [_comparison_plain(comparison) for comparison in self.comparisons],
            "saturation": [_saturation_plain(one) for one in self.ranking],
            "not_fitted": self.refused,
        }

    def print(self, console: "rich.console.Console") -> None:
        """Tables of every series, and the ranking."""
        from wukong_jax.scaling.fit_display import print_comparison, print_ranking, print_refused

        for comparison in self.comparisons:
            print_comparison(comparison, console)
        print_refused(self.refused, console)
        print_ranking(self.ranking, console)


def _saturation_plain(found: "Saturation") -> dict[str, Any]:
    noise = found.noise
    known = {"deviation": noise.deviation.tolist(), "freedom": noise.freedom.tolist(), "shared": noise.shared}
    return found._asdict() | {"state": found.state, "noise": known}


def fit_curves(options: FitOptions, source: "Source") -> Curves:
    """Fit every series; raises `DataError` where no form fits any."""
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
        found.append(saturation(points, noise_of(options, points, comparison), source.exploded(points.series)))
    if not comparisons:
        raise DataError("; ".join(refused.values()))
    return Curves(comparisons, rank(found), refused)


def noise_of(options: FitOptions, points: "Points", comparison: "Comparison") -> "RunNoise":
    """The noise of one run: as given, else as the runs show it."""
    from wukong_jax.scaling.run_noise import given_noise
    from wukong_jax.scaling.saturation import deviation_of_threshold
    from wukong_jax.scaling.selection import compare_forms, run_noise

    if options.significant is not None:
        return given_noise(deviation_of_threshold(options.significant), len(set(points.x.tolist())))
    if options.forms:  # the misfit of a form that was asked for is no noise
        comparison = compare_forms(points, None, loss=options.loss, draws=options.draws, level=options.level)
    return run_noise(points, comparison)


class Joint(NamedTuple):
    """L(N, D) of each series, and the best division of each budget."""

    fits: "list[Fitted]"
    allocations: "list[tuple[Allocation, ...]]"
    """Of each fit, one a budget."""
    refused: dict[str, str]
    """By series that the law does not fit: why."""

    def plain(self) -> dict[str, Any]:
        """All of it for JSON."""
        series = [
            {
                "series": fit.points.series,
                "fits": [_fit_plain(fit)],
                "allocations": [one._asdict() for one in division],
            }
            for fit, division in zip(self.fits, self.allocations, strict=True)
        ]
        return {"series": series, "not_fitted": self.refused}

    def print(self, console: "rich.console.Console") -> None:
        """Tables of every series."""
        from wukong_jax.scaling.fit_display import print_allocations, print_fits, print_refused

        for fit, division in zip(self.fits, self.allocations, strict=True):
            print_fits(fit.points.series, [fit], None, console)
            print_allocations(fit.points.series, division, console)
        print_refused(self.refused, console)


def fit_joint(options: FitOptions, source: "Source") -> Joint:
    """Fit every series and divide the budgets; raises `DataError` where the law fits none."""
    from wukong_jax.scaling.allocation import allocate
    from wukong_jax.scaling.fit import fit_series
    from wukong_jax.scaling.read_points import MFLOP

    unit = MFLOP if options.points.is_dir() and options.x == "compute" else 1.0
    found = Joint([], [], {})
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
            found.refused[points.series] = str(error)
            continue
        allocations = allocate(fit, [budget / unit for budget in options.budgets])
        found.fits.append(fit)
        found.allocations.append(tuple(one._replace(budget=one.budget * unit) for one in allocations))
    if not found.fits:
        raise DataError("; ".join(found.refused.values()))
    return found


def described(options: FitOptions) -> dict[str, Any]:
    """The options, paths as they were given."""
    return {
        name: str(value) if isinstance(value, pathlib.Path) else value
        for name, value in dataclasses.asdict(options).items()
        if name != "out"
    }


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
