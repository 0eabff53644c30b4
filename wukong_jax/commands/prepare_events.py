"""python -m wukong_jax prepare --events: a file of events as a store of sequences that train.py reads."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

from wukong_jax.commands.config_source import sequence_config_source
from wukong_jax.config.command_line import parse
from wukong_jax.errors import ConfigError
from wukong_jax.files import write_text

COLUMNS = ("user", "item", "time")


@dataclasses.dataclass(frozen=True)
class PrepareEventsOptions:
    """Turn events of users into a store of sequences, for a recommender of the next item.

    Example: prepare --events log.csv --user visitor --item product --time clicked_at --out data/log
    --write-config configs/log.py
    """

    events: pathlib.Path
    """A table with columns for user, item and time (.csv, .tsv, .parquet), or lines in time order; .gz and .zst are
    unpacked."""
    out: pathlib.Path
    """The store to write; one that is there is replaced when the new one is whole."""
    format: Literal["csv", "tsv", "parquet", "lists", "pairs"] | None = None
    """If the name does not tell. lists: `user item item ...` a line; pairs: `user item` a line."""
    user: str = "user"
    """Column of users."""
    item: str = "item"
    """Column of items."""
    time: str = "time"
    """Column of times: integers, decimals or ISO dates; rows may be in any order."""
    write_config: pathlib.Path | None = None
    """Also write a configuration file for `train.py --config`."""


def main(argv: Sequence[str]) -> int:
    """Read, write and say what was read; raises `UserError` on bad options or bad input."""
    options = parse(PrepareEventsOptions, argv, "python -m wukong_jax prepare")
    check(options)
    from wukong_jax.sequential.read_events import read_events
    from wukong_jax.sequential.store import write_sequence_store

    read = read_events(options.events, options.user, options.item, options.time, options.format)
    sequences = read.sequences
    store = write_sequence_store(options.out, sequences, {"source": str(options.events)})
    if options.write_config is not None:  # before anything is printed: the reader of a pipe may go away
        write_text(options.write_config, sequence_config_source(options.out.name, str(options.out), store.schema))
    print(
        f"store: {store.path}: {sequences.num_events:,} events of {sequences.num_users:,} users with "
        f"{sequences.num_items:,} items, {'with' if store.schema.times else 'without'} times"
    )
    print(
        f"read: {read.duplicates:,} duplicate rows dropped, {read.out_of_order:,} rows earlier than the user's row "
        f"before, {read.ties:,} events at the time of the one before"
    )
    if options.write_config is not None:
        print(f"config: {options.write_config}")
    return 0


def check(options: PrepareEventsOptions) -> None:
    """Raise `ConfigError` for options that do not go together."""
    if options.write_config is not None and options.write_config.exists():
        raise ConfigError(f"--write-config: {options.write_config} exists and may hold your changes; name another file")
    named = [name for name in COLUMNS if getattr(options, name) != name]
    if options.format in ("lists", "pairs") and named:
        raise ConfigError(f"--{named[0]}: a file of {options.format} has no named columns; leave it out")
