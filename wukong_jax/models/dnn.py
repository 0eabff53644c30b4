"""DNN, the plain deep baseline (BARS): an MLP on the flattened embeddings, without explicit interactions.

y = MLP(flatten(X)), X [n, d].
"""

import flax.linen as nn
from jaxtyping import Array, Float

from wukong_jax.config.baselines import DNNConfig
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.models.embedding_layer import EmbeddingLayer
from wukong_jax.models.layers import MLP, logit_init


class DNN(nn.Module):
    """Embedding layer, flatten, MLP, one logit a task."""

    config: DNNConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        x = self.embedding_layer(inputs, train=train)
        mlp = MLP(self.config.mlp, self.tasks, output_init=logit_init, name="mlp")
        return mlp(x.reshape(x.shape[0], -1), train=train)
