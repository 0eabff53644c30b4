"""What the baselines' float64 NumPy forward passes share: inputs, the embeddings, an MLP, first-order terms."""

from typing import Any

import jax
import numpy as np

from tests.models import wukong_oracle
from wukong_jax.config.layers import MLPConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature

FEATURES = (
    (CategoricalFeature("a", 9), CategoricalFeature("b", 5)),
    (MultiHotFeature("mean", 7, 3, "mean"), MultiHotFeature("sum", 6, 2)),
    (NumericFeature("x"), NumericFeature("y")),
    (VectorFeature("v", 3),),
)
ONE, TWO = DatasetSchema(*FEATURES), DatasetSchema(*FEATURES, labels=("click", "buy"))


def embeddings(setup) -> np.ndarray:
    """X0 [batch, n, d]."""
    parameters, batch = setup.params.get("embedding_layer", {}), jax.tree.map(np.asarray, setup.batch)
    return wukong_oracle.embed(parameters, setup.tables, batch, setup.config.model, setup.config.schema)


def flat_embeddings(setup) -> np.ndarray:
    """X0 as one vector an example."""
    return embeddings(setup).reshape(len(setup.batch.ids), -1)


def pooled(setup, feature, table: str) -> np.ndarray:
    """The rows of `table` that a feature's ids pick, pooled as the schema says."""
    ids = np.asarray(setup.batch.ids)[:, setup.config.schema.id_slices()[feature.name]]
    return wukong_oracle.pooled(setup.tables[table], ids, feature)


def mlp(setup, name: str, x: np.ndarray, config: MLPConfig) -> np.ndarray:
    """The MLP `name` of the model, in evaluation: linear, BatchNorm, activation a hidden layer, then linear."""
    p, statistics = setup.params[name], setup.variables.get("batch_stats", {}).get(name, {})
    for i in range(len(config.widths)):
        x = x @ p[f"hidden_{i}"]["kernel"] + p[f"hidden_{i}"]["bias"]
        if config.batch_norm:
            kept, norm = statistics[f"batch_norm_{i}"], p[f"batch_norm_{i}"]
            mean, variance = (np.asarray(kept[key], np.float64) for key in ("mean", "var"))
            x = (x - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]
        x = wukong_oracle.ACTIVATIONS[config.activation](x)
    return linear(p["output"], x) if "output" in p else x


def linear(p: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """x W + b."""
    return x @ p["kernel"] + p["bias"]


def first_order(setup) -> np.ndarray:
    """b + sum of the ids' weights + linear map of the values."""
    p, schema = setup.params["linear"], setup.config.schema
    total = p["bias"] + sum(pooled(setup, feature, f"{feature.name}:weight") for feature in schema.id_features)
    values = np.concatenate([np.asarray(setup.batch.numeric), np.asarray(setup.batch.vectors)], axis=1)
    return total + values @ p["numeric"]["kernel"] if values.shape[1] else total


def compare(setup, wanted: np.ndarray) -> None:
    """The model's logits are `wanted`, and those differ from example to example."""
    assert wanted.shape == (len(setup.batch.ids), len(setup.config.schema.labels))
    assert np.all(np.std(wanted, axis=0) > 0.01)
    np.testing.assert_allclose(setup.logits(train=False), wanted, rtol=1e-5, atol=1e-5)
