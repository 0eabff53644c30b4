"""MaskNet (Wang et al., DLP-KDD 2021, arXiv 2102.07619): vectors multiplied by masks made of the embeddings.

Mask block: ReLU(LN(W (v * m))), m = W_2 ReLU(W_1 e + b_1) + b_2, * element by element, e = flatten(X) the plain
embeddings; W without bias. The first v is flatten(LN_i(x_i)), each embedding with a LayerNorm of its own.
serial: v_{k+1} = block_k(v_k), y = w^T v_K + b. parallel: y = MLP(concat_k(block_k(v_1))).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.baselines import MaskNetConfig
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.errors import ConfigError
from wukong_jax.models.embedding_layer import EmbeddingLayer
from wukong_jax.models.layers import LAYER_NORM_EPSILON, MLP, Dense, Dropout, LayerNorm, logit_init
from wukong_jax.ops.layer_norm import layer_norm


class EmbeddingNorm(nn.Module):
    """LayerNorm of each embedding over d, with a scale and a bias for each embedding."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """Normalise."""
        _, n, d = x.shape
        scale = self.param("scale", nn.initializers.ones, (n, d))
        bias = self.param("bias", nn.initializers.zeros, (n, d))
        return layer_norm(x, jnp.ones(d), jnp.zeros(d), LAYER_NORM_EPSILON) * scale + bias


class MaskBlock(nn.Module):
    """ReLU(LN(W (v * mask of the embeddings)))."""

    outputs: int
    mask_ratio: float
    dropout: float

    @nn.compact
    def __call__(
        self, embeddings: Float[Array, "batch inputs"], v: Float[Array, "batch hidden"], *, train: bool = False
    ) -> Float[Array, "batch outputs"]:
        """Mask v and map it; raises `ConfigError` for a mask without hidden values."""
        size = v.shape[1]
        hidden = int(size * self.mask_ratio)
        if not hidden:
            raise ConfigError(
                f"model.mask_ratio: received {self.mask_ratio}, which leaves no hidden value for a mask of {size}; "
                f"expected at least 1 / {size}"
            )
        mask = nn.relu(Dense(hidden, nn.initializers.he_normal(), name="mask_hidden")(embeddings))
        masked = v * Dense(size, name="mask")(mask)
        out = nn.Dense(self.outputs, use_bias=False, kernel_init=nn.initializers.he_normal(), name="linear")(masked)
        out = nn.relu(LayerNorm(name="norm")(out))
        return Dropout(self.dropout)(out, train=train)


class MaskNet(nn.Module):
    """Embedding layer, mask blocks one after the other or side by side, one logit a task."""

    config: MaskNetConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        config = self.config
        x = self.embedding_layer(inputs, train=train)
        flat = x.reshape(x.shape[0], -1)
        v = EmbeddingNorm(name="embedding_norm")(x).reshape(flat.shape) if config.embedding_norm else flat
        outputs: list[Float[Array, "batch outputs"]] = []
        for index, width in enumerate(config.blocks):
            block = MaskBlock(width, config.mask_ratio, config.dropout, name=f"block_{index}")
            before = outputs[-1] if outputs and config.structure == "serial" else v
            outputs.append(block(flat, before, train=train))
        if config.structure == "serial":
            return Dense(self.tasks, logit_init, name="head")(outputs[-1])
        head = MLP(config.mlp, self.tasks, output_init=logit_init, name="head")
        return head(jnp.concatenate(outputs, axis=1), train=train)
