"""Made data with a known best score: rows of a planted function, labels drawn from its true probabilities.

No predictor can score better than the true probabilities do; that floor is computed and stored with the data. Row i
of a split depends only on (seed, split, i), so a larger training set leaves validation and test as they are.
"""

import collections
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from wukong_jax.config.codec import to_plain
from wukong_jax.data.planted import SPLITS, Planted, Rows, SyntheticConfig, draw, plant, true_probabilities
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, NumericFeature
from wukong_jax.data.store import Store, StoreWriter, open_store

AUC_ROWS = 1_000_000
WORKERS = 2


def schema(config: SyntheticConfig) -> DatasetSchema:
    """Fields C1.. with their vocabularies plus the out-of-vocabulary row, numeric features I1.., one label."""
    fields = tuple(CategoricalFeature(f"C{i}", size + 1) for i, size in enumerate(config.vocabulary_sizes, 1))
    return DatasetSchema(fields, numeric=tuple(NumericFeature(f"I{i}") for i in range(1, config.numeric + 1)))


def write_synthetic(config: SyntheticConfig, out: str | os.PathLike[str], *, chunk_rows: int = 16_384) -> Store:
    """Generate the store in bounded memory; its bytes do not depend on `chunk_rows`.

    `encoding["floor"][split]` holds the best expected scores, logloss and auc, the positive_rate, and drawn_logloss:
    the LogLoss of the true probabilities on the labels as they were drawn. Their chance moves it as it moves a model's,
    so the gap to it is the steadier one.
    """
    planted = plant(config)
    encoding: dict[str, Any] = {"synthetic": to_plain(config), "floor": {}}
    with StoreWriter(out, schema(config), encoding) as writer:
        for split in SPLITS:
            floor = _Floor()
            for rows, truth in _chunks(config, planted, split, chunk_rows):
                labels = rows.label_draws < truth
                columns = {"ids": rows.ids, "labels": labels.astype(np.float32)[:, None]}
                writer.append(split, columns | ({"numeric": rows.numeric} if config.numeric else {}))
                floor.update(truth, labels)
            encoding["floor"][split] = floor.result()
    return open_store(out, verify=False)


def expected_auc(probabilities: Float[np.ndarray, "rows"]) -> float:
    """AUC that the true probabilities p are expected to reach.

    sum_{i != j} p_i (1 - p_j) ([p_i > p_j] + [p_i = p_j] / 2) / sum_{i != j} p_i (1 - p_j)
    """
    p, counts = np.unique(np.asarray(probabilities, np.float64), return_counts=True)
    positives, negatives = p * counts, (1.0 - p) * counts
    below = np.cumsum(negatives) - negatives
    itself = (counts * p * (1.0 - p)).sum()
    above = (positives * (below + 0.5 * negatives)).sum() - 0.5 * itself
    pairs = positives.sum() * negatives.sum() - itself
    return float(above / pairs) if pairs > 0 else 0.5


def expected_logloss(probabilities: Float[np.ndarray, "rows"]) -> float:
    """LogLoss to expect of the true probabilities: the mean binary entropy, in nats."""
    p = np.clip(np.asarray(probabilities, np.float64), 1e-300, 1.0)
    q = np.clip(1.0 - np.asarray(probabilities, np.float64), 1e-300, 1.0)
    return float(-np.mean(p * np.log(p) + q * np.log(q)))


class _Floor:
    """Running floor of one split; the AUC is that of its first million rows."""

    def __init__(self) -> None:
        self.rows, self.entropy, self.positives, self.drawn = 0, 0.0, 0.0, 0.0
        self.kept: list[np.ndarray] = []

    def update(self, truth: Float64[np.ndarray, "rows"], labels: Bool[np.ndarray, "rows"]) -> None:
        if self.rows < AUC_ROWS:
            self.kept.append(truth[: AUC_ROWS - self.rows])
        self.rows += len(truth)
        self.entropy += expected_logloss(truth) * len(truth)
        self.positives += float(truth.sum())
        self.drawn -= float(np.log(np.maximum(np.where(labels, truth, 1.0 - truth), 1e-300)).sum())

    def result(self) -> dict[str, float]:
        # Rounded, so that the order of summation (the chunk size) does not show.
        auc = expected_auc(np.concatenate(self.kept))
        found = {
            "logloss": self.entropy / self.rows,
            "auc": auc,
            "positive_rate": self.positives / self.rows,
            "drawn_logloss": self.drawn / self.rows,
        }
        return {name: round(value, 9) for name, value in found.items()}


def _chunks(
    config: SyntheticConfig, planted: Planted, split: str, chunk_rows: int
) -> Iterator[tuple[Rows, np.ndarray]]:
    """The rows of a split in order, made by a few threads (NumPy lets them run side by side)."""
    stream, total = SPLITS.index(split), getattr(config, split)

    def make(start: int) -> tuple[Rows, np.ndarray]:
        rows = draw(config, stream, start, min(start + chunk_rows, total))
        return rows, true_probabilities(planted, rows)

    with ThreadPoolExecutor(WORKERS) as pool:
        pending: collections.deque[Future[tuple[Rows, np.ndarray]]] = collections.deque()
        for start in range(0, total, chunk_rows):
            pending.append(pool.submit(make, start))
            if len(pending) > 2 * WORKERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
