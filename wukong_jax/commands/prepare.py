"""python -m wukong_jax prepare: raw files to a store, from the command line alone."""

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Literal, get_args

import rich.console
import tyro

from wukong_jax.commands import prepare_events
from wukong_jax.commands.config_source import config_source
from wukong_jax.config.run import DataConfig
from wukong_jax.data import sources
from wukong_jax.data.engines.task import Engine
from wukong_jax.data.ingest import Progress, ingest
from wukong_jax.data.obtain_store import obtain_store
from wukong_jax.data.recipes import load_recipe
from wukong_jax.data.spec import (
    CategoricalColumn,
    FileSplit,
    FractionSplit,
    GroupTimeSplit,
    IngestSpec,
    MultiHotColumn,
    NumericColumn,
    SplitRule,
    TimeSplit,
    Transform,
    VectorColumn,
)
from wukong_jax.data.store import Store
from wukong_jax.errors import ConfigError
from wukong_jax.files import write_text

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """Turn raw files into a store that `train.py` reads.

    Example: prepare --files clicks.csv --label clicked --categorical user item:5 --numeric price:signed_log1p
    --out data/clicks --write-config configs/clicks.py
    Public data sets: prepare --recipe criteo_kaggle --source train.txt (see prepare --recipe NAME --help)
    Sequences of events: prepare --events log.csv --out data/log (see prepare --events FILE --help)
    """

    out: pathlib.Path
    """The store to write; one that is there is replaced when the new one is whole."""
    files: Names = ()
    """Files or globs (quoted) that the split rule divides; .gz and .zst are unpacked."""
    train: Names = ()
    """Training files, when each split has files of its own."""
    valid: Names = ()
    """Validation files."""
    test: Names = ()
    """Test files."""
    format: Literal["csv", "tsv", "criteo", "libfm", "parquet"] = "csv"
    """criteo: 40 tab-separated columns without header; libfm: `label id:1 id:1 ...`."""
    columns: Names = ()
    """Names of the columns of a file without header; for libfm, of the fields after the label."""
    separator: str | None = None
    """Separator of a text format, if not the format's own."""
    quotes: bool | None = None
    """Whether double quotes may enclose a field (default: yes in csv, no in tsv)."""
    label: Names = ("label",)
    """Label columns; their values are 0 and 1."""
    categorical: Names = ()
    """NAME or NAME:MIN_COUNT; one value a row, with a vocabulary by frequency."""
    hashed: Names = ()
    """NAME:BUCKETS; one value a row, hashed into buckets."""
    bucketed: Names = ()
    """NAME or NAME:MIN_COUNT; an integer v > 2 becomes the category floor(ln(v)^2), as is usual for Criteo."""
    multi_hot: Names = ()
    """NAME:MAX_LENGTH[:sum|mean]; several values a row, pooled."""
    item_separator: str = "|"
    """What separates the values of a multi-hot column."""
    numeric: Names = ()
    """NAME[:TRANSFORM][:missing]; TRANSFORM is none, signed_log1p, standardise, signed_log1p_standardise or min_max,
    and missing adds an indicator of missing values."""
    vectors: Names = ()
    """NAME:WIDTH; that many numbers a row, separated by ";" (or a Parquet list)."""
    group: str | None = None
    """Column that gAUC and the group-time split group by."""
    weight: str | None = None
    """Column of example weights."""
    time: str | None = None
    """Column of times, as integers."""
    min_count: int = 1
    """Values seen less often in the training split are out of vocabulary (where a column does not say)."""
    split: Literal["files", "fraction", "time", "group-time"] | None = None
    """How rows are split (default: files where --train is given, else fraction)."""
    valid_share: float = 0.1
    """Share of the validation split (fraction, group-time)."""
    test_share: float = 0.1
    """Share of the test split (fraction, group-time)."""
    seed: int = 0
    """Seed of the fraction split."""
    valid_from: int | None = None
    """First time of the validation split (time)."""
    test_from: int | None = None
    """First time of the test split (time)."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """skip: malformed rows are counted and put aside in OUT.bad_rows.tsv."""
    engine: Literal["local", "ray"] = "local"
    """local: in this process. ray: shard by shard in workers of Ray (pip install ray); the store is the same, byte for
    byte. FILES and the folder of OUT must be seen by all nodes under the same paths."""
    ray_address: str | None = None
    """Ray to connect to, as ray.init takes it: auto, HOST:PORT, ray://HOST:PORT (default: one started on this
    machine)."""
    workers: int | None = None
    """Shards in work at a time on Ray (default: as many as it has processors)."""
    write_config: pathlib.Path | None = None
    """Also write a configuration file for `train.py --config`."""


def main(argv: Sequence[str]) -> int:
    """Run the command; raises `UserError` on bad options or bad input."""
    given = {argument.partition("=")[0] for argument in argv}
    if "--events" in given:
        return prepare_events.main(argv)
    if "--recipe" in given:
        return _prepare_recipe(tyro.cli(RecipeOptions, args=list(argv), prog="python -m wukong_jax prepare"))
    options = tyro.cli(PrepareOptions, args=list(argv), prog="python -m wukong_jax prepare")
    _refuse_unused(options)
    if options.write_config is not None and options.write_config.exists():
        raise ConfigError(f"--write-config: {options.write_config} exists and may hold your changes; name another file")
    spec, source = spec_of(options), source_of(options)
    _refuse_unread(options)
    began = time.perf_counter()
    with _engine(options) as engine:
        store = ingest(source, spec, options.out, on_bad_rows=options.on_bad_rows, progress=_progress(), engine=engine)
    seconds = time.perf_counter() - began
    if options.write_config is not None:  # before anything is printed: the reader of a pipe may go away
        write_text(options.write_config, config_source(options.out.name, str(options.out), store.schema))
    print("\n".join(summary(store, seconds)))
    if options.write_config is not None:
        print(f"config: {options.write_config}")
    return 0


@dataclasses.dataclass(frozen=True)
class RecipeOptions:
    """Prepare a public data set as its recipe says, where `train.py` looks for it."""

    recipe: str
    """movielens_100k, movielens_1m, movielens_1m_sampled, frappe, criteo_kaggle, criteo_terabyte, synthetic or
    planted."""
    source: str | None = None
    """Local folder or file with the raw data; needed where the recipe cannot download it."""
    root: str = "data"
    """Folder for stores and downloads, as --data.root of train.py."""


def _prepare_recipe(options: RecipeOptions) -> int:
    data = DataConfig(recipe=options.recipe, source=options.source, root=options.root)
    store = obtain_store(data, load_recipe(options.recipe).SCHEMA, rich.console.Console())
    print(f"store: {store.path}  (schema {store.schema.hash()})")
    return 0


# Options that only some formats or split rules read: given with others they would be without effect.
ONLY_WITH = {
    "columns": ("format", ("csv", "tsv", "libfm")),
    "separator": ("format", ("csv", "tsv")),
    "quotes": ("format", ("csv", "tsv")),
    "valid_from": ("split", ("time",)),
    "test_from": ("split", ("time",)),
    "valid_share": ("split", ("fraction", "group-time", None)),
    "test_share": ("split", ("fraction", "group-time", None)),
    "seed": ("split", ("fraction", None)),
    "ray_address": ("engine", ("ray",)),
    "workers": ("engine", ("ray",)),
}


def _refuse_unused(options: PrepareOptions) -> None:
    """Raise `ConfigError` for an option that the chosen format or split rule does not read."""
    defaults = {field.name: field.default for field in dataclasses.fields(PrepareOptions)}
    for name, (decider, values) in ONLY_WITH.items():
        if getattr(options, name) != defaults[name] and getattr(options, decider) not in values:
            option, chosen = name.replace("_", "-"), getattr(options, decider)
            known = " or ".join(f"--{decider} {value}" for value in values if value)
            received = f"--{decider} {chosen}" if chosen else f"no --{decider}"
            raise ConfigError(
                f"--{option}: only read with {known}, received {received}; add it or leave --{option} out"
            )
    if options.format == "libfm" and len(options.label) > 1:
        raise ConfigError(f"--label: a libfm file has one label, received {list(options.label)}")


def _refuse_unread(options: PrepareOptions) -> None:
    """Raise `ConfigError` for an option of columns that no column reads."""
    columns = _with_usual_features(options)
    counted = [text for text in (*columns.categorical, *columns.bucketed) if not text.partition(":")[2]]
    if options.min_count != PrepareOptions.min_count and not (counted or columns.multi_hot):
        raise ConfigError(
            f"--min-count: received {options.min_count}, but every named column has a count of its own or none; "
            "leave it out"
        )
    if options.item_separator != PrepareOptions.item_separator and not columns.multi_hot:
        raise ConfigError("--item-separator: is for --multi-hot columns; name one or leave it out")


def source_of(options: PrepareOptions) -> sources.Source:
    """The source that the options describe; raises `UserError`."""
    by_split = {name: getattr(options, name) for name in ("train", "valid", "test") if getattr(options, name)}
    if bool(options.files) == bool(by_split):
        raise ConfigError("name the raw files: either --files, or --train with --valid and --test")
    files = {"all": options.files} if options.files else by_split
    if options.format == "criteo":
        return sources.criteo_source(files)
    if options.format == "parquet":
        return sources.parquet_source(files)
    if options.format == "libfm":
        if not options.columns:
            raise ConfigError("--format libfm: name the fields after the label, in order, with --columns")
        return sources.libfm_source(files, fields=options.columns, label=options.label[0])
    quotes = options.format == "csv" if options.quotes is None else options.quotes
    separator = options.separator or {"csv": ",", "tsv": "\t"}[options.format]
    columns = options.columns or None
    return sources.csv_source(files, separator=separator, columns=columns, quote='"' if quotes else None)


def spec_of(options: PrepareOptions) -> IngestSpec:
    """The specification that the options describe; raises `ConfigError`."""
    options = _with_usual_features(options)
    least = options.min_count
    categorical = [CategoricalColumn(*_counted("categorical", text, least)) for text in options.categorical]
    for text in options.hashed:
        name, buckets = _counted("hashed", text, None)
        categorical.append(CategoricalColumn(name, hash_buckets=buckets))
    for text in options.bucketed:
        name, count = _counted("bucketed", text, least)
        categorical.append(CategoricalColumn(name, count, bucketing="log2_square"))
    return IngestSpec(
        labels=options.label,
        categorical=tuple(categorical),
        multi_hot=tuple(_multi_hot(text, options) for text in options.multi_hot),
        numeric=tuple(_numeric(text) for text in options.numeric),
        vectors=tuple(VectorColumn(*_counted("vectors", text, None)) for text in options.vectors),
        group=options.group,
        weight=options.weight,
        time=options.time,
        split=_split(options),
    )


def summary(store: Store, seconds: float) -> list[str]:
    """Lines that say what was made: rows, vocabularies, out-of-vocabulary shares, collisions, bad rows."""
    report = store.encoding["report"]
    rows = sum(report["rows"].values())
    lines = [f"store: {store.path}  (schema {store.schema.hash()})"]
    shares = ", ".join(f"{name} {count:,}" for name, count in report["rows"].items())
    lines.append(f"rows: {rows:,} ({shares}) in {seconds:.1f} s, {rows / seconds:,.0f} rows/s")
    width = max((len(name) for name in report["features"]), default=0)
    lines += [f"  {name:<{width}}  {_facts(facts)}" for name, facts in report["features"].items()]
    if report["bad_rows"]:
        lines.append(f"bad rows: {report['bad_rows']:,}, put aside in {store.path}.bad_rows.tsv")
    return lines


def _facts(facts: dict[str, int | float]) -> str:
    """One feature's line of the report."""
    if "buckets" in facts:
        text = f"{facts['values']:,} values in {facts['occupied']:,} of {facts['buckets']:,} buckets, "
        text += f"{facts['values'] - facts['occupied']:,} fewer than without collisions"
    else:
        text = f"{facts['kept']:,} of {facts['values']:,} values kept, "
        text += f"{facts['out_of_vocabulary']:.2%} of the training occurrences out of vocabulary"
    return text + (f"; {facts['cut']:,} values beyond the maximum length were cut" if facts.get("cut") else "")


