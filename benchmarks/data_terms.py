r"""Which measure of a training set foretells what is learned from it: tokens alone, or weighted by an entropy?

    python benchmarks/data_terms.py --records results/performance_law/ml100k_data --source FOLDER \
        --out results/performance_law/ml100k_data.md

The runs are those of `configs/sweeps/ml100k_data.py`: one recommender on parts of one data set, judged on the same
users. Each part is measured as it was trained on, and the runs' metrics, averaged over seeds, are regressed on the
logarithm of each measure: a + b ln D'. Nothing is trained.
"""

import argparse
import collections
import dataclasses
import math
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import rich.console
from jaxtyping import Float

from wukong_jax.config.codec import from_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.config.sequences import TrainingPart
from wukong_jax.errors import DataError, UserError
from wukong_jax.files import write_text
from wukong_jax.performance_law.data_quality import DataQuality, data_quality
from wukong_jax.scaling.page_table import Table
from wukong_jax.sequential.examples import training_part
from wukong_jax.sequential.obtain import obtain_sequences
from wukong_jax.sequential.schema import SequenceSchema
from wukong_jax.training.record import read_records

METRICS = ("hr@10", "ndcg@10", "loss")
M = 1
MEASURES: dict[str, Callable[[DataQuality], float]] = {
    "tokens": lambda quality: quality.size.interactions,
    "users": lambda quality: quality.size.users,
    "tokens / mean ApEn": lambda quality: quality.entropies[0].d_mean,
    "sum of tokens / ApEn by user": lambda quality: quality.entropies[0].d_users,
    "tokens / pooled ApEn": lambda quality: quality.entropies[0].d_pooled,
    "tokens / real entropy": lambda quality: quality.d_real,
}


class Measured(NamedTuple):
    """A part of the data: its measures, and the runs' metrics by seed."""

    part: TrainingPart
    measures: Mapping[str, float]
    metrics: Mapping[str, list[float]]


class Line(NamedTuple):
    """A straight line in ln D': how well it fits, how well it foretells a part that was left out."""

    r2: float
    left_out_rmse: float
    spearman: float


def read_parts(folder: pathlib.Path, source: pathlib.Path | None, root: pathlib.Path) -> list[Measured]:
    """The parts of all records of a folder, the smallest first; raises `DataError`."""
    runs: dict[TrainingPart, list[tuple[RunConfig, dict[str, float]]]] = collections.defaultdict(list)
    for path in sorted(folder.glob("*.jsonl")):
        record = next(iter(read_records(path)))
        config = from_plain(RunConfig, record["config"])
        if config.sequences is None:
            raise DataError(f"{path}: a run on labels; expected one of next-item recommendation")
        runs[config.sequences.training].append((config, record["results"]["test"]))
    if len(runs) < 4:
        raise DataError(f"--records: {folder} holds runs on {len(runs)} parts of the data, expected at least 4")
    found = []
    for part, of_part in runs.items():
        measures = measure(of_part[0][0], source, root)
        metrics = {metric: [scores[metric] for _, scores in of_part] for metric in METRICS}
        found.append(Measured(part, measures, metrics))
    return sorted(found, key=lambda one: one.measures["tokens"])


def measure(config: RunConfig, source: pathlib.Path | None, root: pathlib.Path) -> dict[str, float]:
    """All measures of the events that a run trains on."""
    assert config.sequences is not None
    assert isinstance(config.schema, SequenceSchema)
    data = dataclasses.replace(config.data, source=None if source is None else str(source), root=str(root), store=None)
    store = obtain_sequences(data, config.schema, rich.console.Console(stderr=True))
    held_out = 1 if config.sequences.holdout == "last" else 2
    trained = training_part(store.sequences.without_last(held_out), config.sequences.training)
    longest = config.batch_schema.multi_hot[0].max_length
    quality = data_quality(trained.last(longest).by_start(), (M,))
    return {name: float(of(quality)) for name, of in MEASURES.items()}


def straight_line(x: Float[np.ndarray, "parts"], y: Float[np.ndarray, "parts"]) -> Line:
    """Least squares of y on ln x."""
    from scipy.stats import spearmanr

    design = np.column_stack([np.ones(len(x)), np.log(x)])
    hat = design @ np.linalg.pinv(design)
    residuals = y - hat @ y
    left_out = residuals / (1 - np.diag(hat))
    r2 = 1 - np.square(residuals).sum() / np.square(y - y.mean()).sum()
    return Line(float(r2), math.sqrt(np.square(left_out).mean()), float(spearmanr(x, y).statistic))


def parts_table(parts: Sequence[Measured]) -> Table:
    """Every part: what it is, its measures, the metrics."""
    rows = []
    for one in parts:
        last = "all" if one.part.last is None else str(one.part.last)
        sizes = (f"{one.measures[name]:,.0f}" for name in MEASURES)
        scores = (f"{np.mean(one.metrics[name]):.4f} ± {np.std(one.metrics[name]):.4f}" for name in METRICS)
        rows.append((f"{one.part.users:g}", last, str(one.part.copies), *sizes, *scores))
    headings = ("share of users", "last items", "copies", *MEASURES, *METRICS)
    return Table("Parts of the training data; metrics are mean ± std over seeds", headings, tuple(rows))


def lines_table(parts: Sequence[Measured]) -> Table:
    """Every measure and metric: R2 / error at a part left out / rank correlation."""
    rows = []
    for name in MEASURES:
        x = np.array([one.measures[name] for one in parts])
        cells = []
        for metric in METRICS:
            line = straight_line(x, np.array([np.mean(one.metrics[metric]) for one in parts]))
            cells.append(f"{line.r2:.3f} / {line.left_out_rmse:.4f} / {line.spearman:+.2f}")
        rows.append((name, *cells))
    title = "a + b ln D': R2 / RMSE at parts left out / Spearman's rank correlation"
    return Table(title, ("D'", *METRICS), tuple(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write them where asked; exit code 2 on bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=pathlib.Path, required=True)
    parser.add_argument("--source", type=pathlib.Path, help="raw data of the recipe, as data.source")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("data"), help="as data.root")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args(arguments)
    try:
        parts = read_parts(options.records, options.source, options.root)
        once = [one for one in parts if one.part.copies == 1]
        text = "# What foretells the worth of data\n\n" + "\n".join(
            (
                parts_table(parts).markdown(),
                "All parts:\n\n" + lines_table(parts).markdown(),
                "Without copies:\n\n" + lines_table(once).markdown(),
            )
        )
        if options.out is not None:
            write_text(options.out, text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
