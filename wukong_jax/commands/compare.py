"""python -m wukong_jax compare: several models on one data set under one protocol, over seeds, in one table."""

import dataclasses
import difflib
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from wukong_jax.config.checks import check_positive
from wukong_jax.config.command_line import load_config_file, parse
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import BusyError, CheckpointError, ConfigError, DataError, TrainingError

if TYPE_CHECKING:
    import rich.console

    from wukong_jax.comparison.records import RecordedRun
    from wukong_jax.comparison.table import Comparison


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Train models over seeds on one data set and write one table, as Markdown, CSV and a plot.

    A run whose record lies in the records folder is not trained again; a stopped one goes on at its last checkpoint.
    The table has every recorded run of these models, also those of seeds that an earlier call asked for.
    """

    config: pathlib.Path
    """Config of the data set: data, schema, protocol and the model of the first row."""
    models: tuple[str, ...] = ()
    """The other rows: config files, or short names such as dnn for baselines/dnn_<name>.py beside the config."""
    seeds: int = 3
    """Runs of each model, with the seeds 0, 1, ..."""
    source: str | None = None
    """Local folder or file with the raw data, as --data.source of train.py."""
    runs: pathlib.Path = pathlib.Path("runs")
    """Folder of the run folders."""
    records: pathlib.Path | None = None
    """Folder of the records, one small file a run, to be kept; by default results/<name>."""
    out: pathlib.Path | None = None
    """Folder of table.md, table.csv, differences.csv and auc_flops.png; by default that of the records."""
    dry_run: bool = False
    """Only say which runs are there and which are missing."""


def main(arguments: Sequence[str]) -> int:
    """Train what is missing and write the tables; raises `UserError` where configs, data or folders do not fit."""
    options = parse(CompareOptions, arguments, "python -m wukong_jax compare")
    check_positive("--seeds", options.seeds)
    configs = load_rows(options)
    records = options.records or pathlib.Path("results") / configs[0].name
    import rich.console

    from wukong_jax.comparison.records import check_writable
    from wukong_jax.comparison.table import compare_rows, make_rows
    from wukong_jax.training.loop import StoppedBySignal

    console = rich.console.Console(stderr=True)
    found = recorded(records, configs[0])
    if options.dry_run:
        show_plan(configs, options, found)
        return 0
    out = options.out or records
    for folder in (records, out):
        check_writable(folder)
    try:
        failed = train_missing(configs, options, records, found, console)
    except StoppedBySignal as stopped:
        console.print(f"{stopped}; saved: the same command goes on", soft_wrap=True, markup=False)
        return 128 + stopped.number
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    write_comparison(out, compare_rows(make_rows(runs_of(configs, found))))
    print((out / "table.md").read_text(), end="")
    return 2 if failed else 0


def load_rows(options: CompareOptions) -> list[RunConfig]:
    """The base's config and the other models', all with its data; raises `ConfigError` where they do not fit."""
    from wukong_jax.comparison.records import check_protocol
    from wukong_jax.training.data import data_path

    base = load_config_file(options.config)
    rows = [base]
    for name in options.models:
        config = load_config_file(model_file(name, options.config, base))
        check_protocol(base, config)
        ours, theirs = (data_path(c) for c in (base, config))
        if ours != theirs:
            raise ConfigError(f"{config.name}: data.store is {theirs}, but {base.name} has {ours}; give both the same")
        if config.name in [row.name for row in rows]:
            raise ConfigError(
                f"--models {name}: its name {config.name!r} is that of another row; each row needs a name of its own"
            )
        rows.append(config)
    source = options.source
    return [
        dataclasses.replace(row, data=dataclasses.replace(row.data, source=source)) if source else row for row in rows
    ]


def model_file(name: str, base_file: pathlib.Path, base: RunConfig) -> pathlib.Path:
    """The config file of a row: a path, or baselines/<name>_<base's name>.py beside the base's file."""
    if name.endswith(".py") or "/" in name:
        return pathlib.Path(name)
    folder = base_file.parent / "baselines"
    path = folder / f"{name}_{base.name}.py"
    if not path.is_file():
        known = sorted(file.stem.removesuffix(f"_{base.name}") for file in folder.glob(f"*_{base.name}.py"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"--models {name}: {path} does not exist; {hint}models there: {', '.join(known) or 'none'}; or give a path"
        )
    return path


def runs_of(configs: Sequence[RunConfig], found: "dict[str, RecordedRun]") -> "list[RecordedRun]":
    """The recorded runs of the models, whatever their seed, row by row; raises `DataError` if the first has none."""
    from wukong_jax.comparison.table import settings_hash

    by_settings: dict[str, list[RecordedRun]] = {}
    for run in found.values():
        by_settings.setdefault(settings_hash(run.config), []).append(run)
    rows = [by_settings.get(settings_hash(config), []) for config in configs]
    if not rows[0]:
        raise DataError(
            f"{configs[0].name}: no run of it is recorded, and the differences are taken from it; mend its settings, "
            "or give another --config (the runs that finished are kept)"
        )
    return [run for row in rows for run in row]


def seeded(configs: Sequence[RunConfig], seeds: int) -> Iterator[RunConfig]:
    """All runs, seed by seed, so that what is finished early compares all models."""
    for seed in range(seeds):
        for config in configs:
            yield dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))


def recorded(folder: pathlib.Path, base: RunConfig) -> "dict[str, RecordedRun]":
    """The records of a folder by identity hash; raises `DataError` if new runs could not stand beside them."""
    from wukong_jax.comparison.records import check_numerics, read_folder
    from wukong_jax.training.data import data_path

    runs = {run.config.identity_hash(): run for run in read_folder(folder)}
    for run in runs.values():
        check_numerics(run)
    path = data_path(base)
    if path.exists():
        check_same_data(runs, base, path)
    return runs


def check_same_data(runs: "dict[str, RecordedRun]", base: RunConfig, path: pathlib.Path) -> None:
    """Raise `DataError` if a record is of other data than the store holds."""
    from wukong_jax.training.data import open_data

    if not runs:
        return
    digest = open_data(base, path, verify=False).digest
    for run in runs.values():
        if run.config.schema == base.schema and run.record["store_digest"] != digest:
            raise DataError(
                f"records {run.path}: trained on other data than store {path} now holds; restore that store, or "
                "keep the new runs in another folder with --records"
            )


def train_missing(
    configs: Sequence[RunConfig],
    options: CompareOptions,
    records: pathlib.Path,
    found: "dict[str, RecordedRun]",
    console: "rich.console.Console",
) -> list[str]:
    """Train every run that has no record yet and add it to `found`; returns what could not be trained, and why."""
    import jax

    from wukong_jax.comparison.records import read_folder, save_record
    from wukong_jax.scaling.flops import describe_cost
    from wukong_jax.training.data import obtain_data
    from wukong_jax.training.run import default_folder, train

    failed = []
    missing = [config for config in seeded(configs, options.seeds) if config.identity_hash() not in found]
    for config in {config.name: config for config in missing}.values():
        describe_cost(config)  # a model that does not fit the data is found now, not after hours
    if missing:
        check_same_data(found, configs[0], obtain_data(configs[0], console).path)
    for count, config in enumerate(missing, 1):
        console.print(f"run {count} of {len(missing)}: {config.name}, seed {config.train.seed}", markup=False)
        try:
            save_record(records, train(config, default_folder(config, options.runs), console))
        except (BusyError, CheckpointError, DataError, TrainingError, jax.errors.JaxRuntimeError) as error:
            # one run's folder is damaged, taken or diverged, or its model is too large for the memory
            failed.append(f"{config.name}, seed {config.train.seed}: {error}")
    found |= {run.config.identity_hash(): run for run in read_folder(records)}
    return failed


def show_plan(configs: Sequence[RunConfig], options: CompareOptions, found: "dict[str, RecordedRun]") -> None:
    """Print each run and what there is of it."""
    from wukong_jax.training.run import RECORD_FILE, default_folder, holds_run

    for config in seeded(configs, options.seeds):
        folder = default_folder(config, options.runs)
        if config.identity_hash() in found:
            state = f"recorded in {found[config.identity_hash()].path}"
        elif (folder / RECORD_FILE).is_file():
            state = f"finished in {folder}, not recorded yet"
        else:
            state = f"begun in {folder}" if holds_run(folder) else "missing"
        print(f"{config.name}, seed {config.train.seed}: {state}")


def write_comparison(folder: pathlib.Path, comparison: "Comparison") -> None:
    """table.md, table.csv, differences.csv and auc_flops.png."""
    from wukong_jax.comparison.plot import draw_auc_flops
    from wukong_jax.comparison.report import differences_csv, markdown, table_csv
    from wukong_jax.files import write_text

    write_text(folder / "table.md", markdown(comparison))
    write_text(folder / "table.csv", table_csv(comparison))
    write_text(folder / "differences.csv", differences_csv(comparison))
    draw_auc_flops(folder / "auc_flops.png", comparison)
