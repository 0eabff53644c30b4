"""Wukong's forward pass in float64 NumPy, from the paper's equations: no code of the package but its configs."""

import numpy as np

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.data.schema import DatasetSchema, MultiHotFeature

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "identity": lambda x: x,
}


def layer_norm(p, x):
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * p["scale"] + p["bias"]


def mlp(p, x, config: MLPConfig, statistics=None):
    for i in range(len(config.widths)):
        x = x @ p[f"hidden_{i}"]["kernel"] + p[f"hidden_{i}"]["bias"]
        if config.batch_norm:
            s, norm = statistics[f"batch_norm_{i}"], p[f"batch_norm_{i}"]
            x = (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * norm["scale"] + norm["bias"]
        x = ACTIVATIONS[config.activation](x)
    return x @ p["output"]["kernel"] + p["output"]["bias"]


def fm(p, x, config: WukongConfig):
    pairs = x @ x.transpose(0, 2, 1)
    if config.fm == "full":
        return pairs
    if config.fm == "low_rank":
        return pairs @ p["projection"]
    p = p["projection"]
    batch, n, _ = x.shape
    compressed = np.einsum("nm,bnd->bmd", p["compress"], x).reshape(batch, -1)
    own = mlp(p["mlp"], layer_norm(p["norm"], compressed), config.attentive.mlp)
    return pairs @ (p["static"] + own.reshape(batch, n, -1) / np.sqrt(n))


def layer(p, x, config: WukongConfig, index: int):
    own = config.layer(index)
    batch, n, d = x.shape
    fmb, lcb = np.zeros((batch, own.num_fmb, d)), np.zeros((batch, own.num_lcb, d))
    if config.use_fmb:
        flat = layer_norm(p["fmb"]["norm"], fm(p["fmb"], x, config).reshape(batch, -1))
        fmb = mlp(p["fmb"]["mlp"], flat, own.fmb_mlp).reshape(batch, own.num_fmb, d)
    if config.use_lcb:
        lcb = np.stack([sum(p["lcb"]["weight"][i, j] * x[:, i] for i in range(n)) for j in range(own.num_lcb)], axis=1)
    out = np.concatenate([fmb, lcb], axis=1)
    if config.residual and n == own.num_fmb + own.num_lcb:
        out = out + x
    elif config.residual:
        out = out + p["residual"]["weight"].T @ x
    return layer_norm(p["norm"], out)


def pooled(table, ids, feature):
    if not isinstance(feature, MultiHotFeature):
        return table[ids[:, 0]]
    used = (ids >= 0)[..., None]
    total = (table[np.maximum(ids, 0)] * used).sum(axis=1)
    return total / np.maximum(used.sum(axis=1), 1) if feature.combiner == "mean" else total


def embed(p, tables, batch, config: WukongConfig, schema: DatasetSchema):
    """X0: plain features, important ones, groups, numeric values, vectors."""
    d, rows = config.width, len(batch.ids)
    features = {feature.name: feature for feature in schema.id_features}
    looked_up = {
        name: pooled(tables[name], batch.ids[:, columns], features[name])
        for name, columns in schema.id_slices().items()
    }
    important = [item.feature for item in config.embedding.important]
    grouped = [name for group in config.embedding.groups for name in group.features]
    parts = [looked_up[name] for name in features if name not in important + grouped]
    parts += [looked_up[name] for name in important]
    for i, group in enumerate(config.embedding.groups):
        parts.append(
            mlp(p[f"group_{i}"], np.concatenate([looked_up[name] for name in group.features], axis=1), group.mlp)
        )
    if schema.numeric:
        parts.append(mlp(p["dense"], batch.numeric.astype(np.float64), config.embedding.dense_mlp))
    start = 0
    for vector in schema.vectors:
        lift = p[f"vector_{vector.name}"]
        parts.append(batch.vectors[:, start : start + vector.width] @ lift["kernel"] + lift["bias"])
        start += vector.width
    return np.concatenate(parts, axis=1).reshape(rows, -1, d)


def wukong(p, tables, batch, config: WukongConfig, schema: DatasetSchema, statistics=None):
    x = embed(p.get("embedding_layer", {}), tables, batch, config, schema)
    for index in range(config.num_layers):
        x = layer(p[f"layer_{index}"], x, config, index)
    flat, statistics = x.reshape(len(x), -1), statistics or {}
    if config.separate_heads:
        tasks = range(len(schema.labels))
        return np.concatenate(
            [mlp(p[f"head_{t}"], flat, config.head, statistics.get(f"head_{t}")) for t in tasks], axis=1
        )
    return mlp(p["head"], flat, config.head, statistics.get("head"))
