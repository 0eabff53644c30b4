"""Factorization machine (Rendle, ICDM 2010): first-order weights and all pairwise dot products."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.models import FactorizationMachineConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs
from wukong_jax.models.logistic_regression import LinearTerm, weight_tables


def fm_tables(schema: DatasetSchema, tasks: int, config: FactorizationMachineConfig) -> TableSpecs:
    """A weight table and an embedding table per feature; the embeddings hold one part for each task."""
    weights = weight_tables(schema, tasks, config.init_stddev)
    width = config.width * tasks
    tables = (TableSpec(f.name, f.vocabulary_size, width, config.init_stddev) for f in schema.id_features)
    lookups = (FeatureSpec(f.name, f.name) for f in schema.id_features)
    return TableSpecs((*weights.tables, *tables), (*weights.lookups, *lookups))


class FactorizationMachine(nn.Module):
    """logit = b + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j, by half of (|sum v x|^2 - sum |v x|^2)."""

    config: FactorizationMachineConfig
    schema: DatasetSchema
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        width = self.config.width * self.tasks
        parts = []
        if self.schema.id_features:
            parts.append(inputs.embeddings([(f.name, f.name) for f in self.schema.id_features]))
        values = jnp.concatenate([inputs.numeric, inputs.vectors], axis=1)
        if values.shape[1]:
            stddev = nn.initializers.normal(self.config.init_stddev)
            parts.append(values[:, :, None] * self.param("numeric", stddev, (values.shape[1], width)))
        x = jnp.concatenate(parts, axis=1)
        pairs = 0.5 * (jnp.square(x.sum(axis=1)) - jnp.square(x).sum(axis=1))
        second_order = pairs.reshape(-1, self.tasks, self.config.width).sum(axis=-1)
        return LinearTerm(self.schema, self.tasks, name="linear")(inputs) + second_order
