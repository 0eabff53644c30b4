"""Optimizers of the touched rows: SGD, Adagrad, row-wise Adagrad, lazy Adam.

All take each row once, with the gradient summed over the batch. Rows that no example touched do not change, nor do
their slots.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wukong_jax.config.optimizer import TableRule
from wukong_jax.embeddings.deduplicate import MergedRows

Slots = dict[str, jax.Array]


class RowOptimizer(NamedTuple):
    """`init(rows, width)` makes the slots; `delta(gradients, slots, step)` gives the change at rate 1 and new slots."""

    init: Callable[[int, int], Slots]
    delta: Callable[[jax.Array, Slots, jax.Array], tuple[jax.Array, Slots]]


def sgd() -> RowOptimizer:
    """Plain descent: w <- w - lr g."""
    return RowOptimizer(lambda rows, width: {}, lambda gradients, slots, step: (-gradients, {}))


def adagrad(initial_accumulator: float, epsilon: float = 1e-7) -> RowOptimizer:
    """Element by element, a <- a + g^2; w <- w - lr g / sqrt(a + epsilon) (Duchi et al. 2011; as optax.adagrad)."""

    def delta(gradients: jax.Array, slots: Slots, step: jax.Array) -> tuple[jax.Array, Slots]:
        total = slots["sum_of_squares"] + jnp.square(gradients)
        return -gradients * jnp.where(total > 0, jax.lax.rsqrt(total + epsilon), 0.0), {"sum_of_squares": total}

    return RowOptimizer(
        lambda rows, width: {"sum_of_squares": jnp.full((rows, width), initial_accumulator, jnp.float32)}, delta
    )


def rowwise_adagrad(
    initial_accumulator: float, epsilon: float = 1e-7, column_axes: tuple[str, ...] = ()
) -> RowOptimizer:
    """One a per row, a <- a + mean(g^2); w <- w - lr g / sqrt(a + epsilon) (the paper's choice for its tables).

    Where each device has some columns of the rows, `column_axes` are the mesh axes to take the mean over.
    """

    def delta(gradients: jax.Array, slots: Slots, step: jax.Array) -> tuple[jax.Array, Slots]:
        mean = jnp.square(gradients).mean(axis=-1)
        total = slots["sum_of_squares"] + (jax.lax.pmean(mean, column_axes) if column_axes else mean)
        scale = jnp.where(total > 0, jax.lax.rsqrt(total + epsilon), 0.0)
        return -gradients * scale[:, None], {"sum_of_squares": total}

    return RowOptimizer(
        lambda rows, width: {"sum_of_squares": jnp.full((rows,), initial_accumulator, jnp.float32)}, delta
    )


def lazy_adam(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> RowOptimizer:
    """Adam in which a row's moments decay only in the steps that touch it; bias correction by the global step.

    Equal to Adam for a row that is touched in every step.
    """

    def delta(gradients: jax.Array, slots: Slots, step: jax.Array) -> tuple[jax.Array, Slots]:
        mean = beta1 * slots["mean"] + (1 - beta1) * gradients
        square = beta2 * slots["square"] + (1 - beta2) * jnp.square(gradients)
        count = (step + 1).astype(jnp.float32)
        mean_hat, square_hat = mean / (1 - beta1**count), square / (1 - beta2**count)
        return -mean_hat / (jnp.sqrt(square_hat) + epsilon), {"mean": mean, "square": square}

    return RowOptimizer(lambda rows, width: {name: jnp.zeros((rows, width)) for name in ("mean", "square")}, delta)


def row_optimizer(rule: TableRule, column_axes: tuple[str, ...] = ()) -> RowOptimizer:
    """The optimizer that a table rule names, of rows whose columns are split over `column_axes`."""
    makers = {
        "sgd": sgd,
        "adagrad": lambda: adagrad(rule.initial_accumulator),
        "rowwise_adagrad": lambda: rowwise_adagrad(rule.initial_accumulator, column_axes=column_axes),
        "adam": lazy_adam,
    }
    return makers[rule.name]()


def update_rows(
    table: Float[Array, "rows width"],
    slots: Slots,
    merged: MergedRows,
    rule: TableRule,
    learning_rate: Float[Array, ""],
    step: Int[Array, ""],
    column_axes: tuple[str, ...] = (),
) -> tuple[Float[Array, "rows width"], Slots]:
    """Apply one step to the merged rows; nothing of the table's size is read or written besides them."""
    optimizer = row_optimizer(rule, column_axes)
    gradients = merged.gradients
    if rule.l2:
        gradients = gradients + rule.l2 * table.at[merged.ids].get(mode="fill", fill_value=0)
    touched = {name: slot.at[merged.ids].get(mode="fill", fill_value=0) for name, slot in slots.items()}
    delta, touched = optimizer.delta(gradients, touched, step)
    table = table.at[merged.ids].add(learning_rate * delta, mode="drop", unique_indices=True)
    slots = {
        name: slot.at[merged.ids].set(touched[name], mode="drop", unique_indices=True) for name, slot in slots.items()
    }
    return table, slots
