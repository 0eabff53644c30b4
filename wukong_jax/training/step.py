"""The jitted training and evaluation steps, as pure functions of state and batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.deduplicate import merge_by_slot, merge_by_sort
from wukong_jax.embeddings.lookup import Inputs, gather_rows, stack_ids
from wukong_jax.embeddings.optimizers import update_rows
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.training.micro_batch import has_setting, joined, split
from wukong_jax.training.objective import Objective
from wukong_jax.training.optim import apply_scaled, schedule
from wukong_jax.training.state import TrainState, make_inputs


def make_train_step(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config: RunConfig,
    total_steps: int,
    part_of: Callable[[int], int],
) -> Callable[[TrainState, Batch], TrainState]:
    """One update: gather, forward, backward with respect to (dense parameters, gathered rows), update both sides.

    A batch of `rows` is worked off `part_of(rows)` examples at a time; their gradients add up to the batch's.
    """
    factor = schedule(config.optimizer.schedule, total_steps)
    # with dropout or BatchNorm the training pass is no prediction: progressive validation then runs a pass of its own
    training_differs = has_setting(config.model, "dropout", "batch_norm")

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        rows = batch.ids.shape[0]
        parts = objective.prepare(split(batch, rows // part_of(rows)), step_key(state))
        plan = objective.training_plan(parts.ids)
        found = gradients(model, plan, objective, state, parts)
        progressive = state.progressive
        if progressive:
            scores = predict(model, plan, state, batch) if training_differs else joined(found.logits)
            progressive = objective.score(progressive, scores, state.tables, batch)

        ids = touched_ids(plan, parts)
        with jax.named_scope("dense_update"):
            dense = update_dense(plan, optimizer, state, found, ids)
        tables, slots, scratch = dict(state.tables) | dense.after["tables"], dict(state.slots), dict(state.scratch)
        with jax.named_scope("row_update"):
            for stack in plan.row_sparse:
                name = stack.name
                flat_ids, flat_gradients = ids[name], flat_rows(found.rows[name])
                if scratch:
                    merged, scratch[name] = merge_by_slot(flat_ids, flat_gradients, scratch[name])
                else:
                    merged = merge_by_sort(flat_ids, flat_gradients, stack.rows)
                rate = stack.rule.learning_rate * factor(state.step) * state.learning_rate_scale
                tables[name], slots[name] = update_rows(tables[name], slots[name], merged, stack.rule, rate, state.step)

        return dataclasses.replace(
            state,
            step=state.step + 1,
            params=dense.after["params"],
            batch_stats=found.batch_stats,
            opt_state=dense.opt_state,
            tables=tables,
            slots=slots,
            loss_sum=state.loss_sum + found.loss,
            progressive=progressive,
            scratch=scratch,
        )

    return train_step


class Gradients(NamedTuple):
    """Of the whole batch, but for `rows` and `logits`: [parts, examples of a part, ...]."""

    loss: jax.Array
    params: Any
    tables: dict[str, jax.Array]
    """Of densely updated tables, where the model reads them whole; their gathered rows count under `rows`."""
    rows: dict[str, jax.Array]
    logits: jax.Array
    batch_stats: Any


def step_key(state: TrainState) -> jax.Array:
    """The key of all that is random in the step from this state."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)


