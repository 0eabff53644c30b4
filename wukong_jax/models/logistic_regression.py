"""Logistic regression: a width-1 table per feature and a weight per numeric value."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.models import LogisticRegressionConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs

SUFFIX = ":weight"


def weight_tables(schema: DatasetSchema, tasks: int, init_stddev: float) -> TableSpecs:
    """One table `<feature>:weight` per feature, with a weight for each task."""
    tables = (TableSpec(f.name + SUFFIX, f.vocabulary_size, tasks, init_stddev) for f in schema.id_features)
    return TableSpecs(tuple(tables), tuple(FeatureSpec(f.name, f.name + SUFFIX) for f in schema.id_features))


def with_weights(tables: TableSpecs, schema: DatasetSchema, init_stddev: float) -> TableSpecs:
    """A model's tables with those of its first-order term before them."""
    weights = weight_tables(schema, len(schema.labels), init_stddev)
    return TableSpecs((*weights.tables, *tables.tables), (*weights.lookups, *tables.lookups))


class LinearTerm(nn.Module):
    """b + sum of the ids' weights + linear map of numeric values and vectors."""

    schema: DatasetSchema
    tasks: int

    @nn.compact
    def __call__(self, inputs: Inputs) -> Float[Array, "batch tasks"]:
        """The first-order part of a logit."""
        total = self.param("bias", nn.initializers.zeros, (self.tasks,))
        if self.schema.id_features:
            pairs = [(feature.name, feature.name + SUFFIX) for feature in self.schema.id_features]
            total = total + inputs.embeddings(pairs).sum(axis=1)
        values = jnp.concatenate([inputs.numeric, inputs.vectors], axis=1)
        if values.shape[1]:
            total = total + nn.Dense(self.tasks, use_bias=False, name="numeric")(values)
        return jnp.broadcast_to(total, (inputs.ids.shape[0], self.tasks))


class LogisticRegression(nn.Module):
    """logit = b + sum_i w_i x_i."""

    config: LogisticRegressionConfig
    schema: DatasetSchema
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        return LinearTerm(self.schema, self.tasks, name="linear")(inputs)
