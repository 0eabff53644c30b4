"""FinalMLP (Mao et al., AAAI 2023, arXiv 2304.00902): two MLP streams on gated embeddings, fused bilinearly.

x = flatten(X); stream s in {1, 2}: h_s = MLP_s(2 sigmoid(Gate_s(c_s)) * x), where the context c_s holds embeddings of
chosen features from tables of its own (`<feature>:context1`, `:context2`), or is one learned vector [d] if none are
chosen; without gates, h_s = MLP_s(x).
y = b + w_1^T h_1 + w_2^T h_2 + sum_k h_1k^T W_k h_2k, h_sk the k-th of equal parts of h_s (a head).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.baselines import FinalMLPConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs
from wukong_jax.errors import ConfigError
from wukong_jax.models.embedding_layer import EmbeddingLayer, embedding_tables
from wukong_jax.models.layers import MLP, Dense, logit_init


def finalmlp_tables(config: FinalMLPConfig, schema: DatasetSchema) -> TableSpecs:
    """The embedding layer's tables and the contexts'; raises `ConfigError` for a context that has no ids."""
    specs = embedding_tables(schema, config.embedding, config.width)
    sizes = {feature.name: feature.vocabulary_size for feature in schema.id_features}
    tables, lookups = list(specs.tables), list(specs.lookups)
    for field, context in (("context1", config.context1), ("context2", config.context2)):
        for name in context:
            if name not in sizes:
                raise ConfigError(
                    f"model.{field}: unknown feature {name!r}; the schema's categorical features are {list(sizes)}"
                )
            tables.append(TableSpec(f"{name}:{field}", sizes[name], config.width, config.embedding.init_stddev))
            lookups.append(FeatureSpec(name, f"{name}:{field}"))
    return TableSpecs(tuple(tables), tuple(lookups))


class BilinearFusion(nn.Module):
    """b + w_1^T x + w_2^T y + sum_k x_k^T W_k y_k, for each task."""

    heads: int
    tasks: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch n"], y: Float[Array, "batch m"]) -> Float[Array, "batch tasks"]:
        """Logits of two streams."""
        left, right = (z.reshape(z.shape[0], self.heads, -1) for z in (x, y))
        shape = (self.heads, left.shape[2], self.tasks * right.shape[2])
        weight = self.param("bilinear", logit_init, shape)
        with jax.named_scope("bilinear"):
            through = jnp.einsum("bki,kij->bkj", left, weight).reshape(*left.shape[:2], self.tasks, -1)
            pairs = jnp.einsum("bktj,bkj->bt", through, right)
        linear = [Dense(self.tasks, logit_init, name=f"linear_{i}")(z) for i, z in enumerate((x, y), start=1)]
        return linear[0] + linear[1] + pairs


class FinalMLP(nn.Module):
    """Embedding layer, a gate and an MLP for each stream, fusion, one logit a task."""

    config: FinalMLPConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        config = self.config
        x = self.embedding_layer(inputs, train=train)
        flat = x.reshape(x.shape[0], -1)
        streams = []
        for number, mlp, features in ((1, config.mlp1, config.context1), (2, config.mlp2, config.context2)):
            stream = flat
            if config.gates is not None:
                name = f"context{number}"
                if features:
                    context = jnp.concatenate([inputs.embedding(f, f"{f}:{name}") for f in features], axis=1)
                else:
                    # from zeros, behind a ReLU of zero biases, no gradient would ever reach it
                    context = self.param(name, nn.initializers.normal(0.01), (1, config.width))
                gate = MLP(config.gates, flat.shape[1], name=f"gate{number}")
                stream = stream * 2 * jax.nn.sigmoid(gate(context, train=train))
            streams.append(MLP(mlp, name=f"mlp{number}")(stream, train=train))
        return BilinearFusion(config.num_heads, self.tasks, name="fusion")(*streams)
