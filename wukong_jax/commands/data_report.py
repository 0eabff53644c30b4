"""python -m wukong_jax data-report: what a set of sequences holds, and its D', before a model is trained on it."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from wukong_jax.commands.json_values import plain
from wukong_jax.config.checks import check_unique
from wukong_jax.config.command_line import parse
from wukong_jax.errors import ConfigError

if TYPE_CHECKING:
    from wukong_jax.sequential.arrange import Arranged


@dataclasses.dataclass(frozen=True)
class DataReportOptions:
    """Sizes, entropies and data terms D' of sequences, with warnings where a measure means little.

    Public data: data-report --data movielens_100k --last 200

    Own data: data-report --events log.csv --user visitor --item product --time clicked_at --last 50
    """

    data: (
        Literal["movielens_100k", "movielens_1m", "amazon_beauty", "amazon_sports", "amazon_toys", "lastfm"] | None
    ) = None
    """Public data set."""
    source: pathlib.Path | None = None
    """Local file or folder of the public data set; needed where it cannot be downloaded."""
    root: pathlib.Path = pathlib.Path("data")
    """Folder for downloads, as --data.root of train.py."""
    events: pathlib.Path | None = None
    """Own file of events instead: a table with columns for user, item and time, or lines in time order."""
    format: Literal["csv", "tsv", "parquet", "lists", "pairs"] | None = None
    """Of --events, if its name does not tell. lists: `user item item ...` a line; pairs: `user item` a line."""
    user: str = "user"
    """Column of users in --events."""
    item: str = "item"
    """Column of items in --events."""
    time: str = "time"
    """Column of times in --events: integers, decimals or ISO dates; rows may be in any order."""
    last: int | None = None
    """Keep each user's last so many items."""
    m: tuple[int, ...] = (1, 2, 4, 8)
    """Window lengths of approximate entropy."""
    policy: Literal["absolute", "signed", "positive"] = "absolute"
    """ApEn' where ApEn is negative: 1 / |ApEn| as in the released code, its negative inverse, or the user is skipped.
    Users of m + 1 items or fewer, and those with ApEn = 0, are always skipped and counted."""
    json: pathlib.Path | None = None
    """File for all figures, with all digits."""


def main(argv: Sequence[str]) -> int:
    """Read, measure, print and write; raises `UserError` where options or data do not fit."""
    options = parse(DataReportOptions, argv, "python -m wukong_jax data-report")
    check(options)
    import rich.console

    from wukong_jax.files import write_text
    from wukong_jax.performance_law.data_quality import data_quality
    from wukong_jax.performance_law.quality_display import print_quality

    if options.json is not None and options.json.is_dir():
        raise ConfigError(f"--json: {options.json} is a folder, expected the name of a JSON file")
    read = load(options)
    sequences = read.sequences.by_start()
    if options.last is not None:
        sequences = sequences.last(options.last)
    quality = data_quality(sequences, options.m, options.policy)
    if options.json is not None:  # before anything is printed: the reader of a pipe may go away
        described = {
            name: str(value) if isinstance(value, pathlib.Path) else value
            for name, value in dataclasses.asdict(options).items()
            if name != "json"
        }
        order = {"duplicates": read.duplicates, "out_of_order": read.out_of_order}
        write_text(
            options.json, json.dumps(plain({"options": described, **order, **quality._asdict()}), indent=1) + "\n"
        )
    console = rich.console.Console()
    if options.events is not None:
        console.print(
            f"read: {read.duplicates:,} duplicate rows dropped, {read.out_of_order:,} rows earlier than the user's row "
            f"before, {read.ties:,} events at the time of the one before",
            markup=False,
            soft_wrap=True,
        )
    print_quality(quality, console)
    return 0


def check(options: DataReportOptions) -> None:
    """Raise `ConfigError` for options that do not go together."""
    if (options.data is None) == (options.events is None):
        raise ConfigError("--data, --events: give one of them, the name of a public data set or a file of events")
    if options.events is None:
        own = [name for name in ("format", "user", "item", "time") if _changed(options, name)]
        if own:
            raise ConfigError(f"--{own[0]}: is of a file given with --events; leave it out with --data")
    elif options.source is not None:
        raise ConfigError("--source: is of a public data set given with --data; leave it out with --events")
    elif options.format in ("lists", "pairs"):
        own = [name for name in ("user", "item", "time") if _changed(options, name)]
        if own:
            raise ConfigError(f"--{own[0]}: a file of {options.format} has no named columns; leave it out")
    if options.last is not None and options.last < 1:
        raise ConfigError(f"--last: received {options.last}, expected 1 or more items")
    if not options.m:
        raise ConfigError("--m: received no window length, expected at least one")
    for m in options.m:
        if m < 1:
            raise ConfigError(f"--m: received {m}, expected windows of 1 item or more")
    check_unique("--m", [str(m) for m in options.m])


def load(options: DataReportOptions) -> "Arranged":
    """The sequences of the data set or file."""
    from wukong_jax.sequential.arrange import Arranged
    from wukong_jax.sequential.datasets import load_sequences
    from wukong_jax.sequential.read_events import read_events

    if options.events is not None:
        return read_events(options.events, options.user, options.item, options.time, options.format)
    assert options.data is not None
    return Arranged(load_sequences(options.data, options.source, options.root / "downloads"))


def _changed(options: DataReportOptions, name: str) -> bool:
    return getattr(options, name) != getattr(DataReportOptions, name)
