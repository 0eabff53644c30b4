"""The jitted training and evaluation steps, as pure functions of state and batch."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import optax
from jaxtyping import Array, Float

from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.deduplicate import merge_by_slot, merge_by_sort
from wukong_jax.embeddings.lookup import Inputs, gather_rows, stack_ids
from wukong_jax.embeddings.optimizers import update_rows
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.evaluation.metrics import MetricState, update_metrics
from wukong_jax.training.losses import binary_cross_entropy
from wukong_jax.training.optim import apply_scaled, schedule
from wukong_jax.training.state import TrainState, make_inputs

Metrics = tuple[MetricState, ...]


def make_train_step(
    model: nn.Module, plan: EmbeddingPlan, optimizer: optax.GradientTransformation, config: RunConfig, total_steps: int
) -> Callable[[TrainState, Batch], TrainState]:
    """One update: gather, forward, backward with respect to (dense parameters, gathered rows), update both sides."""
    factor = schedule(config.optimizer.schedule, total_steps)
    # with dropout or BatchNorm the training pass is no prediction: progressive validation then runs a pass of its own
    training_differs = _has_training_mode(config.model)

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        dropout_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        dense_tables = {stack.name: state.tables[stack.name] for stack in plan.dense}
        ids = {stack.name: stack_ids(stack, batch.ids) for stack in plan.stacks}
        sparse_rows = {stack.name: gather_rows(state.tables[stack.name], ids[stack.name]) for stack in plan.row_sparse}

        def loss_of(
            dense: dict[str, Any], sparse_rows: dict[str, jax.Array]
        ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            rows = sparse_rows | {name: gather_rows(table, ids[name]) for name, table in dense["tables"].items()}
            inputs = Inputs(rows, dense["tables"], batch.ids, batch.numeric, batch.vectors, plan)
            logits, batch_stats = forward(model, dense["params"], state.batch_stats, inputs, dropout_key)
            loss = binary_cross_entropy(logits, batch.labels, batch.weights, config.train.task_weights)
            return loss, (logits, batch_stats)

        dense = {"params": state.params, "tables": dense_tables}
        differentiate = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, (logits, batch_stats)), (dense_gradients, row_gradients) = differentiate(dense, sparse_rows)

        progressive = state.progressive
        if progressive:
            scores = predict(model, plan, state, batch) if training_differs else logits
            progressive = score(progressive, scores, batch)

        updates, opt_state = optimizer.update(dense_gradients, state.opt_state, dense)
        dense = apply_scaled(dense, updates, state.learning_rate_scale)
        tables, slots, scratch = dict(state.tables) | dense["tables"], dict(state.slots), dict(state.scratch)
        for stack in plan.row_sparse:
            name, width = stack.name, stack.width
            flat_ids, flat_gradients = ids[name].reshape(-1), row_gradients[name].reshape(-1, width)
            if scratch:
                merged, scratch[name] = merge_by_slot(flat_ids, flat_gradients, scratch[name])
            else:
                merged = merge_by_sort(flat_ids, flat_gradients, stack.rows)
            rate = stack.rule.learning_rate * factor(state.step) * state.learning_rate_scale
            tables[name], slots[name] = update_rows(tables[name], slots[name], merged, stack.rule, rate, state.step)

        return dataclasses.replace(
            state,
            step=state.step + 1,
            params=dense["params"],
            batch_stats=batch_stats,
            opt_state=opt_state,
            tables=tables,
            slots=slots,
            loss_sum=state.loss_sum + loss,
            progressive=progressive,
            scratch=scratch,
        )

    return train_step


def forward(
    model: nn.Module, params: Any, batch_stats: Any, inputs: Inputs, dropout_key: jax.Array
) -> tuple[Float[Array, "batch tasks"], Any]:
    """Training pass: logits, and the BatchNorm statistics after this batch."""
    variables = {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}
    logits, changed = model.apply(variables, inputs, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats"])
    return logits, changed.get("batch_stats", batch_stats)


def predict(model: nn.Module, plan: EmbeddingPlan, state: TrainState, batch: Batch) -> Float[Array, "batch tasks"]:
    """Logits without dropout, with BatchNorm's running statistics."""
    variables = {"params": state.params}
    if state.batch_stats:
        variables["batch_stats"] = state.batch_stats
    logits: Any = model.apply(variables, make_inputs(plan, batch, state.tables), train=False)
    return logits


def score(metrics: Metrics, logits: Float[Array, "batch tasks"], batch: Batch) -> Metrics:
    """Add a batch's predictions to each task's metrics."""
    return tuple(
        update_metrics(metric, logits[:, task], batch.labels[:, task], batch.weights)
        for task, metric in enumerate(metrics)
    )


def make_eval_step(
    model: nn.Module, plan: EmbeddingPlan
) -> Callable[[TrainState, Metrics, Batch], tuple[Metrics, Float[Array, "batch tasks"]]]:
    """One evaluation step: updated metrics and the batch's logits."""

    def eval_step(state: TrainState, metrics: Metrics, batch: Batch) -> tuple[Metrics, jax.Array]:
        logits = predict(model, plan, state, batch)
        return score(metrics, logits, batch), logits

    return eval_step


def _has_training_mode(config: Any) -> bool:
    """Whether any MLP anywhere in a model config has dropout or BatchNorm."""
    if isinstance(config, tuple):
        return any(_has_training_mode(item) for item in config)
    if not dataclasses.is_dataclass(config):
        return False
    own = bool(getattr(config, "dropout", 0) or getattr(config, "batch_norm", False))
    return own or any(_has_training_mode(getattr(config, field.name)) for field in dataclasses.fields(config))
