"""Speed of the input pipeline from a warm page cache, in rows per second.

    python benchmarks/pipeline.py

Writes a store of 8,000,000 rows x (26 ids + 13 numbers + a label) (1.3 GB) into a temporary folder, reads it once, then
times batches of 16,384 in shuffled and in store order with 0, 1 and 2 reading threads, and onto the device.
"""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
import tyro

from wukong_jax.data.batch import Batch
from wukong_jax.data.pipeline import to_device, training_batches
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, NumericFeature
from wukong_jax.data.store import Split, StoreWriter, open_store

CHUNK = 500_000


def main(rows: int = 8_000_000, batch_size: int = 16_384, repeats: int = 7, batches: int = 200) -> None:
    """Print the table.

    Args:
        rows: rows of the generated store.
        batch_size: examples per batch.
        repeats: timed repetitions for each line; the median is shown.
        batches: batches in each repetition.
    """
    with tempfile.TemporaryDirectory() as folder:
        split = generated_split(pathlib.Path(folder) / "store", rows)
        print(f"{rows:,} rows, batch {batch_size:,}, {repeats} x {batches} batches\n")
        print("| order | threads | to device | M rows/s, median | lowest | highest |")
        print("|---|---|---|---|---|---|")
        for shuffle in (True, False):
            for threads, device in ((0, False), (1, False), (2, False), (2, True)):
                rates = measured(split, batch_size, shuffle, threads, device, repeats, batches)
                order, placed = "shuffled" if shuffle else "store", "yes" if device else "no"
                median = statistics.median(rates)
                print(
                    f"| {order} | {threads} | {placed} | {median:.2f} | {min(rates):.2f} | {max(rates):.2f} |",
                    flush=True,
                )


def generated_split(path: pathlib.Path, rows: int) -> Split:
    """A store of the Criteo shape with uniform ids, opened and read once."""
    schema = DatasetSchema(
        categorical=tuple(CategoricalFeature(f"c{i}", 1_000_000) for i in range(26)),
        numeric=tuple(NumericFeature(f"n{i}") for i in range(13)),
    )
    rng = np.random.default_rng(0)
    with StoreWriter(path, schema) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            columns = {
                "ids": rng.integers(0, 1_000_000, (count, 26), dtype=np.int32),
                "numeric": rng.random((count, 13), dtype=np.float32),
                "labels": rng.integers(0, 2, (count, 1)).astype(np.float32),
            }
            writer.append("train", columns)
    return open_store(path).split("train")


def measured(
    split: Split, batch_size: int, shuffle: bool, threads: int, device: bool, repeats: int, batches: int
) -> list[float]:
    """Millions of rows per second of each repetition; one of them goes before, untimed."""
    dataset = training_batches(split, batch_size=batch_size, seed=0, epochs=None, shuffle=shuffle, threads=threads)
    if device:
        dataset = to_device(dataset, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    iterator = iter(dataset)
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        consume(iterator, batches)
        rates.append(batch_size * batches / (time.perf_counter() - start) / 1e6)
    iterator.close()
    return rates[1:]


def consume(iterator: Iterator[Batch], batches: int) -> None:
    """Take so many batches and wait for the last one's transfer."""
    for _ in range(batches):
        batch = next(iterator)
    jax.block_until_ready(batch.ids)


if __name__ == "__main__":
    tyro.cli(main)
