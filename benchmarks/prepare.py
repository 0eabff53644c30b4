"""Speed and memory of `prepare` on generated Criteo-form TSV.

    python benchmarks/prepare.py --rows 1000000 10000000

Each size is made by a power law with a fixed seed and ingested in a process of its own; prints a Markdown table.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import polars as pl

from wukong_jax.data.ingest import ingest
from wukong_jax.data.sources import CRITEO_CATEGORICAL, CRITEO_NUMERIC, criteo_source
from wukong_jax.data.spec import CategoricalColumn, IngestSpec, NumericColumn

# Distinct values of Criteo's 26 categorical columns (Kaggle), in the order of the columns.
CARDINALITIES = (
    1460,
    583,
    10_131_227,
    2_202_608,
    305,
    24,
    12_517,
    633,
    3,
    93_145,
    5683,
    8_351_593,
    3194,
    27,
    14_992,
    5_461_306,
    10,
    5652,
    2173,
    4,
    7_046_547,
    18,
    15,
    286_181,
    105,
    142_572,
)
GENERATED_ROWS = 250_000


def generate(path: pathlib.Path, rows: int, seed: int = 0) -> None:
    """Write Criteo-form rows: 26 columns whose values follow a power law, 13 of counts with a fifth missing."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        for start in range(0, rows, GENERATED_ROWS):
            count = min(GENERATED_ROWS, rows - start)
            columns: dict[str, pl.Series] = {"label": pl.Series((rng.random(count) < 0.25).astype(np.int8))}
            for name in CRITEO_NUMERIC:
                values = pl.Series(rng.lognormal(1.5, 2.0, count).astype(np.int64))
                columns[name] = values.scatter(np.flatnonzero(rng.random(count) < 0.2), None)
            for name, cardinality in zip(CRITEO_CATEGORICAL, CARDINALITIES, strict=True):
                ranks = (cardinality ** rng.random(count)).astype(np.uint64)
                columns[name] = pl.Series(_hexadecimal(ranks * np.uint64(2654435761) % np.uint64(2**32)))
            frame = pl.DataFrame(columns)
            frame.write_csv(file, separator="\t", include_header=False, quote_style="never")


def measure(path: pathlib.Path, out: pathlib.Path) -> dict[str, float]:
    """Ingest a file, and say how long it took and how much memory this process held at most."""
    spec = IngestSpec(
        categorical=tuple(CategoricalColumn(name, min_count=2) for name in CRITEO_CATEGORICAL),
        numeric=tuple(NumericColumn(name, "signed_log1p") for name in CRITEO_NUMERIC),
    )
    began, used = time.perf_counter(), time.process_time()
    store = ingest(criteo_source({"all": [path]}), spec, out)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - used,
        "rows": sum(split.rows for split in store.splits.values()),
        "values": sum(facts["values"] for facts in store.encoding["report"]["features"].values()),
        "gibibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--folder", type=pathlib.Path, help="where to put the files, about 600 bytes a row")
    parser.add_argument("--measure", type=pathlib.Path, nargs=2, metavar=("FILE", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    print("| rows | file | distinct values | wall time | CPU time | rows/s | peak RSS |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = pathlib.Path(folder) / "criteo.tsv"
            generate(path, rows)
            command = [sys.executable, __file__, "--measure", str(path), f"{folder}/store"]
            environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[1])}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            found = json.loads(done.stdout)
            print(
                f"| {found['rows']:,} | {path.stat().st_size / 2**30:.2f} GiB | {found['values']:,} "
                f"| {found['seconds']:.1f} s | {found['cpu_seconds']:.1f} s | {found['rows'] / found['seconds']:,.0f} "
                f"| {found['gibibytes']:.2f} GiB |",
                flush=True,
            )


def _hexadecimal(values: np.ndarray) -> list[str]:
    """Eight hexadecimal digits a value, made once for each distinct one."""
    distinct, places = np.unique(values, return_inverse=True)
    return np.array([f"{value:08x}" for value in distinct.tolist()])[places].tolist()


if __name__ == "__main__":
    main()
