"""Which class, and which tables, belong to a model config: adding a model is one file and one row here.

The contract: a module is called with `Inputs` and `train`, and returns float32 logits [batch, tasks];
its tables are declared beside it, so that they live outside the module's parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from wukong_jax.config.models import FactorizationMachineConfig, LogisticRegressionConfig, ModelConfig, WukongConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.specs import TableSpecs
from wukong_jax.models.embedding_layer import EmbeddingLayer, embedding_tables
from wukong_jax.models.factorization_machine import FactorizationMachine, fm_tables
from wukong_jax.models.logistic_regression import LogisticRegression, weight_tables
from wukong_jax.models.wukong import Wukong


class Entry(NamedTuple):
    """How a model config becomes a module and its tables."""

    module: Callable[[Any, DatasetSchema], nn.Module]
    tables: Callable[[Any, DatasetSchema], TableSpecs]


def _wukong(config: WukongConfig, schema: DatasetSchema) -> nn.Module:
    types: dict[str, Any] = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}
    embedding_layer = EmbeddingLayer(schema, config.embedding, config.width, **types)
    return Wukong(config, embedding_layer, len(schema.labels))


REGISTRY: dict[type, Entry] = {
    WukongConfig: Entry(_wukong, lambda config, schema: embedding_tables(schema, config.embedding, config.width)),
    LogisticRegressionConfig: Entry(
        lambda config, schema: LogisticRegression(config, schema, len(schema.labels)),
        lambda config, schema: weight_tables(schema, len(schema.labels), config.init_stddev),
    ),
    FactorizationMachineConfig: Entry(
        lambda config, schema: FactorizationMachine(config, schema, len(schema.labels)),
        lambda config, schema: fm_tables(schema, len(schema.labels), config),
    ),
}


def build_model(config: ModelConfig, schema: DatasetSchema) -> nn.Module:
    """The flax module of a model config."""
    return REGISTRY[type(config)].module(config, schema)


def table_specs(config: ModelConfig, schema: DatasetSchema) -> TableSpecs:
    """The tables and lookups of a model config; raises `ConfigError` for features that the schema lacks."""
    return REGISTRY[type(config)].tables(config, schema)
