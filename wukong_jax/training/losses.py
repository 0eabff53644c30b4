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
) -> Float[Array, ""]:
    """sum_t task_weight_t sum_i w_i (-y log p - (1 - y) log(1 - p)) / sum_i w_i, in float32 from logits."""
    losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels)
    scale = jnp.asarray(task_weights or [1.0] * logits.shape[1], jnp.float32)
    return ((losses * scale).sum(axis=1) * weights).sum() / jnp.maximum(weights.sum(), 1e-12)
