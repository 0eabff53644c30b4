"""xDeepFM (Lian et al., KDD 2018, arXiv 1803.05170): compressed interaction network (CIN), first-order term, MLP.

CIN: x^k_h = sum_{i,j} W^k_{h,ij} (x^0_i * x^{k-1}_j) + b^k_h, * element by element, x^0 = X [n, d]; no activation.
y = w^T concat_k(sum over d of x^k) + b [+ MLP(flatten(X))] [+ first-order weights].
The biases b^k are FuxiCTR's (a convolution of width 1); all feature maps of a layer are read by the next one and by y.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.baselines import XDeepFMConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import TableSpecs
from wukong_jax.models.embedding_layer import EmbeddingLayer, embedding_tables
from wukong_jax.models.layers import MLP, logit_init
from wukong_jax.models.logistic_regression import LinearTerm, with_weights


def xdeepfm_tables(config: XDeepFMConfig, schema: DatasetSchema) -> TableSpecs:
    """The embedding layer's tables, and with `linear` one `<feature>:weight` each."""
    tables = embedding_tables(schema, config.embedding, config.width)
    return with_weights(tables, schema, config.embedding.init_stddev) if config.linear else tables


class CompressedInteractionLayer(nn.Module):
    """sum_{i,j} W_h,ij (x0_i * x_j) + b_h for every feature map h."""

    maps: int

    @nn.compact
    def __call__(self, x0: Float[Array, "batch n d"], x: Float[Array, "batch m d"]) -> Float[Array, "batch maps d"]:
        """Interact the embeddings with the feature maps of the layer before."""
        pairs = (x0[:, :, None] * x[:, None]).reshape(x.shape[0], -1, x.shape[2])
        kernel = self.param("kernel", nn.initializers.glorot_normal(), (pairs.shape[1], self.maps))
        bias = self.param("bias", nn.initializers.zeros, (self.maps,))
        return jnp.einsum("bpd,ph->bhd", pairs, kernel) + bias[:, None]


class CompressedInteractionNetwork(nn.Module):
    """The feature maps of all layers, summed over d."""

    maps: tuple[int, ...]

    @nn.compact
    def __call__(self, x0: Float[Array, "batch n d"]) -> Float[Array, "batch maps"]:
        """Interactions of rising order, `maps[k]` of layer k."""
        x, sums = x0, []
        for index, maps in enumerate(self.maps):
            x = CompressedInteractionLayer(maps, name=f"layer_{index}")(x0, x)
            sums.append(x.sum(axis=2))
        return jnp.concatenate(sums, axis=1)


class XDeepFM(nn.Module):
    """Embedding layer, CIN, linear; MLP and first-order weights beside them."""

    config: XDeepFMConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        config = self.config
        x = self.embedding_layer(inputs, train=train)
        # the first-order term brings a bias, one is enough
        linear = nn.Dense(self.tasks, use_bias=not config.linear, kernel_init=logit_init, name="head")
        logits = linear(CompressedInteractionNetwork(config.cin, name="cin")(x))
        if config.dnn is not None:
            mlp = MLP(config.dnn, self.tasks, output_init=logit_init, name="dnn")
            logits = logits + mlp(x.reshape(x.shape[0], -1), train=train)
        if config.linear:
            logits = logits + LinearTerm(self.embedding_layer.schema, self.tasks, name="linear")(inputs)
        return logits
