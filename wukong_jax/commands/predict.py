"""python -m wukong_jax predict: scores of a trained run for rows, or the best next items of users."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from wukong_jax.config.checks import check_positive
from wukong_jax.config.command_line import parse
from wukong_jax.errors import ConfigError, DataError
from wukong_jax.files import whole_file

if TYPE_CHECKING:
    import polars as pl

    from wukong_jax.commands.open_run import OpenRun
    from wukong_jax.data.batch import Batch


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Write one probability per row and label, in the order of the input, as CSV or Parquet.

    A run on sequences writes the best next items of every user instead: user, rank, item, score.
    """

    run: pathlib.Path
    """Run folder, as train.py printed it."""
    out: pathlib.Path
    """File to write: .csv or .parquet."""
    split: str | None = None
    """Score this split of the store."""
    files: tuple[str, ...] = ()
    """Score these raw files, encoded with the store's vocabularies; values never seen get the out-of-vocabulary row."""
    format: Literal["csv", "tsv", "criteo", "parquet"] | None = None
    """Form of the raw files, csv when not given; csv (with quotes) and tsv (without) have a header."""
    store: pathlib.Path | None = None
    """Store that holds the split or the vocabularies; by default the one that the run was trained on."""
    top: int | None = None
    """Sequences: items for each user, 10 when not given."""


def main(arguments: Sequence[str]) -> int:
    """Score and write; raises `UserError` where run, input or output do not fit."""
    options = parse(PredictOptions, arguments, "python -m wukong_jax predict")
    if options.out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"predict: --out {options.out} ends in {options.out.suffix!r}, expected .csv or .parquet")
    import polars as pl
    import rich.console

    from wukong_jax.commands.open_run import open_run

    console = rich.console.Console(stderr=True)
    run = open_run(options.run, options.store, console)
    _check_task(run, options)
    if run.program.config.sequences is not None:
        frames = _recommendations(run, options)
    else:
        frames = _scores(run, _split_batches(run, options.split) if options.split else _raw_batches(run, options))
    frame = pl.concat(frames)
    with whole_file(options.out) as partial:
        frame.write_csv(partial) if options.out.suffix == ".csv" else frame.write_parquet(partial)
    console.print(f"{frame.height:,} rows made with step {run.step} of {options.run}; written to {options.out}")
    return 0


def _check_task(run: "OpenRun", options: PredictOptions) -> None:
    """Raise `ConfigError` for options that the run's task does not know or lacks."""
    if run.program.config.sequences is None:
        if options.top is not None:
            raise ConfigError("predict: --top is for runs on sequences; this run scores rows, leave it out")
        if (options.split is None) == (not options.files):
            raise ConfigError(
                "predict: give either --split or --files, for example `--split test` or `--files new.csv`"
            )
        if options.format is not None and options.split is not None:
            raise ConfigError(
                "predict: --format: is the form of raw files given with --files; leave it out with --split"
            )
        return
    if options.split is not None or options.files:
        raise ConfigError("predict: this run recommends items to the users of its store; leave --split and --files out")
    if options.format is not None:
        raise ConfigError(
            "predict: --format: is the form of raw files, and this run recommends items to the users of its store; "
            "leave it out"
        )
    if options.top is not None:
        check_positive("--top", options.top)


def _recommendations(run: "OpenRun", options: PredictOptions) -> "Iterator[pl.DataFrame]":
    """The best items of every user, those of one user below each other."""
    import numpy as np
    import polars as pl

    from wukong_jax.sequential.examples import SequenceSplit, all_users
    from wukong_jax.sequential.recommend import recommend

    test = run.store.split("test")
    assert isinstance(test, SequenceSplit), "a run on sequences has such splits"
    split = all_users(test)
    if not split.rows:
        raise DataError(f"store {run.store.path} has no user with an item, so there is nobody to recommend to")
    names = split.sequences
    for users, items, scores in recommend(run.program, run.state, split, options.top or 10):
        ranks = np.broadcast_to(np.arange(1, items.shape[1] + 1), items.shape)
        kept = items >= 0
        who = np.repeat(users, items.shape[1]).reshape(items.shape)[kept]
        yield pl.DataFrame(
            {
                "user": [str(name) for name in names.user_names[who]],
                "rank": ranks[kept],
                "item": [str(name) for name in names.item_names[items[kept]]],
                "score": scores[kept],
            }
        )


def _split_batches(run: "OpenRun", name: str | None) -> "Iterator[Batch]":
    split = run.store.split(name or "")
    size = run.program.config.train.eval_batch_size
    return (split.take(slice(start, start + size)) for start in range(0, split.rows, size))


def _raw_batches(run: "OpenRun", options: PredictOptions) -> "Iterator[Batch]":
    from wukong_jax.data import sources
    from wukong_jax.data.ingest import encode_frames

    files = {"all": list(options.files)}
    makers = {
        "csv": sources.csv_source,
        "tsv": lambda files: sources.csv_source(files, separator="\t", quote=None),
        "criteo": sources.criteo_source,
        "parquet": sources.parquet_source,
    }
    size = run.program.config.train.eval_batch_size
    for chunk in encode_frames(run.store, makers[options.format or "csv"](files)):
        for start in range(0, len(chunk.weights), size):
            yield type(chunk)(*(array[start : start + size] for array in chunk))


def _scores(run: "OpenRun", batches: "Iterator[Batch]") -> "Iterator[pl.DataFrame]":
    """Probabilities batch by batch, each filled up to one shape as in evaluation, so that scores are equal."""
    import jax
    import numpy as np
    import polars as pl

    from wukong_jax.data.pipeline import fill_batch

    size = run.program.config.train.eval_batch_size
    for batch in batches:
        rows = len(batch.weights)
        _, logits = run.program.eval_step(run.state, (), fill_batch(batch, size))
        probabilities = np.asarray(jax.nn.sigmoid(logits))[:rows]
        yield pl.DataFrame({label: probabilities[:, task] for task, label in enumerate(run.store.schema.labels)})