def _with_usual_features(options: PrepareOptions) -> PrepareOptions:
    """What criteo and libfm files hold, where no feature is named."""
    named = (options.categorical, options.hashed, options.bucketed, options.multi_hot, options.numeric, options.vectors)
    if any(named):
        return options
    if options.format == "criteo":
        numbers = tuple(f"{name}:signed_log1p" for name in sources.CRITEO_NUMERIC)
        return dataclasses.replace(options, numeric=numbers, categorical=sources.CRITEO_CATEGORICAL)
    if options.format == "libfm":
        return dataclasses.replace(options, categorical=options.columns)
    raise ConfigError(
        "no feature column is named; use --categorical, --hashed, --bucketed, --multi-hot, --numeric or --vectors"
    )


def _counted(option: str, text: str, default: int | None) -> tuple[str, int]:
    """`NAME:NUMBER`, or `NAME` where there is a default."""
    name, _, number = text.partition(":")
    if number.isdecimal() and name:
        return name, int(number)
    if not number and name and default is not None:
        return name, default
    raise ConfigError(f"--{option}: received {text!r}, expected NAME{':NUMBER' if default is None else '[:NUMBER]'}")


def _multi_hot(text: str, options: PrepareOptions) -> MultiHotColumn:
    rest, _, last = text.rpartition(":")
    combiner: Literal["sum", "mean"] = "mean" if last == "mean" else "sum"
    name, length = _counted("multi-hot", rest if last in ("sum", "mean") else text, None)
    return MultiHotColumn(name, length, options.item_separator, combiner, options.min_count)


