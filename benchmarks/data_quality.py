"""Seconds that the measures of `data-report` take.

    python benchmarks/data_quality.py --data movielens_1m --source FOLDER

The source as `data-report` takes it; without one the data is obtained. Medians with the smallest and largest.
"""

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from wukong_jax.performance_law.data_quality import data_quality
from wukong_jax.performance_law.entropy import per_user_approximate_entropy, pooled_approximate_entropy
from wukong_jax.performance_law.real_entropy import real_entropy
from wukong_jax.sequential.datasets import load_sequences
from wukong_jax.sequential.sequences import Sequences

MEASURES: Mapping[str, Callable[[Sequences], Any]] = {
    "ApEn of each user, m = 1 to 4": lambda sequences: per_user_approximate_entropy(sequences, (1, 2, 3, 4)),
    "ApEn pooled, m = 1 to 4": lambda sequences: pooled_approximate_entropy(sequences, (1, 2, 3, 4)),
    "real entropy, all tokens pooled": lambda sequences: real_entropy(sequences.items),
    "the whole report": data_quality,
}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="movielens_1m")
    parser.add_argument("--source", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sequences = load_sequences(options.data, options.source, pathlib.Path("data/downloads"))
    print(
        f"{len(sequences.items):,} events of {len(sequences.offsets) - 1:,} users\n\n| measure | seconds |\n|---|---|"
    )
    for name, measure in MEASURES.items():
        times = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            measure(sequences)
            times.append(time.perf_counter() - start)
        print(f"| {name} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) |", flush=True)


if __name__ == "__main__":
    main()
