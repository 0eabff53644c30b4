"""Losses over a batch of logits."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def binary_cross_entropy(
    logits: Float[Array, "batch tasks"],
    labels: Float[Array, "batch tasks"],
    weights: Float[Array, "batch"],
    task_weights: Sequence[float] = (),
    total_weight: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """sum_t task_weight_t sum_i w_i (-y log p - (1 - y) log(1 - p)) / sum_i w_i, in float32 at least, from logits.

    `total_weight` replaces the denominator for a part of a batch, so that the parts' losses add up to the batch's.
    """
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    losses = optax.sigmoid_binary_cross_entropy(logits.astype(wide), labels)
    return weighted_mean(losses, weights, task_weights, total_weight)


def weighted_mean(
    losses: Float[Array, "batch tasks"],
    weights: Float[Array, "batch"],
    task_weights: Sequence[float] = (),
    total_weight: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """sum_t task_weight_t sum_i w_i losses_it / sum_i w_i; `total_weight` as in `binary_cross_entropy`."""
    scale = jnp.asarray(task_weights or [1.0] * losses.shape[1], losses.dtype)
    total = weights.sum() if total_weight is None else total_weight
    return ((losses * scale).sum(axis=1) * weights).sum() / jnp.maximum(total, 1e-12)
