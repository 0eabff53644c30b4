"""Layers that several models share: MLP, linear output, LayerNorm."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from wukong_jax.config.layers import MLPConfig

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "identity": lambda x: x,
}
LAYER_NORM_EPSILON = 1e-5
BATCH_NORM_EPSILON = 1e-5
# Logits start near 0, so that training begins at a LogLoss of about ln 2 and not with random confidence.
logit_init = nn.initializers.normal(0.01)


class MLP(nn.Module):
    """Hidden layers as the config says, then a linear layer to `outputs` values (none if `outputs` is None).

    Hidden kernels are He-normal for the ReLU that follows, the last one Glorot-normal unless said otherwise; biases 0.
    """

    config: MLPConfig
    outputs: int | None = None
    output_init: nn.initializers.Initializer = nn.initializers.glorot_normal()
    output_dtype: DTypeLike | None = None
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"], *, train: bool = False) -> Float[Array, "batch outputs"]:
        """Map each example's vector; in training, dropout is on and BatchNorm uses the batch's own statistics."""
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        for index, width in enumerate(self.config.widths):
            x = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{index}", **types)(x)
            if self.config.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=BATCH_NORM_EPSILON,
                    name=f"batch_norm_{index}",
                    **types,
                )(x)
            x = ACTIVATIONS[self.config.activation](x)
            if self.config.dropout:
                x = nn.Dropout(self.config.dropout, deterministic=not train)(x)
        if self.outputs is not None:
            output_types = types if self.output_dtype is None else types | {"dtype": self.output_dtype}
            x = nn.Dense(self.outputs, kernel_init=self.output_init, name="output", **output_types)(x)
        return x


def layer_norm(name: str, dtype: DTypeLike, param_dtype: DTypeLike) -> nn.LayerNorm:
    """LayerNorm over the last axis with scale and bias; flax keeps its statistics in float32."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=dtype, param_dtype=param_dtype, name=name)
