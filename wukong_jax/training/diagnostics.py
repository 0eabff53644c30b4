"""What one training step does to each part of a model: norms of gradients, relative sizes of updates, activations.

A function of its own, compiled apart and called beside the training step, which therefore stays as it is: it computes
the step's gradients and updates a second time and throws them away. It costs about a forward pass more than a step, and
memory for the dense side and the touched rows once more, never for a row-sparse table.
"""

import collections
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.embeddings.table_ops import Rows, TableOps, Touched
from wukong_jax.models.layers import Dropout
from wukong_jax.training.objective import Objective
from wukong_jax.training.optim import parameter_path, schedule
from wukong_jax.training.state import TrainState, make_inputs
from wukong_jax.training.step import gradients, now, update_dense

SPLIT = "diagnostics"
"""The name under which the figures stand in a run's history."""
Figures = dict[str, jax.Array]
_Squares = dict[str, tuple[jax.Array, jax.Array, jax.Array]]
"""By component, the sums of squares of gradient, update and parameters."""


def make_diagnose(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config: RunConfig,
    total_steps: int,
    part_of: Callable[[int], int],
    operations: TableOps,
) -> Callable[[TrainState, Batch], Figures]:
    """A function of (state, batch) that says what the step from this state with this batch does.

    Components are the dense parameters by the first two names of their modules (`layer_0/fmb`, `head/output`) and the
    tables (`table/user`). Norms are Euclidean; a row-sparse table counts with its touched rows only. Figures:

        gradient_norm                over dense parameters and densely updated tables, before L2 and clipping
        gradient_norm/<component>    of the batch's mean loss, equal ids merged
        update_ratio/<component>     |w' - w| / |w|; NaN where w is 0 in every entry, as a bias before the first step
        activation_rms/<module>, activation_max/<module>
                                     of the module's output, largest in magnitude, in a pass without dropout
    """
    factor = schedule(config.optimizer.schedule, total_steps)

    def diagnose(state: TrainState, batch: Batch) -> Figures:
        parts, looked_up = now(objective, state, batch, batch.ids.shape[0] // part_of(batch.ids.shape[0]))
        plan = objective.training_plan(parts.ids)
        found = gradients(model, plan, objective, state, parts, operations, looked_up=looked_up)
        dense = update_dense(plan, optimizer, state, found, parts.ids, operations)
        squares = _dense_squares(plan, dense.before, dense.gradients, dense.after)
        leaves = jax.tree.leaves(dense.gradients)
        figures = {"gradient_norm": jnp.sqrt(jnp.stack([_square(leaf) for leaf in leaves]).sum())}
        for stack in plan.row_sparse:
            rate = stack.rule.learning_rate * factor(state.step) * state.learning_rate_scale
            rows = Rows(state.tables[stack.name], state.slots[stack.name], None)
            sums = operations.squares(stack, rows, Touched(parts.ids, found.rows[stack.name]), rate, state.step)
            squares |= {f"table/{spec.name}": tuple(sums[:, place]) for place, spec in enumerate(stack.tables)}
        for name, (gradient, update, parameters) in squares.items():
            figures[f"gradient_norm/{name}"] = jnp.sqrt(gradient)
            figures[f"update_ratio/{name}"] = jnp.where(parameters > 0, jnp.sqrt(update / parameters), jnp.nan)
        return figures | _activations(model, plan, state, parts, operations)

    return diagnose


def to_host(figures: Figures) -> dict[str, float]:
    """The figures as numbers, without the update ratios that are undefined."""
    numbers = {name: float(value) for name, value in jax.device_get(figures).items()}
    return {name: value for name, value in numbers.items() if not (name.startswith("update_ratio/") and value != value)}


def summary(figures: dict[str, float]) -> str:
    """One line for people: the gradient's norm, and the components of the largest figures."""

    def largest(kind: str) -> str:
        found = {name: value for name, value in figures.items() if name.startswith(f"{kind}/")}
        name = max(found, key=lambda name: found[name], default="")
        return f"{found[name]:.3g} ({name.partition('/')[2]})" if name else "-"

    return (
        f"gradient norm {figures['gradient_norm']:.3g}, largest update ratio {largest('update_ratio')}, "
        f"largest activation {largest('activation_max')}"
    )


def _dense_squares(plan: EmbeddingPlan, before: Any, gradient: Any, after: Any) -> _Squares:
    parts: dict[str, list[tuple[jax.Array, jax.Array, jax.Array]]] = collections.defaultdict(list)
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(before["params"]),
        jax.tree.leaves(gradient["params"]),
        jax.tree.leaves(after["params"]),
        strict=True,
    )
    for (path, old), slope, new in leaves:
        module = parameter_path(path).split("/")[:-1]
        parts["/".join(module[:2]) or "model"].append((slope, _change(old, new), old))
    for stack in plan.dense:
        arrays = (gradient["tables"][stack.name], before["tables"][stack.name], after["tables"][stack.name])
        for spec, offset in zip(stack.tables, stack.offsets, strict=True):
            slope, old, new = (array[offset : offset + spec.rows] for array in arrays)
            parts[f"table/{spec.name}"].append((slope, _change(old, new), old))
    return {name: _summed(leaves) for name, leaves in parts.items()}


def _summed(leaves: list[tuple[jax.Array, jax.Array, jax.Array]]) -> tuple[jax.Array, jax.Array, jax.Array]:
    gradient, update, parameters = (
        jnp.stack([_square(array) for array in arrays]).sum() for arrays in zip(*leaves, strict=True)
    )
    return gradient, update, parameters


def _activations(
    model: nn.Module, plan: EmbeddingPlan, state: TrainState, parts: Batch, operations: TableOps
) -> Figures:
    variables = {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})

    def measure(part: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        inputs = make_inputs(plan, part, state.tables, operations)
        _, kept = model.apply(
            variables, inputs, train=False, capture_intermediates=_informative, mutable=["intermediates"]
        )
        outputs: dict[str, list[jax.Array]] = collections.defaultdict(list)
        for path, leaf in jax.tree_util.tree_leaves_with_path(kept["intermediates"]):
            outputs[parameter_path(path).partition("__call__")[0].rstrip("/") or "logits"].append(leaf)
        return {
            name: (
                jnp.stack([_square(leaf) for leaf in leaves]).sum() / sum(leaf.size for leaf in leaves),
                jnp.stack([jnp.abs(leaf).max() for leaf in leaves]).max().astype(jnp.float32),
            )
            for name, leaves in outputs.items()
        }

    measured = jax.lax.map(measure, parts)
    figures = {f"activation_rms/{name}": jnp.sqrt(square.mean()) for name, (square, _) in measured.items()}
    return figures | {f"activation_max/{name}": largest.max() for name, (_, largest) in measured.items()}


def _informative(module: nn.Module, method: str) -> bool:
    return method == "__call__" and not isinstance(module, Dropout)  # which changes nothing in this pass


def _change(old: jax.Array, new: jax.Array) -> jax.Array:
    return new.astype(jnp.float32) - old.astype(jnp.float32)


def _square(array: jax.Array) -> jax.Array:
    return jnp.square(array.astype(jnp.float32)).sum()
