"""Forward FLOPs of every model by formula: in microseconds what `describe_cost` finds in a traced program.

The convention is that of `flops.py`: matrix products alone, 2 FLOPs per multiply-add. n embeddings of width d,
D = n d, T tasks, V numeric and precomputed values. MLP(a, b, ..., c) is the sum of 2 x inputs x outputs.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

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
from wukong_jax.config.layers import EmbeddingConfig
from wukong_jax.config.models import FactorizationMachineConfig, LogisticRegressionConfig, ModelConfig, WukongConfig
from wukong_jax.config.sequential import BackboneConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.models.embedding_layer import count_embeddings
from wukong_jax.sequential.cost import backbone_cost
from wukong_jax.sequential.schema import TIMES


def forward_flops(model: ModelConfig, schema: DatasetSchema) -> int:
    """Forward FLOPs per example, the sum of `describe_cost(...).forward_flops`."""
    if isinstance(model, BackboneConfig):
        times = TIMES in [feature.name for feature in schema.multi_hot]
        return model.max_length * backbone_cost(model, times=times).forward_flops
    formula = FORMULAS[type(model)]
    if isinstance(model, LogisticRegressionConfig | FactorizationMachineConfig):
        return formula(model, schema, 0)
    n = count_embeddings(schema, model.embedding)
    return _embedding_layer(model.embedding, schema, model.width) + formula(model, schema, n)


def _mlp(inputs: int, widths: Iterable[int], *outputs: int) -> int:
    return sum(2 * left * right for left, right in itertools.pairwise((inputs, *widths, *outputs)))


def _embedding_layer(config: EmbeddingConfig, schema: DatasetSchema, d: int) -> int:
    """The lifts of groups, numeric values and precomputed vectors to width d."""
    flops = sum(
        _mlp(len(group.features) * group.width, group.mlp.widths, group.num_embeddings * d) for group in config.groups
    )
    if schema.numeric:
        flops += _mlp(len(schema.numeric), config.dense_mlp.widths, config.dense_embeddings * d)
    return flops + sum(_mlp(feature.width, (), config.vector_embeddings * d) for feature in schema.vectors)


def _linear(schema: DatasetSchema) -> int:
    """2 V T."""
    return 2 * (len(schema.numeric) + schema.vector_columns) * len(schema.labels)


def _wukong(config: WukongConfig, schema: DatasetSchema, n: int) -> int:
    """Each layer: FM 4 n k d (full: 2 n^2 d), MLP(n k, ..., n_F d), LCB 2 n n_L d, residual 2 n (n_F + n_L) d."""
    d, flops = config.width, 0
    for index in range(config.num_layers):
        layer = config.layer(index)
        k, outputs = layer.rank, layer.num_fmb + layer.num_lcb
        if config.use_fmb:
            flops += 2 * n * n * d if config.fm == "full" else 4 * n * k * d
            flops += _mlp(n * (n if config.fm == "full" else k), layer.fmb_mlp.widths, layer.num_fmb * d)
            if config.fm == "attentive":
                compressed = config.attentive.compressed or k
                flops += 2 * n * compressed * d + _mlp(compressed * d, config.attentive.mlp.widths, n * k)
        flops += 2 * n * layer.num_lcb * d * config.use_lcb
        flops += 2 * n * outputs * d * (config.residual and n != outputs)
        n = outputs
    tasks = len(schema.labels)
    if config.separate_heads:
        return flops + tasks * _mlp(n * d, config.head.widths, 1)
    return flops + _mlp(n * d, config.head.widths, tasks)


def _dlrm(config: DLRMConfig, schema: DatasetSchema, n: int) -> int:
    """dot: X X^T in full, 2 n^2 d, and MLP(lifted d + n (n - 1) / 2, ..., T); concat: MLP(D, ..., T)."""
    d, tasks = config.width, len(schema.labels)
    if config.interaction == "concat":
        return _mlp(n * d, config.top_mlp.widths, tasks)
    lifted = config.embedding.dense_embeddings * bool(schema.numeric)
    lifted += config.embedding.vector_embeddings * len(schema.vectors)
    return 2 * n * n * d + _mlp(lifted * d + n * (n - 1) // 2, config.top_mlp.widths, tasks)


def _dcnv2(config: DCNv2Config, schema: DatasetSchema, n: int) -> int:
    """A cross layer: 2 D^2; 4 D r; or for E experts 2 D E + E (4 D r + 2 r^2). Then the MLP and the logits."""
    size, tasks = n * config.width, len(schema.labels)
    layer = 2 * size * size
    if config.rank:
        layer = 4 * size * config.rank
    if config.rank and config.num_experts:
        layer = config.num_experts * (2 * size + layer + 2 * config.rank**2)
    flops, widths = config.num_layers * layer, config.mlp.widths
    if config.structure == "cross_only":
        return flops + 2 * size * tasks
    return flops + _mlp(size, widths, tasks) + 2 * size * tasks * (config.structure == "parallel")


def _finalmlp(config: FinalMLPConfig, schema: DatasetSchema, n: int) -> int:
    """Gates MLP(context, ..., D), streams MLP(D, ..., w_s), fusion 2 T (w_1 + w_2 + w_1 w_2 / heads + w_2)."""
    size, tasks = n * config.width, len(schema.labels)
    flops = 0
    if config.gates is not None:
        for context in (config.context1, config.context2):  # a learned context counts for every example
            flops += _mlp(max(1, len(context)) * config.width, config.gates.widths, size)
    first, second = config.mlp1.widths[-1], config.mlp2.widths[-1]
    fusion = 2 * tasks * (first + second + first * second // config.num_heads + second)
    return flops + _mlp(size, config.mlp1.widths) + _mlp(size, config.mlp2.widths) + fusion


def _autoint(config: AutoIntConfig, schema: DatasetSchema, n: int) -> int:
    """A layer of width a: queries, keys, values and (d != a) residual 2 n d a each, scores and sums 2 n^2 a each."""
    d, a, tasks = config.width, config.attention_width, len(schema.labels)
    flops = 2 * n * a * tasks + _linear(schema) * config.linear
    for _ in range(config.num_layers):
        flops += (3 + (d != a)) * 2 * n * d * a + 4 * n * n * a
        d = a
    return flops + (0 if config.dnn is None else _mlp(n * config.width, config.dnn.widths, tasks))


def _afn(config: AFNConfig, schema: DatasetSchema, n: int) -> int:
    """K neurons: 2 n K d and MLP(K d, ..., T); AFN+: MLP(D, ..., T), and another embedding layer unless shared."""
    d, neurons, tasks = config.width, config.log_neurons, len(schema.labels)
    flops = 2 * n * neurons * d + _mlp(neurons * d, config.mlp.widths, tasks)
    if config.dnn is None:
        return flops
    second = 0 if config.shared_tables else _embedding_layer(config.embedding, schema, d)
    return flops + second + _mlp(n * d, config.dnn.widths, tasks)


def _xdeepfm(config: XDeepFMConfig, schema: DatasetSchema, n: int) -> int:
    """A CIN layer from m to h maps: 2 n m d h; then the logits, the MLP and the linear term."""
    d, tasks = config.width, len(schema.labels)
    flops = sum(2 * n * d * before * maps for before, maps in itertools.pairwise((n, *config.cin)))
    flops += 2 * sum(config.cin) * tasks + _linear(schema) * config.linear
    return flops + (0 if config.dnn is None else _mlp(n * d, config.dnn.widths, tasks))


def _masknet(config: MaskNetConfig, schema: DatasetSchema, n: int) -> int:
    """A block of width w on v values, mask of h = floor(ratio v) hidden values: MLP(D, h, v) + 2 v w."""
    size, tasks = n * config.width, len(schema.labels)
    flops, v = 0, size
    for width in config.blocks:
        flops += _mlp(size, (int(v * config.mask_ratio),), v) + 2 * v * width
        v = width if config.structure == "serial" else size
    if config.structure == "serial":
        return flops + 2 * config.blocks[-1] * tasks
    return flops + _mlp(sum(config.blocks), config.mlp.widths, tasks)


def _finalnet(config: FinalNetConfig, schema: DatasetSchema, n: int) -> int:
    """Gates 2 n^2 d; block one reads the embeddings twice with gates; a sum layer makes twice its width."""
    size, tasks = n * config.width, len(schema.labels)
    flops, doubled = 2 * n * n * config.width * config.gates, 1 if config.residual == "concat" else 2
    for block, inputs in ((config.block1, size * (1 + config.gates)), (config.block2, size)):
        if block is not None:
            flops += doubled * _mlp(inputs, block.widths) + 2 * block.widths[-1] * tasks
    return flops


def _on_flat(inputs: Callable[[Any], Iterable[int]]) -> Callable[[Any, DatasetSchema, int], int]:
    def formula(config: Any, schema: DatasetSchema, n: int) -> int:
        return _mlp(n * config.width, inputs(config), len(schema.labels))

    return formula


def _deepfm(config: DeepFMConfig | WideDeepConfig, schema: DatasetSchema, n: int) -> int:
    """MLP(D, ..., T) and the linear term; the pairwise products are elementwise."""
    return _mlp(n * config.width, config.mlp.widths, len(schema.labels)) + _linear(schema)


FORMULAS: dict[type, Callable[[Any, DatasetSchema, int], int]] = {
    WukongConfig: _wukong,
    LogisticRegressionConfig: lambda _, schema, __: _linear(schema),
    FactorizationMachineConfig: lambda _, schema, __: _linear(schema),
    DNNConfig: _on_flat(lambda config: config.mlp.widths),
    WideDeepConfig: _deepfm,
    DeepFMConfig: _deepfm,
    DLRMConfig: _dlrm,
    DCNv2Config: _dcnv2,
    FinalMLPConfig: _finalmlp,
    AutoIntConfig: _autoint,
    AFNConfig: _afn,
    XDeepFMConfig: _xdeepfm,
    MaskNetConfig: _masknet,
    FinalNetConfig: _finalnet,
}
