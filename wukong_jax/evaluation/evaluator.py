"""One pass over a split: metrics of every task, and the logits on the host where they are wanted."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from wukong_jax.agreement import process_count, process_index
from wukong_jax.data.batch import Batch
from wukong_jax.data.pipeline import evaluation_batches
from wukong_jax.data.store import Split
from wukong_jax.evaluation.grouped import exact_auc, grouped_auc
from wukong_jax.evaluation.metrics import MetricState, compute_metrics, init_metrics

EvalStep = Callable[[tuple[MetricState, ...], Batch], tuple[tuple[MetricState, ...], jax.Array]]


def evaluate_split(eval_step: EvalStep, split: Split, batch_size: int, *, exact: bool = False) -> dict[str, float]:
    """Metrics over all rows of a split, by name; with several labels the names end in `/<label>`.

    `eval_step` gets this process's part of each batch, and gives metrics and logits of the whole one. With `exact`, AUC
    is the exact one from all scores on the host, and gAUC is added where the schema has a group.
    """
    states = tuple(init_metrics() for _ in split.schema.labels)
    scores = []
    own = {"process_index": process_index(), "process_count": process_count()}
    for batch in evaluation_batches(split, batch_size=batch_size, **own):
        states, logits = eval_step(states, batch)
        if exact:
            scores.append(np.asarray(logits))
    weights = split.columns.get("weights", np.ones(split.rows, np.float32))
    counted = np.asarray(weights) > 0
    found: dict[str, float] = {}
    for task, label in enumerate(split.schema.labels):
        metrics: dict[str, Any] = dict(compute_metrics(states[task]))
        if exact:
            ranking = np.concatenate(scores)[: split.rows, task][counted]
            labels = np.asarray(split.columns["labels"][:, task])[counted]
            metrics["auc"] = exact_auc(labels, ranking)
            if "group" in split.columns:
                metrics["gauc"] = grouped_auc(labels, ranking, np.asarray(split.columns["group"])[counted]).gauc
        suffix = "" if len(split.schema.labels) == 1 else f"/{label}"
        found |= {name + suffix: float(value) for name, value in metrics.items()}
    return found
