"""What a run learns and how it is judged: the loss of a training step, the metrics of an evaluation."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.store import Split
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.evaluation.evaluator import evaluate_split
from wukong_jax.evaluation.metrics import MetricState, update_metrics
from wukong_jax.ops.layout import on_every_device
from wukong_jax.training.losses import binary_cross_entropy

EvalStep = Callable[[Any, Batch], tuple[Any, jax.Array]]
"""Metrics so far and a batch to the metrics after it and the model's outputs."""


@runtime_checkable  # so that annotations can be checked in tests
class Objective(Protocol):
    """The part of a run that depends on its task: labels of examples, or the next item of a sequence."""

    @property
    def loss_name(self) -> str:
        """How the training loss is called in a run's history."""

    @property
    def task_weights(self) -> tuple[float, ...]:
        """What each label's loss counts, empty for 1; also of the losses that a model has of its own."""

    def training_plan(self, ids: jax.Array) -> EmbeddingPlan:
        """The lookups of a prepared batch's ids [..., columns]; all plans of a run have the same stacks."""

    def example_plan(self, ids: np.ndarray) -> EmbeddingPlan:
        """The lookups of ids [..., columns] of the training split, before a step prepares them."""

    def evaluation_plan(self, ids: jax.Array | np.ndarray) -> EmbeddingPlan:
        """The lookups of ids [..., columns] of an evaluation."""

    def prepare(self, parts: Batch, key: jax.Array) -> Batch:
        """The parts [parts, examples of a part, ...] of a batch with what is drawn for each step, such as negatives."""

    def weight(self, parts: Batch) -> jax.Array:
        """What the summed losses of all parts are divided by."""

    def loss(
        self, outputs: jax.Array, inputs: Inputs, part: Batch, key: jax.Array, total_weight: jax.Array
    ) -> jax.Array:
        """This part's share of the batch's mean loss."""

    def score(self, metrics: Any, outputs: jax.Array, tables: dict[str, jax.Array], batch: Batch) -> Any:
        """Metrics with those of a batch of predictions added; empty metrics stay empty."""

    def evaluate(self, eval_step: EvalStep, split: Split, batch_size: int, *, exact: bool = False) -> dict[str, float]:
        """Metrics over all rows of a split, by name; `exact` asks for those that need all scores at once too."""


@dataclasses.dataclass(frozen=True)
class LabelObjective:
    """Binary cross-entropy of each label, judged by LogLoss and AUC."""

    task_weights: tuple[float, ...]
    plan: EmbeddingPlan
    loss_name: str = "logloss"

    def training_plan(self, ids: jax.Array) -> EmbeddingPlan:
        """The one plan of the run."""
        return self.plan

    def example_plan(self, ids: np.ndarray) -> EmbeddingPlan:
        """The one plan of the run."""
        return self.plan

    def evaluation_plan(self, ids: jax.Array | np.ndarray) -> EmbeddingPlan:
        """The one plan of the run."""
        return self.plan

    def prepare(self, parts: Batch, key: jax.Array) -> Batch:
        """Nothing is drawn."""
        return parts

    def weight(self, parts: Batch) -> jax.Array:
        """The sum of the examples' weights."""
        total: jax.Array = parts.weights.sum()
        return total

    def loss(
        self,
        outputs: Float[Array, "batch tasks"],
        inputs: Inputs,
        part: Batch,
        key: jax.Array,
        total_weight: jax.Array,
    ) -> jax.Array:
        """Weighted binary cross-entropy, tasks added up."""
        return binary_cross_entropy(outputs, part.labels, part.weights, self.task_weights, total_weight)

    def score(
        self,
        metrics: tuple[MetricState, ...],
        outputs: Float[Array, "batch tasks"],
        tables: dict[str, jax.Array],
        batch: Batch,
    ) -> tuple[MetricState, ...]:
        """Add a batch's predictions to each task's metrics."""
        logits, labels, weights = on_every_device((outputs, batch.labels, batch.weights))
        return tuple(
            update_metrics(metric, logits[:, task], labels[:, task], weights) for task, metric in enumerate(metrics)
        )

    def evaluate(self, eval_step: EvalStep, split: Split, batch_size: int, *, exact: bool = False) -> dict[str, float]:
        """LogLoss, AUC, NE and calibration of each label; gAUC where exact and there is a group."""
        return evaluate_split(eval_step, split, batch_size, exact=exact)


def make_objective(config: RunConfig, plan: EmbeddingPlan) -> Objective:
    """The objective of a config: next item for sequences, labels else."""
    if config.sequences is None:
        return LabelObjective(config.train.task_weights, plan)
    from wukong_jax.sequential.objective import NextItemObjective

    return NextItemObjective(config, plan)
