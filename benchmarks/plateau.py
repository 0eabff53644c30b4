"""The share of training that runs of a sweep spend on a plateau of the loss.

    python benchmarks/plateau.py results/scaling/planted --above 0.418

A run has left it at the first logged step where the mean of the last four logged training losses is not above the
given LogLoss. One row a series, one column a budget, one figure a seed; - where a run ended on it.
"""

import argparse
import collections
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from wukong_jax.comparison.records import read_folder

WINDOW = 4


def share_on_plateau(history: Sequence[Mapping[str, Any]], steps: int, above: float) -> float | None:
    """Of the run's steps; None where it never left.

    >>> points = [{"split": "train", "step": n, "logloss": 1 - n / 10} for n in range(1, 11)]
    >>> share_on_plateau(points, steps=10, above=0.5)
    0.7
    """
    points = [point for point in history if point["split"] == "train"]
    for end in range(WINDOW, len(points) + 1):
        if statistics.mean(point["logloss"] for point in points[end - WINDOW : end]) <= above:
            return float(points[end - 1]["step"] / steps)
    return None


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=pathlib.Path, help="folder of a sweep with a ladder")
    parser.add_argument("--above", type=float, required=True, help="LogLoss of the plateau, in training")
    options = parser.parse_args()
    found: dict[str, dict[float, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    runs = [run.record for run in read_folder(options.records) if run.record.get("study") == "ladder"]
    for record in sorted(runs, key=lambda record: (record["varied"]["budget_mflop"], record["seed"])):
        share = share_on_plateau(record["history"], record["steps"], options.above)
        of_series = found[record["series"]]
        of_series[record["varied"]["budget_mflop"]].append("-" if share is None else f"{share:.0%}")
    budgets = sorted({budget for of_series in found.values() for budget in of_series})
    print("| MFLOP/example | " + " | ".join(f"{budget:g}" for budget in budgets) + " |")
    print("|---" * (len(budgets) + 1) + "|")
    for series, of_series in found.items():
        print(f"| {series} | " + " | ".join(", ".join(of_series[budget]) for budget in budgets) + " |")


if __name__ == "__main__":
    main()
