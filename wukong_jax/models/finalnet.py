"""FinalNet (Zhu et al., SIGIR 2023): factorized interaction layers in place of an MLP's linear ones.

Layer of width m: (h, g) = halves of W x + b; concat(h, h * g) with m/2 values each if `residual` is concat, or
h + h * g with m values each if it is sum; then BatchNorm, activation, dropout as in an MLP. Gates: x_i is given as
concat(x_i, x_i * (sum_j W_ji x_j + b_i)), W starting at 0 and b at 1. One block: y = w^T block1(flatten(gated X)) + b.
Two blocks: y = (y_1 + y_2) / 2, where y_2 comes of block2(flatten(X)).
Self-distillation adds to the training loss the cross entropies of sigmoid(y_1) and of sigmoid(y_2) to sigmoid(y), which
is held constant (as in FuxiCTR).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from wukong_jax.config.baselines import FinalNetConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.models.embedding_layer import EmbeddingLayer
from wukong_jax.models.layers import ACTIVATIONS, BATCH_NORM_EPSILON, OWN_LOSSES, Dense, Dropout, logit_init


class FeatureGates(nn.Module):
    """The embeddings and, behind them, the embeddings times their gates."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch doubled d"]:
        """Map n embeddings to 2 n."""
        n = x.shape[1]
        kernel = self.param("kernel", nn.initializers.zeros, (n, n))
        bias = self.param("bias", nn.initializers.ones, (n,))
        gates = jnp.einsum("bjd,ji->bid", x, kernel) + bias[:, None]
        return jnp.concatenate([x, x * gates], axis=1)


class FinalBlock(nn.Module):
    """Factorized interaction layers, each with BatchNorm, activation and dropout as the config says."""

    config: MLPConfig
    residual: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"], *, train: bool = False) -> Float[Array, "batch outputs"]:
        """Map each example's vector."""
        for index, width in enumerate(self.config.widths):
            both = Dense(width if self.residual == "concat" else 2 * width, name=f"hidden_{index}")(x)
            h, g = jnp.split(both, 2, axis=1)
            x = jnp.concatenate([h, h * g], axis=1) if self.residual == "concat" else h + h * g
            if self.config.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=BATCH_NORM_EPSILON,
                    name=f"batch_norm_{index}",
                )(x)
            x = ACTIVATIONS[self.config.activation](x)
            x = Dropout(self.config.dropout)(x, train=train)
        return x


class FinalNet(nn.Module):
    """Embedding layer, one or two blocks, the mean of their logits."""

    config: FinalNetConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        config = self.config
        x = self.embedding_layer(inputs, train=train)
        gated = FeatureGates(name="gates")(x) if config.gates else x
        first = FinalBlock(config.block1, config.residual, name="block_1")(gated.reshape(x.shape[0], -1), train=train)
        logits = Dense(self.tasks, logit_init, name="head_1")(first)
        if config.block2 is None:
            return logits
        second = FinalBlock(config.block2, config.residual, name="block_2")(x.reshape(x.shape[0], -1), train=train)
        other = Dense(self.tasks, logit_init, name="head_2")(second)
        mean = 0.5 * (logits + other)
        if train and config.self_distillation:
            teacher = jax.lax.stop_gradient(nn.sigmoid(mean))
            both = (optax.sigmoid_binary_cross_entropy(block, teacher) for block in (logits, other))
            self.sow(OWN_LOSSES, "self_distillation", sum(both))
        return mean
