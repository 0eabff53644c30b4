"""AutoInt (Song et al., CIKM 2019, arXiv 1810.11921): self-attention between embeddings; AutoInt+ adds an MLP.

Each layer maps every embedding x_i to ReLU(LN(concat_h(sum_j a^h_ij V_h x_j) + R x_i)), where a^h_i is the softmax over
j of <Q_h x_i, K_h x_j>, divided by sqrt(head width) if `scale`. No map has a bias; R is the identity where the width
stays, LN only with `layer_norm`. y = w^T flatten(last layer) + b [+ MLP(flatten(X))] [+ first-order weights].
R, scale and LN are FuxiCTR's: AutoInt's own R is learned in every layer, without a LayerNorm.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.baselines import AutoIntConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import TableSpecs
from wukong_jax.models.embedding_layer import EmbeddingLayer, embedding_tables
from wukong_jax.models.layers import MLP, Dropout, LayerNorm, logit_init
from wukong_jax.models.logistic_regression import LinearTerm, with_weights


def autoint_tables(config: AutoIntConfig, schema: DatasetSchema) -> TableSpecs:
    """The embedding layer's tables, and with `linear` one `<feature>:weight` each."""
    tables = embedding_tables(schema, config.embedding, config.width)
    return with_weights(tables, schema, config.embedding.init_stddev) if config.linear else tables


class SelfAttention(nn.Module):
    """One layer: attention of every embedding to all of them, residual, ReLU."""

    config: AutoIntConfig

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"], *, train: bool = False) -> Float[Array, "batch n outputs"]:
        """Map n embeddings to n others."""
        config = self.config
        batch, n, d = x.shape
        head_width = config.attention_width // config.num_heads
        mapped = {}
        for name in ("query", "key", "value"):
            linear = nn.Dense(
                config.attention_width, use_bias=False, kernel_init=nn.initializers.glorot_normal(), name=name
            )
            mapped[name] = linear(x).reshape(batch, n, config.num_heads, head_width)
        scores = jnp.einsum("bihw,bjhw->bhij", mapped["query"], mapped["key"])
        weights = jax.nn.softmax(scores / math.sqrt(head_width) if config.scale else scores)
        weights = Dropout(config.dropout)(weights, train=train)
        out = jnp.einsum("bhij,bjhw->bihw", weights, mapped["value"]).reshape(batch, n, -1)
        if d != config.attention_width:
            init = nn.initializers.glorot_normal()
            x = nn.Dense(config.attention_width, use_bias=False, kernel_init=init, name="residual")(x)
        out = out + x
        if config.layer_norm:
            out = LayerNorm(name="norm")(out)
        return nn.relu(out)


class AutoInt(nn.Module):
    """Embedding layer, self-attention layers, flatten, linear; MLP and first-order weights beside them."""

    config: AutoIntConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        config = self.config
        x = self.embedding_layer(inputs, train=train)
        flat, batch = x.reshape(x.shape[0], -1), x.shape[0]
        for index in range(config.num_layers):
            x = SelfAttention(config, name=f"attention_{index}")(x, train=train)
        # the first-order term brings a bias, one is enough
        linear = nn.Dense(self.tasks, use_bias=not config.linear, kernel_init=logit_init, name="head")
        logits = linear(x.reshape(batch, -1))
        if config.dnn is not None:
            logits = logits + MLP(config.dnn, self.tasks, output_init=logit_init, name="dnn")(flat, train=train)
        if config.linear:
            logits = logits + LinearTerm(self.embedding_layer.schema, self.tasks, name="linear")(inputs)
        return logits
