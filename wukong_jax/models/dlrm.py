"""DLRM (Naumov et al., 2019, arXiv 1906.00091): bottom MLP, dot products of all pairs of embeddings, top MLP.

dot: y = MLP(concat(z, {<x_i, x_j>, i < j})), where X holds the embeddings of all features and z are those of X that
the bottom MLP (the embedding layer's `dense_mlp`, with a linear output) made of the continuous features.
concat: y = MLP(flatten(X)), the form that BARS runs (`interaction_op: cat`); no dot products at all.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wukong_jax.config.baselines import DLRMConfig
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.errors import ConfigError
from wukong_jax.models.embedding_layer import EmbeddingLayer
from wukong_jax.models.layers import MLP, logit_init


class DLRM(nn.Module):
    """Embedding layer, interaction, top MLP, one logit a task."""

    config: DLRMConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32; raises `ConfigError` if there is nothing to interact."""
        x = self.embedding_layer(inputs, train=train)
        flat = x.reshape(x.shape[0], -1)
        if self.config.interaction == "dot":
            schema, embedding = self.embedding_layer.schema, self.config.embedding
            lifted = embedding.dense_embeddings * bool(schema.numeric)
            lifted += embedding.vector_embeddings * len(schema.vectors)
            _, n, d = x.shape
            if n + lifted < 2:
                raise ConfigError(
                    "model.interaction: received 'dot', but the schema gives a single embedding and no continuous "
                    "feature, so that there is nothing to interact; use 'concat'"
                )
            # all n x n products in one call, as DLRM's own code does; half of them are kept
            with jax.named_scope("dot_products"):
                dots = jnp.einsum("bnd,bmd->bnm", x, x).reshape(x.shape[0], -1)
            pairs = np.ravel_multi_index(np.triu_indices(n, 1), (n, n))
            flat = jnp.concatenate([flat[:, (n - lifted) * d :], dots[:, pairs]], axis=1)
        top = MLP(self.config.top_mlp, self.tasks, output_init=logit_init, name="top_mlp")
        return top(flat, train=train)
