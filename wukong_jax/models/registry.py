"""Which class, and which tables, belong to a model config.

Adding a model: its module in a file of its own, its config class, a row here and in `ModelConfig`, in `closed_form`
and, if it can grow, in `schedules`; tests name what is missing.

The contract: a module is called with `Inputs` and `train`, and returns float32 logits [batch, tasks], those of
sequences the vectors of the next items [batch, length, width];
its tables are declared beside it, so that they live outside the module's parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from wukong_jax.config.baselines import (
    AFNConfig,
    AutoIntConfig,
    DCNv2Config,
    DeepFMConfig,
    DLRMConfig,
    DNNConfig,
    FinalMLPConfig,
    FinalNetConfig,
    MaskNetConfig,
    WideDeepConfig,
    XDeepFMConfig,
)
from wukong_jax.config.models import FactorizationMachineConfig, LogisticRegressionConfig, ModelConfig, WukongConfig
from wukong_jax.config.sequential import HSTUConfig, LlamaConfig, SASRecConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.specs import TableSpecs
from wukong_jax.models.afn import AFN, afn_tables
from wukong_jax.models.autoint import AutoInt, autoint_tables
from wukong_jax.models.dcnv2 import DCNv2
from wukong_jax.models.deepfm import DeepFM, deepfm_tables
from wukong_jax.models.dlrm import DLRM
from wukong_jax.models.dnn import DNN
from wukong_jax.models.embedding_layer import EmbeddingLayer, embedding_tables
from wukong_jax.models.factorization_machine import FactorizationMachine, fm_tables
from wukong_jax.models.finalmlp import FinalMLP, finalmlp_tables
from wukong_jax.models.finalnet import FinalNet
from wukong_jax.models.logistic_regression import LogisticRegression, weight_tables
from wukong_jax.models.masknet import MaskNet
from wukong_jax.models.wide_deep import WideDeep, wide_deep_tables
from wukong_jax.models.wukong import Wukong
from wukong_jax.models.xdeepfm import XDeepFM, xdeepfm_tables
from wukong_jax.sequential.model import item_tables, next_item_model


class Entry(NamedTuple):
    """How a model config becomes a module and its tables."""

    module: Callable[[Any, DatasetSchema], nn.Module]
    tables: Callable[[Any, DatasetSchema], TableSpecs]


def _wukong(config: WukongConfig, schema: DatasetSchema) -> nn.Module:
    types: dict[str, Any] = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}
    embedding_layer = EmbeddingLayer(schema, config.embedding, config.width, **types)
    return Wukong(config, embedding_layer, len(schema.labels))


def _embedding_tables(config: Any, schema: DatasetSchema) -> TableSpecs:
    return embedding_tables(schema, config.embedding, config.width)


def _on_embeddings(
    module: Callable[..., nn.Module], tables: Callable[[Any, DatasetSchema], TableSpecs] = _embedding_tables
) -> Entry:
    """A model on the embedding layer: its config has `embedding` and `width`."""

    def build(config: Any, schema: DatasetSchema) -> nn.Module:
        return module(config, EmbeddingLayer(schema, config.embedding, config.width), len(schema.labels))

    return Entry(build, tables)


OF_SEQUENCES = (SASRecConfig, HSTUConfig, LlamaConfig)
"""Models of the next item; the others score labels."""
NEXT_ITEM = Entry(next_item_model, item_tables)

REGISTRY: dict[type, Entry] = {
    WukongConfig: Entry(_wukong, _embedding_tables),
    LogisticRegressionConfig: Entry(
        lambda config, schema: LogisticRegression(config, schema, len(schema.labels)),
        lambda config, schema: weight_tables(schema, len(schema.labels), config.init_stddev),
    ),
    FactorizationMachineConfig: Entry(
        lambda config, schema: FactorizationMachine(config, schema, len(schema.labels)),
        lambda config, schema: fm_tables(schema, len(schema.labels), config),
    ),
    DNNConfig: _on_embeddings(DNN),
    WideDeepConfig: _on_embeddings(WideDeep, wide_deep_tables),
    DeepFMConfig: _on_embeddings(DeepFM, deepfm_tables),
    DLRMConfig: _on_embeddings(DLRM),
    DCNv2Config: _on_embeddings(DCNv2),
    FinalMLPConfig: _on_embeddings(FinalMLP, finalmlp_tables),
    AutoIntConfig: _on_embeddings(AutoInt, autoint_tables),
    AFNConfig: _on_embeddings(AFN, afn_tables),
    XDeepFMConfig: _on_embeddings(XDeepFM, xdeepfm_tables),
    MaskNetConfig: _on_embeddings(MaskNet),
    FinalNetConfig: _on_embeddings(FinalNet),
    **dict.fromkeys(OF_SEQUENCES, NEXT_ITEM),
}


def build_model(config: ModelConfig, schema: DatasetSchema) -> nn.Module:
    """The flax module of a model config."""
    return REGISTRY[type(config)].module(config, schema)


def table_specs(config: ModelConfig, schema: DatasetSchema) -> TableSpecs:
    """The tables and lookups of a model config; raises `ConfigError` for features that the schema lacks."""
    return REGISTRY[type(config)].tables(config, schema)
