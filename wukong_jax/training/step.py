"""The jitted training and evaluation steps, as pure functions of state and batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.exchange import counted
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.embeddings.table_ops import Rows, TableOps, Touched
from wukong_jax.models.layers import OWN_LOSSES
from wukong_jax.ops.layout import gathered
from wukong_jax.training.losses import weighted_mean
from wukong_jax.training.micro_batch import has_setting, joined, scan_parts, split
from wukong_jax.training.objective import Objective
from wukong_jax.training.optim import apply_scaled, schedule
from wukong_jax.training.semi_synchronous import at_hand, look_ahead
from wukong_jax.training.state import TrainState, key_of_step, look_up, make_inputs


def make_train_step(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config: RunConfig,
    total_steps: int,
    part_of: Callable[[int], int],
    operations: TableOps,
) -> Callable[[TrainState, Batch], TrainState]:
    """One update: gather, forward, backward with respect to (dense parameters, gathered rows), update both sides.

    A batch of `rows` is worked off `part_of(rows)` examples at a time; their gradients add up to the batch's. Where the
    state holds a batch that was looked up ahead, that one is trained, and the one given is looked up for the next step.
    """
    factor = schedule(config.optimizer.schedule, total_steps)
    # with dropout or BatchNorm the training pass is no prediction: progressive validation then runs a pass of its own
    training_differs = has_setting(config.model, "dropout", "batch_norm")

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        count = batch.ids.shape[0] // part_of(batch.ids.shape[0])
        parts, looked_up = now(objective, state, batch, count)
        ahead = state.ahead and look_ahead(objective, state, batch, state.step + 1, count, operations)
        plan = objective.training_plan(parts.ids)
        by_part = config.mesh.lookup_ahead
        found = gradients(model, plan, objective, state, parts, operations, looked_up=looked_up, ahead=by_part)
        if ahead:  # without an order XLA copies each table, to read it while it is updated
            found, ahead = jax.lax.optimization_barrier((found, ahead))
        progressive = state.progressive
        if progressive:
            trained = Batch(*(joined(array) for array in parts))
            scores = joined(found.logits)
            if training_differs:
                # in that order for the same reason
                found, scores = jax.lax.optimization_barrier((found, predict(model, plan, state, trained, operations)))
            progressive = objective.score(progressive, scores, state.tables, trained)

        with jax.named_scope("dense_update"):
            dense = update_dense(plan, optimizer, state, found, parts.ids, operations)
        tables, slots, scratch = dict(state.tables) | dense.after["tables"], dict(state.slots), dict(state.scratch)
        excesses = dict(dense.excess)
        with jax.named_scope("row_update"):
            for stack in plan.row_sparse:
                name = stack.name
                rows, touched = Rows(tables[name], slots[name], scratch.get(name)), Touched(parts.ids, found.rows[name])
                rate = stack.rule.learning_rate * factor(state.step) * state.learning_rate_scale
                updated, excess = operations.update(stack, rows, touched, rate, state.step)
                tables[name], slots[name] = updated.table, updated.slots
                if scratch:
                    scratch[name] = updated.scratch
                if excess is not None:
                    excesses[name] = excess

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
            exchange={name: counted(before, excesses[name]) for name, before in state.exchange.items()},
            scratch=scratch,
            ahead=ahead,
        )

    return train_step


def now(objective: Objective, state: TrainState, batch: Batch, count: int) -> tuple[Batch, dict[str, jax.Array] | None]:
    """The batch that a step trains, in parts: the one given, or the one looked up ahead, with its rows."""
    if state.ahead:
        return at_hand(state.ahead, count)
    return objective.prepare(split(batch, count), key_of_step(state, state.step)), None


class Gradients(NamedTuple):
    """Of the whole batch, but for `rows` and `logits`: [parts, examples of a part, ...]."""

    loss: jax.Array
    params: Any
    tables: dict[str, jax.Array]
    """Of densely updated tables, where the model reads them whole; their gathered rows count under `rows`."""
    rows: dict[str, jax.Array]
    logits: jax.Array
    batch_stats: Any


def gradients(
    model: nn.Module,
    plan: EmbeddingPlan,
    objective: Objective,
    state: TrainState,
    parts: Batch,
    operations: TableOps,
    *,
    looked_up: dict[str, jax.Array] | None = None,
    ahead: bool = False,
) -> Gradients:
    """Gradients of the training loss of one step, summed over the parts [parts, examples of a part, ...] of a batch.

    `looked_up` are the rows, in parts too, where they are there. With `ahead` a part's rows are looked up beside the
    pass over the part before it.
    """
    dense_tables = {stack.name: state.tables[stack.name] for stack in plan.dense}
    total_weight = objective.weight(parts)
    key = key_of_step(state, state.step)

    def loss_of(params: Any, tables: Any, rows: Any, part: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        inputs = Inputs(rows, tables, part.ids, part.numeric, part.vectors, plan)
        outputs, batch_stats, own = forward(model, params, state.batch_stats, inputs, key)
        loss = objective.loss(outputs, inputs, part, key, total_weight)
        terms = [weighted_mean(term, part.weights, objective.task_weights, total_weight) for term in own]
        return sum(terms, loss), (loss, outputs, batch_stats)

    def rows_of(ids: jax.Array) -> dict[str, jax.Array]:
        return look_up(plan, state.tables, ids, operations)

    def work_off(part: Batch, rows: dict[str, jax.Array], key: jax.Array) -> Gradients:
        differentiate = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
        (_, (loss, logits, stats)), found = differentiate(state.params, dense_tables, rows, part, key)
        params, tables, row_gradients = found
        return Gradients(loss, params, tables, row_gradients, logits, stats)

    if parts.ids.shape[0] == 1:
        whole, there = jax.tree.map(lambda array: array[0], (parts, looked_up))
        found = work_off(whole, rows_of(whole.ids) if there is None else there, key)
        rows = {name: gradient[None] for name, gradient in found.rows.items()}
        return found._replace(rows=rows, logits=found.logits[None])

    def add(sums: Any, part: Batch, rows: dict[str, jax.Array], number: jax.Array) -> tuple[Any, Any]:
        found = work_off(part, rows, jax.random.fold_in(key, number))
        summed = (found.loss, found.params, found.tables)
        return jax.tree.map(jnp.add, sums, summed), (found.rows, found.logits)

    zero = jax.tree.map(jnp.zeros_like, (total_weight, state.params, dense_tables))
    (loss, params, tables), (rows, logits) = scan_parts(add, zero, parts, looked_up or rows_of, ahead=ahead)
    return Gradients(loss, params, tables, rows, logits, state.batch_stats)


class DenseUpdate(NamedTuple):
    """One Optax step over {"params": ..., "tables": {stack: ...}}, dense parameters and densely updated stacks."""

    before: Any
    gradients: Any
    after: Any
    opt_state: Any
    excess: dict[str, jax.Array]
    """By stack that is split by rows, the rows that needed further rounds of exchange."""


def update_dense(
    plan: EmbeddingPlan,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    found: Gradients,
    ids: Int[Array, "parts examples id_columns"],
    operations: TableOps,
) -> DenseUpdate:
    """Apply the optimizer to all that it updates whole."""
    added = {
        stack.name: operations.add_gradients(stack, found.tables[stack.name], Touched(ids, found.rows[stack.name]))
        for stack in plan.dense
    }
    table_gradients = {name: gradient for name, (gradient, _) in added.items()}
    excess = {name: count for name, (_, count) in added.items() if count is not None}
    before = {"params": state.params, "tables": {stack.name: state.tables[stack.name] for stack in plan.dense}}
    of_loss = {"params": found.params, "tables": table_gradients}
    updates, opt_state = optimizer.update(of_loss, state.opt_state, before)
    return DenseUpdate(before, of_loss, apply_scaled(before, updates, state.learning_rate_scale), opt_state, excess)


def forward(
    model: nn.Module, params: Any, batch_stats: Any, inputs: Inputs, dropout_key: jax.Array
) -> tuple[Float[Array, "batch ..."], Any, list[Float[Array, "batch tasks"]]]:
    """Training pass: the model's outputs, the BatchNorm statistics after this batch, and losses that the model adds."""
    variables = {"params": gathered(params)} | ({"batch_stats": batch_stats} if batch_stats else {})
    logits, changed = model.apply(
        variables, inputs, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats", OWN_LOSSES]
    )
    return logits, changed.get("batch_stats", batch_stats), jax.tree.leaves(changed.get(OWN_LOSSES, {}))