def gradients(
    model: nn.Module, plan: EmbeddingPlan, objective: Objective, state: TrainState, parts: Batch
) -> Gradients:
    """Gradients of the training loss of one step, summed over the parts [parts, examples of a part, ...] of a batch."""
    dense_tables = {stack.name: state.tables[stack.name] for stack in plan.dense}
    total_weight = objective.weight(parts)
    count = parts.ids.shape[0]

    def loss_of(params: Any, tables: Any, rows: Any, part: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        inputs = Inputs(rows, tables, part.ids, part.numeric, part.vectors, plan)
        outputs, batch_stats = forward(model, params, state.batch_stats, inputs, key)
        return objective.loss(outputs, inputs, part, key, total_weight), (outputs, batch_stats)

    def work_off(part: Batch, key: jax.Array) -> Gradients:
        with jax.named_scope("gather"):
            rows = {stack.name: gather_rows(stack, state.tables[stack.name], part.ids) for stack in plan.stacks}
        differentiate = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
        (loss, (logits, stats)), found = differentiate(state.params, dense_tables, rows, part, key)
        params, tables, row_gradients = found
        return Gradients(loss, params, tables, row_gradients, logits, stats)

    if count == 1:
        found = work_off(Batch(*(array[0] for array in parts)), step_key(state))
        rows = {name: gradient[None] for name, gradient in found.rows.items()}
        return found._replace(rows=rows, logits=found.logits[None])

    def add(sums: Any, item: tuple[Batch, jax.Array]) -> tuple[Any, Any]:
        found = work_off(item[0], jax.random.fold_in(step_key(state), item[1]))
        summed = (found.loss, found.params, found.tables)
        return jax.tree.map(jnp.add, sums, summed), (found.rows, found.logits)

    zero = jax.tree.map(jnp.zeros_like, (total_weight, state.params, dense_tables))
    (loss, params, tables), (rows, logits) = jax.lax.scan(add, zero, (parts, jnp.arange(count)))
    return Gradients(loss, params, tables, rows, logits, state.batch_stats)


class DenseUpdate(NamedTuple):
    """One Optax step over {"params": ..., "tables": {stack: ...}}, dense parameters and densely updated stacks."""

    before: Any
    gradients: Any
    after: Any
    opt_state: Any


def update_dense(
    plan: EmbeddingPlan,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    found: Gradients,
    ids: dict[str, jax.Array],
) -> DenseUpdate:
    """Apply the optimizer to all that it updates whole; `ids` as of `touched_ids`."""
    table_gradients = {
        name: gradient.at[ids[name]].add(flat_rows(found.rows[name]), mode="drop")
        for name, gradient in found.tables.items()
    }
    before = {"params": state.params, "tables": {stack.name: state.tables[stack.name] for stack in plan.dense}}
    of_loss = {"params": found.params, "tables": table_gradients}
    updates, opt_state = optimizer.update(of_loss, state.opt_state, before)
    return DenseUpdate(before, of_loss, apply_scaled(before, updates, state.learning_rate_scale), opt_state)


def touched_ids(plan: EmbeddingPlan, parts: Batch) -> dict[str, jax.Array]:
    """By stack, the row of every place of the batch [places], in the order of `Gradients.rows`."""
    ids = parts.ids.reshape(-1, parts.ids.shape[-1])
    return {stack.name: stack_ids(stack, ids).reshape(-1) for stack in plan.stacks}


def flat_rows(rows: jax.Array) -> jax.Array:
    """[..., width] as [places, width]."""
    return rows.reshape(-1, rows.shape[-1])


def forward(
    model: nn.Module, params: Any, batch_stats: Any, inputs: Inputs, dropout_key: jax.Array
) -> tuple[Float[Array, "batch ..."], Any]:
    """Training pass: the model's outputs, and the BatchNorm statistics after this batch."""
    variables = {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}
    logits, changed = model.apply(variables, inputs, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats"])
    return logits, changed.get("batch_stats", batch_stats)


def predict(model: nn.Module, plan: EmbeddingPlan, state: TrainState, batch: Batch) -> Float[Array, "batch ..."]:
    """The model's outputs (logits of labels) without dropout, with BatchNorm's running statistics."""
    variables = {"params": state.params}
    if state.batch_stats:
        variables["batch_stats"] = state.batch_stats
    logits: Any = model.apply(variables, make_inputs(plan, batch, state.tables), train=False)
    return logits


def make_eval_step(
    model: nn.Module, objective: Objective, part_of: Callable[[int], int]
) -> Callable[[TrainState, Any, Batch], tuple[Any, Float[Array, "batch ..."]]]:
    """One evaluation step: updated metrics and the model's outputs, `part_of(rows)` examples at a time."""

    def eval_step(state: TrainState, metrics: Any, batch: Batch) -> tuple[Any, jax.Array]:
        rows, plan = batch.ids.shape[0], objective.evaluation_plan(batch.ids)
        parts = split(batch, rows // part_of(rows))
        if parts.ids.shape[0] == 1:
            logits = predict(model, plan, state, batch)
        else:
            logits = joined(jax.lax.map(lambda part: predict(model, plan, state, part), parts))
        return objective.score(metrics, logits, state.tables, batch), logits

    return eval_step