def _numeric(text: str) -> NumericColumn:
    name, *rest = text.split(":")
    missing = "missing" in rest
    named = [part for part in rest if part != "missing"]
    known = get_args(Transform)
    transform = next((known_one for known_one in known if named == [known_one]), None)
    if not name or (named and transform is None):
        raise ConfigError(
            f"--numeric: received {text!r}, expected NAME[:TRANSFORM][:missing], TRANSFORM one of {list(known)}"
        )
    return NumericColumn(name, transform or "none", missing)


def _split(options: PrepareOptions) -> SplitRule:
    kind = options.split or ("files" if options.train else "fraction")
    if (kind == "files") != bool(options.train):
        raise ConfigError(
            f"--split {kind}: files are given with {'--train' if options.train else '--files'}; give the other"
        )
    if kind == "files":
        return FileSplit()
    if kind == "fraction":
        return FractionSplit(options.valid_share, options.test_share, options.seed)
    if kind == "group-time":
        return GroupTimeSplit(options.valid_share, options.test_share)
    if options.valid_from is None or options.test_from is None:
        raise ConfigError("--split time: give the first times of two splits with --valid-from and --test-from")
    return TimeSplit(options.valid_from, options.test_from)


def _engine(options: PrepareOptions) -> contextlib.AbstractContextManager[Engine | None]:
    """The engine to be entered; None does all in this process. Raises `ConfigError`."""
    if options.engine == "local":
        return contextlib.nullcontext()
    from wukong_jax.data.engines.ray_engine import RayEngine

    return RayEngine(options.ray_address, options.workers)


def _progress() -> Progress:
    """Phase and rows on one line of a terminal; elsewhere a line when a phase begins."""
    seen: list[str] = []

    def tell(phase: str, rows: int) -> None:
        if sys.stderr.isatty():
            start = "\r" if phase in seen or not seen else "\n"
            print(f"{start}{phase:<7} {rows:>14,} rows", end="", file=sys.stderr, flush=True)
        elif phase not in seen:
            print(f"{phase} ...", file=sys.stderr, flush=True)
        if phase not in seen:
            seen.append(phase)

    return tell
