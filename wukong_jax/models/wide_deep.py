"""Wide & Deep (Cheng et al., DLRS 2016, arXiv 1606.07792): first-order weights beside an MLP on embeddings.

y = b + sum_i w_i x_i + MLP(flatten(V)), V [n, d] the embeddings. The paper's cross-product features are columns of the
data like any other; none are made here.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from wukong_jax.config.baselines import WideDeepConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import TableSpecs
from wukong_jax.models.embedding_layer import EmbeddingLayer, embedding_tables
from wukong_jax.models.layers import MLP, logit_init
from wukong_jax.models.logistic_regression import LinearTerm, with_weights


def wide_deep_tables(config: WideDeepConfig, schema: DatasetSchema) -> TableSpecs:
    """The embedding layer's tables and one `<feature>:weight` each for the first-order term."""
    tables = embedding_tables(schema, config.embedding, config.width)
    return with_weights(tables, schema, config.embedding.init_stddev)


class WideDeep(nn.Module):
    """First-order term + MLP."""

    config: WideDeepConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        x = self.embedding_layer(inputs, train=train)
        wide = LinearTerm(self.embedding_layer.schema, self.tasks, name="linear")(inputs)
        mlp = MLP(self.config.mlp, self.tasks, output_init=logit_init, name="mlp")
        return wide + mlp(x.reshape(x.shape[0], -1), train=train)
