r"""Predictions of `performance-law predict --json` beside the runs made afterwards; nothing is fitted or trained.

    python benchmarks/predicted.py --predictions results/performance_law/ml100k_predictions \
        --records results/performance_law/ml100k_large --out results/performance_law/ml100k_verdict.md

Runs of one size are averaged. Beside every form stands the best size seen before, taken for the metric of every larger
one: what somebody without a law would say.
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wukong_jax.errors import DataError, UserError
from wukong_jax.files import write_text
from wukong_jax.performance_law.read_runs import read_runs
from wukong_jax.performance_law.runs import Runs

Size = tuple[int, int]


class Predicted(NamedTuple):
    """What one form fitted to the earlier runs says: value, low and high of every size."""

    form: str
    metric: str
    earlier: str
    sizes: dict[Size, tuple[float, float, float]]


def read_predictions(folder: pathlib.Path) -> list[Predicted]:
    """All JSON files of a folder; raises `DataError`."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            plain = json.loads(path.read_text())
            sizes = {
                (int(one["layers"]), int(one["dim"])): tuple(one["metric"][key] for key in ("value", "low", "high"))
                for one in plain["sizes"]
            }
            options = plain["options"]
            found.append(Predicted(plain["form"], options["metric"], options["runs"], sizes))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} was not written by `performance-law predict --json` ({error!r})") from error
    if not found:
        raise DataError(f"--predictions: {folder} holds no .json file of `performance-law predict`")
    return found


def means(runs: Runs) -> dict[Size, float]:
    """Mean metric of every size."""
    sizes = list(zip(runs.layers.astype(int).tolist(), runs.dim.astype(int).tolist(), strict=True))
    return {size: float(np.mean([y for y, one in zip(runs.y, sizes, strict=True) if one == size])) for size in sizes}


def verdict(metric: str, predictions: Sequence[Predicted], records: pathlib.Path) -> str:
    """One metric: a row a size, then errors and coverage of every form."""
    runs = read_runs(records, metric)
    measured = means(runs)
    before = read_runs(pathlib.Path(predictions[0].earlier), metric)
    best = max(means(before).values()) if before.rising else min(means(before).values())
    sizes = [size for size in predictions[0].sizes if size in measured]
    if not sizes:
        raise DataError(f"--records: {records} holds no run of a predicted size")
    heading = ["N", "d", "measured", *(one.form for one in predictions), "best before"]
    lines = [heading, ["---"] * len(heading)]
    for size in sizes:
        shown = [f"{one.sizes[size][0]:.4f}{'' if _inside(one, size, measured) else ' *'}" for one in predictions]
        lines.append([*map(str, size), f"{measured[size]:.4f}", *shown, f"{best:.4f}"])
    errors = [[one.sizes[size][0] - measured[size] for size in sizes] for one in predictions]
    errors.append([best - measured[size] for size in sizes])
    lines.append(["RMSE", "", "", *(f"{math.sqrt(np.mean(np.square(one))):.4f}" for one in errors)])
    lines.append(["mean error", "", "", *(f"{np.mean(one):+.4f}" for one in errors)])
    covered = [sum(_inside(one, size, measured) for size in sizes) for one in predictions]
    lines.append(["in interval", "", "", *(f"{count} of {len(sizes)}" for count in covered), ""])
    chosen = [_choice(one, sizes, measured, rising=runs.rising) for one in predictions]
    lines.append(["metric of its best size", "", "", *(f"{value:.4f}" for value in chosen), ""])
    missing = [f"{layers} x {width}" for layers, width in predictions[0].sizes if (layers, width) not in measured]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    rest = f"\n\nNot run yet: {', '.join(missing)}." if missing else ""
    return f"## {metric}\n\n{text}\n\n\\* outside the 95 % interval.{rest}\n"


def _inside(one: Predicted, size: Size, measured: dict[Size, float]) -> bool:
    _, low, high = one.sizes[size]
    return low <= measured[size] <= high


def _choice(one: Predicted, sizes: Sequence[Size], measured: dict[Size, float], *, rising: bool) -> float:
    pick = max if rising else min
    return measured[pick(sizes, key=lambda size: one.sizes[size][0])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write them where asked; exit code 2 on bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=pathlib.Path, required=True)
    parser.add_argument("--records", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args(arguments)
    try:
        found = read_predictions(options.predictions)
        metrics = list(dict.fromkeys(one.metric for one in found))
        parts = [verdict(metric, [one for one in found if one.metric == metric], options.records) for metric in metrics]
        text = "# Predicted before the runs, and measured\n\n" + "\n".join(parts)
        if options.out is not None:
            write_text(options.out, text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
