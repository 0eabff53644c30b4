"""python -m wukong_jax tune: search a config's settings; only the validation split chooses."""

import dataclasses
import importlib
import json
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wukong_jax.config.checks import check_not_negative, check_positive
from wukong_jax.config.command_line import load_config_file, parse
from wukong_jax.errors import ConfigError

if TYPE_CHECKING:
    import optuna
    import rich.console

    from wukong_jax.config.run import RunConfig
    from wukong_jax.tuning.finalists import Finalist
    from wukong_jax.tuning.study import Search


@dataclasses.dataclass(frozen=True)
class TuneOptions:
    """Search the settings of a config with Optuna; the same command resumes a search, in the middle of a trial too.

    Trials are pruned by the median of the validation scores at each evaluation. The test split chooses nothing.
    """

    config: pathlib.Path
    """Config that the space varies; data, schema, protocol and seed are those of all trials."""
    space: pathlib.Path
    """Python file with suggest(trial, config), which returns the config of a trial."""
    trials: int = 20
    """Trials of the study, pruned and failed ones included, after which the search ends."""
    storage: pathlib.Path = pathlib.Path("runs/tune.db")
    """SQLite file of the studies."""
    study: str | None = None
    """Name of the study; by default <name of the config>-<name of the space>."""
    seed: int = 0
    """Seed of the sampler (TPE); the seed of training is the config's."""
    prune: bool = True
    """End a trial whose best score so far is below the median, at that evaluation, of at least five complete trials."""
    prune_after: int = 5
    """Evaluations that every trial gets before it may be pruned."""
    seeds: int = 1
    """With more than 1, the best trials are trained with so many seeds each, and the mean of the scores chooses."""
    finalists: int = 5
    """How many of the best trials are trained with more seeds."""
    source: str | None = None
    """Local folder or file with the raw data, as --data.source of train.py."""
    runs: pathlib.Path = pathlib.Path("runs")
    """The trials' run folders lie under <runs>/tune/<study>."""
    out: pathlib.Path | None = None
    """Config file (.py) to write the best settings to; all trials are listed beside it, in <stem>.trials.jsonl.
    A file that another command or hand wrote is not overwritten."""
    keep: bool = False
    """Keep every trial's checkpoints, not those of the best one only; a later call without it deletes them."""


def main(arguments: Sequence[str]) -> int:
    """Search and print the trials, best first; raises `UserError` where config, space, data or study do not fit."""
    options = parse(TuneOptions, arguments, "python -m wukong_jax tune")
    base = load_config_file(options.config)
    name = options.study or f"{base.name}-{options.space.stem}"
    _check(options, name)
    try:
        importlib.import_module("optuna")  # an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            'tune: Optuna is not installed; `pip install -e ".[tune]"` or `pip install optuna`'
        ) from error
    import rich.console

    from wukong_jax.training.loop import StoppedBySignal
    from wukong_jax.training.run import only_process
    from wukong_jax.tuning.finalists import run_finalists
    from wukong_jax.tuning.space import load_space
    from wukong_jax.tuning.study import Search, open_study, run_search

    console = rich.console.Console(stderr=True)
    source = options.source or base.data.source
    searched = dataclasses.replace(base, data=dataclasses.replace(base.data, source=source))
    space = load_space(options.space)
    check_data(searched, console)
    folder = options.runs / "tune" / name
    prune_after = options.prune_after if options.prune else None
    search = Search(searched, space, folder, options.trials, options.seed, prune_after, options.keep)
    with (
        only_process(options.storage.with_name(f".{options.storage.name}.{name}"), "tuning this study", "--storage"),
        only_process(folder, "tuning this study", "--runs"),
        open_study(options.storage, name, search) as study,
    ):
        try:
            run_search(study, search, console)
            finalists = run_finalists(study, search, options.finalists, options.seeds, console)
        except StoppedBySignal as stopped:
            console.print(f"{stopped}; saved: the same command goes on", soft_wrap=True, markup=False)
            return 128 + stopped.number
        show_trials(study, search, finalists)
        if options.out is not None:
            write_best(options.out, study, base, finalists)
    return 0