def predict(
    model: nn.Module, plan: EmbeddingPlan, state: TrainState, batch: Batch, operations: TableOps
) -> Float[Array, "batch ..."]:
    """The model's outputs (logits of labels) without dropout, with BatchNorm's running statistics."""
    variables = {"params": gathered(state.params)}
    if state.batch_stats:
        variables["batch_stats"] = state.batch_stats
    logits: Any = model.apply(variables, make_inputs(plan, batch, state.tables, operations), train=False)
    return logits


def make_eval_step(
    model: nn.Module, objective: Objective, part_of: Callable[[int], int], operations: TableOps
) -> Callable[[TrainState, Any, Batch], tuple[Any, Float[Array, "batch ..."]]]:
    """One evaluation step: updated metrics and the model's outputs, `part_of(rows)` examples at a time."""

    def eval_step(state: TrainState, metrics: Any, batch: Batch) -> tuple[Any, jax.Array]:
        rows, plan = batch.ids.shape[0], objective.evaluation_plan(batch.ids)
        parts = split(batch, rows // part_of(rows))
        if parts.ids.shape[0] == 1:
            logits = predict(model, plan, state, batch, operations)
        else:
            logits = joined(jax.lax.map(lambda part: predict(model, plan, state, part, operations), parts))
        return objective.score(metrics, logits, state.tables, batch), logits

    return eval_step
