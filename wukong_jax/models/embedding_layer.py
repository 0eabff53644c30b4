"""The embedding layer (paper, section 3.2): every feature becomes one or more embeddings of width d."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from wukong_jax.config.layers import EmbeddingConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs
from wukong_jax.errors import ConfigError
from wukong_jax.models.layers import MLP, Dense
from wukong_jax.ops.platform import activation_dtype


def embedding_tables(schema: DatasetSchema, config: EmbeddingConfig, width: int) -> TableSpecs:
    """One table per feature: `width` wide, several times that for an important feature, small for a grouped one.

    Raises `ConfigError` for a feature that the schema does not have as categorical or multi-hot.
    """
    known = [feature.name for feature in schema.id_features]
    for name in [item.feature for item in config.important] + [
        name for group in config.groups for name in group.features
    ]:
        if name not in known:
            raise ConfigError(
                f"model.embedding: unknown feature {name!r}; the schema's categorical features are {known}"
            )
    widths = dict.fromkeys(known, width)
    widths |= {item.feature: width * item.num_embeddings for item in config.important}
    widths |= {name: group.width for group in config.groups for name in group.features}
    tables = (
        TableSpec(feature.name, feature.vocabulary_size, widths[feature.name], config.init_stddev)
        for feature in schema.id_features
    )
    return TableSpecs(tuple(tables), tuple(FeatureSpec(name, name) for name in known))


def count_embeddings(schema: DatasetSchema, config: EmbeddingConfig) -> int:
    """Embeddings n of X0."""
    special = len(config.important) + sum(len(group.features) for group in config.groups)
    lifted = sum(item.num_embeddings for item in config.important)
    lifted += sum(group.num_embeddings for group in config.groups)
    dense = config.dense_embeddings if schema.numeric else 0
    return len(schema.id_features) - special + lifted + dense + len(schema.vectors) * config.vector_embeddings


class EmbeddingLayer(nn.Module):
    """X0 [batch, n, d]: plain features, important ones, groups, numeric values, vectors, in this order."""

    schema: DatasetSchema
    config: EmbeddingConfig
    width: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch n d"]:
        """Look the features up in the gathered rows and lift what is not of width d."""
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        out_type = activation_dtype(self.dtype)
        special = {item.feature for item in self.config.important}
        special |= {name for group in self.config.groups for name in group.features}
        plain = [feature.name for feature in self.schema.id_features if feature.name not in special]
        parts = [inputs.embeddings([(name, name) for name in plain])] if plain else []
        parts += [self._split(inputs.embedding(item.feature, item.feature)) for item in self.config.important]
        for index, group in enumerate(self.config.groups):
            small = jnp.concatenate([inputs.embedding(name, name) for name in group.features], axis=1)
            lift = MLP(group.mlp, group.num_embeddings * self.width, name=f"group_{index}", **types)
            parts.append(self._split(lift(small.astype(out_type), train=train)))
        if self.schema.numeric:
            lift = MLP(self.config.dense_mlp, self.config.dense_embeddings * self.width, name="dense", **types)
            parts.append(self._split(lift(inputs.numeric.astype(out_type), train=train)))
        for name, columns in self.schema.vector_slices().items():
            vector = inputs.vectors[:, columns].astype(out_type)
            linear = Dense(self.config.vector_embeddings * self.width, name=f"vector_{name}", **types)
            parts.append(self._split(linear(vector)))
        return jnp.concatenate([part.astype(out_type) for part in parts], axis=1)

    def _split(self, x: Float[Array, "batch values"]) -> Float[Array, "batch n d"]:
        return x.reshape(x.shape[0], -1, self.width)
