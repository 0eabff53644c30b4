"""A cell as a config of this package, and what it costs."""

from typing import Any, NamedTuple

from benchmarks.side_by_side.cells import (
    DENSE_RATE,
    INIT_STDDEV,
    INITIAL_ACCUMULATOR,
    NUMERIC,
    TABLE_RATE,
    Cell,
    field_sizes,
)
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, NumericFeature


class CellCost(NamedTuple):
    """FLOPs of an example in this pass, dense parameters, bytes of activations of an example, examples at a time."""

    flops: int
    dense_parameters: int
    activation_bytes: int
    micro_batch: int


def make_config(cell: Cell) -> RunConfig:
    """The run that `train.py` would make of the cell; everything else is the default."""
    shape = cell.shape
    sizes = field_sizes(cell.rows, shape.fields)
    dtype: Any = cell.dtype
    table_optimizer: Any = cell.optimizer
    rule = TableRule(name=table_optimizer, learning_rate=TABLE_RATE, initial_accumulator=INITIAL_ACCUMULATOR)
    return RunConfig(
        "speed",
        DatasetSchema(
            categorical=tuple(CategoricalFeature(f"C{field}", size) for field, size in enumerate(sizes)),
            numeric=tuple(NumericFeature(f"I{feature}") for feature in range(NUMERIC)),
        ),
        DataConfig(store="-"),
        WukongConfig(
            width=shape.width,
            num_layers=shape.layers,
            num_fmb=shape.blocks,
            num_lcb=shape.blocks,
            rank=shape.rank,
            fmb_mlp=MLPConfig(shape.mlp),
            head=MLPConfig(shape.mlp),
            embedding=EmbeddingConfig(dense_embeddings=NUMERIC, init_stddev=INIT_STDDEV),
            dtype=dtype,
        ),
        optimizer=OptimizerConfig(learning_rate=DENSE_RATE),
        tables=TablesConfig((rule,)),
        train=TrainConfig(batch_size=cell.batch),
    )


def cell_cost(cell: Cell) -> CellCost:
    """Cost from the traced program."""
    import jax

    from wukong_jax.scaling.flops import describe_cost
    from wukong_jax.training.micro_batch import micro_batch_size

    config = make_config(cell)
    cost = describe_cost(config)
    flops = cost.training_flops if cell.mode == "train" else sum(cost.forward_flops.values())
    micro_batch = micro_batch_size(config, jax.default_backend(), cell.batch)
    return CellCost(flops, cost.dense_total, cost.activation_bytes, micro_batch)
