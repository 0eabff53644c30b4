"""DeepFM (Guo et al., IJCAI 2017, arXiv 1703.04247): a factorization machine and an MLP on the same embeddings.

y = b + sum_i w_i x_i + sum_{i<j} <v_i, v_j> + MLP(flatten(V)), V [n, d] the embeddings v_i.
With several tasks, each has its own b, w and output of the MLP; the pairwise term, of shared embeddings, is in all.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.baselines import DeepFMConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import TableSpecs
from wukong_jax.models.embedding_layer import EmbeddingLayer, embedding_tables
from wukong_jax.models.layers import MLP, logit_init
from wukong_jax.models.logistic_regression import LinearTerm, with_weights


def deepfm_tables(config: DeepFMConfig, schema: DatasetSchema) -> TableSpecs:
    """The embedding layer's tables and one `<feature>:weight` each for the first-order term."""
    tables = embedding_tables(schema, config.embedding, config.width)
    return with_weights(tables, schema, config.embedding.init_stddev)


class DeepFM(nn.Module):
    """First-order term + pairwise dot products of the embeddings + MLP."""

    config: DeepFMConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        x = self.embedding_layer(inputs, train=train)
        pairs = 0.5 * (jnp.square(x.sum(axis=1)) - jnp.square(x).sum(axis=1)).sum(axis=1, keepdims=True)
        first_order = LinearTerm(self.embedding_layer.schema, self.tasks, name="linear")(inputs)
        mlp = MLP(self.config.mlp, self.tasks, output_init=logit_init, name="mlp")
        return first_order + pairs + mlp(x.reshape(x.shape[0], -1), train=train)
