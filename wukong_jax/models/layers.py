"""Layers that several models share: MLP, linear output, LayerNorm."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from wukong_jax.config.layers import MLPConfig
from wukong_jax.ops.dropout import dropout
from wukong_jax.ops.layer_norm import layer_norm
from wukong_jax.ops.layout import hidden_layer, whole_outputs
from wukong_jax.ops.platform import Implementation
from wukong_jax.ops.products import product

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
OWN_LOSSES = "own_losses"
"""Collection of losses [batch, tasks] that a model adds to its training loss, before weights."""
# Logits start near 0, so that training begins at a LogLoss of about ln 2 and not with random confidence.
logit_init = nn.initializers.normal(0.01)


class Dense(nn.Module):
    """x W + b with a product of type `dtype`, forward and backward; the result has x's type."""

    outputs: int
    kernel_init: nn.initializers.Initializer = nn.initializers.glorot_normal()
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch outputs"]:
        """Map each example's vector."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[1], self.outputs), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,), self.param_dtype)
        return (product("bi,io->bo", self.dtype, x, jnp.asarray(kernel)) + bias).astype(x.dtype)


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
        split = False
        for index, width in enumerate(self.config.widths):
            inputs = x.shape[1]
            x = Dense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{index}", **types)(x)
            x, split = hidden_layer(x, inputs, after_split=split)
            if self.config.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=BATCH_NORM_EPSILON,
                    name=f"batch_norm_{index}",
                    dtype=x.dtype,
                    param_dtype=self.param_dtype,
                )(x)
            x = ACTIVATIONS[self.config.activation](x)
            x = Dropout(self.config.dropout)(x, train=train)
        if self.outputs is not None:
            if self.output_dtype is not None:
                x, types = x.astype(self.output_dtype), types | {"dtype": self.output_dtype}
            x = Dense(self.outputs, kernel_init=self.output_init, name="output", **types)(x)
            x = whole_outputs(x, after_split=split)
        return x


class Dropout(nn.Module):
    """In training, values at random to 0 and the others made larger, so that the mean stays."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "..."], *, train: bool) -> Float[Array, "..."]:
        """Drop by the generator `dropout`."""
        return dropout(x, self.rate, self.make_rng("dropout")) if train and self.rate else x


class LayerNorm(nn.Module):
    """LayerNorm over the last axis with scale and bias, statistics in float32."""

    param_dtype: DTypeLike = jnp.float32
    implementation: Implementation = "auto"

    @nn.compact
    def parameters(self, size: int) -> tuple[Float[Array, "size"], Float[Array, "size"]]:
        """Scale and bias, for an operation that normalises by itself."""
        scale = self.param("scale", nn.initializers.ones, (size,), self.param_dtype)
        return scale, self.param("bias", nn.initializers.zeros, (size,), self.param_dtype)

    def __call__(self, x: Float[Array, "*batch values"]) -> Float[Array, "*batch values"]:
        """Normalise; the result has x's type."""
        return layer_norm(x, *self.parameters(x.shape[-1]), LAYER_NORM_EPSILON, implementation=self.implementation)
