"""Mean and standard deviation over seeds of several configs on one split, and their paired differences to the first.

    python benchmarks/seeds.py --seeds 5
    python benchmarks/seeds.py --seeds 3 --configs configs/frappe.py --source FOLDER --bfloat16

Runs that are finished are not trained again; a stopped one goes on.
"""

import argparse
import dataclasses
import pathlib
import statistics
from typing import Any

import rich.console

from wukong_jax.config.command_line import load_config_file
from wukong_jax.process import prepare_process
from wukong_jax.training.run import default_folder, train

MOVIELENS = [
    "configs/movielens_100k.py",
    "configs/baselines/fm_movielens_100k.py",
    "configs/baselines/lr_movielens_100k.py",
]
METRICS = {"auc": "AUC", "logloss": "LogLoss", "gauc": "gAUC"}


def run_seeds(path: str, seeds: int, source: str | None, dtype: str | None = None) -> list[dict[str, Any]]:
    """Records of one config with the seeds 0, 1, ...; `dtype` replaces the model's."""
    config: Any = load_config_file(pathlib.Path(path))
    if dtype is not None:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))
    data = dataclasses.replace(config.data, source=source or config.data.source)
    records = []
    for seed in range(seeds):
        seeded = dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, seed=seed))
        folder = default_folder(seeded, pathlib.Path("runs"))
        records.append(train(seeded, folder, rich.console.Console(stderr=True)))
    return records


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.5f} ± {deviation:.5f}"


def main() -> None:
    """Print a Markdown table of the test metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="+", default=MOVIELENS, help="config files, the first one is compared with")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--source", help="local folder with the raw data")
    parser.add_argument("--bfloat16", action="store_true", help="train every config in bfloat16, too")
    options = parser.parse_args()
    prepare_process()
    records: dict[str, list[dict[str, Any]]] = {}
    for path in options.configs:
        records[path] = run_seeds(path, options.seeds, options.source)
        if options.bfloat16:
            records[f"{path}, bfloat16"] = run_seeds(path, options.seeds, options.source, "bfloat16")
    shown = [name for name in METRICS if all(name in r["results"]["test"] for rs in records.values() for r in rs)]
    print(f"test, mean ± standard deviation over {options.seeds} seeds; differences are paired by seed\n")
    headings = [METRICS[name] for name in shown] + [f"first minus this, {METRICS[name]}" for name in shown]
    print("| model | config | " + " | ".join(headings) + " | wall time of a run |")
    print("|---" * (len(headings) + 3) + "|")
    first = records[options.configs[0]]
    for path, runs in records.items():
        scores = [[run["results"]["test"][name] for run in runs] for name in shown]
        paired = [
            [a["results"]["test"][name] - b["results"]["test"][name] for a, b in zip(first, runs, strict=True)]
            for name in shown
        ]
        seconds = f"{statistics.median(run['wall_seconds'] for run in runs):.0f} s"
        differences = ["-"] * len(shown) if runs is first else [spread(values) for values in paired]
        print(f"| {runs[0]['model']} | {path} | " + " | ".join([*map(spread, scores), *differences, seconds]) + " |")


if __name__ == "__main__":
    main()