def _check(options: TuneOptions, name: str) -> None:
    for field in ("trials", "seeds", "finalists"):
        check_positive(f"--{field}", getattr(options, field))
    check_not_negative("--prune-after", options.prune_after)
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed: received {options.seed}, expected 0 to {2**32 - 1}")
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
        raise ConfigError(f"--study: received {name!r}, expected letters, digits, '.', '_' and '-': it names a folder")
    if options.out is None:
        return
    if options.out.suffix != ".py":
        raise ConfigError(f"--out: received {options.out}, expected a name that ends in .py")
    try:
        foreign = options.out.exists() and f" of the study {name}, " not in options.out.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # a folder, or no text
        foreign = True
    if foreign:
        raise ConfigError(f"--out: {options.out} is there and not of the study {name}; choose another name")


def check_data(config: "RunConfig", console: "rich.console.Console") -> None:
    """Raise `UserError` before the first trial where the data cannot be read or has no validation split."""
    from wukong_jax.training.data import obtain_data
    from wukong_jax.training.loop import VALIDATION, has_validation
    from wukong_jax.training.run import check_validation

    store = obtain_data(config, console)
    if not has_validation(store):
        raise ConfigError(
            f"tune: store {store.path} has no rows in the split {VALIDATION!r}, which chooses; prepare one"
        )
    check_validation(config, store)


def show_trials(study: "optuna.Study", search: "Search", finalists: "Sequence[Finalist]") -> None:
    """Print all trials, best first, the finalists' scores over seeds, and where the best run lies."""
    import rich.console
    import rich.table

    from wukong_jax.tuning.study import finished, shown_end, shown_parameters

    table = rich.table.Table(title=f"{study.study_name}: {len(finished(study))} trials", title_justify="left")
    for heading in ("trial", "state", "evaluations", score_name(search.base)):
        table.add_column(heading)
    table.add_column("parameters", overflow="fold")
    for trial in sorted(finished(study), key=lambda trial: (trial.value is None, -(trial.value or 0.0))):
        cells = [trial.number, trial.state.name.lower(), len(trial.intermediate_values), shown_end(trial)]
        table.add_row(*map(str, cells), shown_parameters(trial.params))
    console = rich.console.Console()
    console.print(table, markup=False)
    for finalist in finalists:
        if len(finalist.scores) > 1:
            scores = " ".join(f"{score:.5f}" for score in finalist.scores)
            print(f"trial {finalist.trial.number}: mean {finalist.mean:.5f} of {scores}")
    if finalists:
        print(f"best: trial {finalists[0].trial.number}, run folder {finalists[0].runs[-1]}")


def write_best(path: pathlib.Path, study: "optuna.Study", base: "RunConfig", finalists: "Sequence[Finalist]") -> None:
    """The best trial as a config file of that name, and all trials as JSON lines beside it; raises `ConfigError`."""
    from wukong_jax.config.source import run_source
    from wukong_jax.files import write_text
    from wukong_jax.tuning.study import REASON, best_config, finished

    trials = finished(study)
    over_seeds = {f.trial.number: list(f.scores) for f in finalists if len(f.scores) > 1}
    lines: list[dict[str, Any]] = [
        {
            "study": study.study_name,
            "trial": trial.number,
            "state": trial.state.name.lower(),
            score_name(base): trial.value if trial.state.name == "COMPLETE" else None,
            **({"over seeds": over_seeds[trial.number]} if trial.number in over_seeds else {}),
            "evaluations": list(trial.intermediate_values.values()),
            "parameters": trial.params,
            "reason": trial.user_attrs.get(REASON),
        }
        for trial in trials
    ]
    write_text(path.with_name(f"{path.stem}.trials.jsonl"), "".join(json.dumps(line) + "\n" for line in lines))
    if not finalists:
        raise ConfigError(f"study {study.study_name}: no trial came to its end, so there is no best one to write")
    best = finalists[0]
    chosen = f", the mean of {len(best.scores)} seeds" if len(best.scores) > 1 else ""
    docstring = (
        f"The best of {len(trials)} trials of the study {study.study_name}, {score_name(base)} {best.mean:.5f}{chosen}."
        "\n\nWritten by `python -m wukong_jax tune`.\n"
    )
    write_text(path, run_source(best_config(best.trial, base, path.stem), docstring))


def score_name(config: "RunConfig") -> str:
    """What chooses: `validation AUC`, or the negative of a validation loss."""
    from wukong_jax.comparison.table import heading, rises

    name = heading(config.train.monitor)
    return f"validation {name}" if rises(config.train.monitor) else f"negative validation {name}"
