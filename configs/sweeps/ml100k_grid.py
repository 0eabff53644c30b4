"""HSTU on MovieLens-100K by depth and width: the runs to which the Performance Law is fitted, and those it predicts."""

import dataclasses

from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import HSTUConfig
from wukong_jax.scaling.sweep import Point
from wukong_jax.sequential.cost import backbone_cost
from wukong_jax.sequential.schema import SequenceSchema

LAYERS, WIDTHS = (1, 2, 4, 8, 16), (8, 16, 32, 64)
CORNERS = tuple((layers, width) for layers in (1, 16) for width in (8, 64))


def base() -> RunConfig:
    """All settings but depth, width and seed."""
    return RunConfig(
        name="ml100k_grid",
        schema=SequenceSchema(num_items=1682, times=True),
        data=DataConfig(recipe="movielens_100k"),
        model=HSTUConfig(max_length=50),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3, adam_b2=0.98),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=3e-3),)),
        train=TrainConfig(batch_size=64, epochs=120, eval_every_steps=42, eval_batch_size=512, monitor="ndcg@10"),
        sequences=SequencesConfig(cutoffs=(10, 50)),
    )


def half(larger: bool) -> tuple[Point, ...]:
    """The ten cells of fewer, or of more, forward FLOPs; two seeds at the corners of the grid."""
    cells = sorted(((layers, width) for layers in LAYERS for width in WIDTHS), key=lambda cell: _flops(*cell))
    chosen = cells[len(cells) // 2 :] if larger else cells[: len(cells) // 2]
    return tuple(
        Point("HSTU", "depth and width", {"num_layers": layers, "width": width}, _config(layers, width, seed))
        for layers, width in chosen
        for seed in range(2 if (layers, width) in CORNERS else 1)
    )


def _config(layers: int, width: int, seed: int) -> RunConfig:
    config = base()
    model = HSTUConfig(width, layers, max_length=50)
    return dataclasses.replace(config, model=model, train=dataclasses.replace(config.train, seed=seed))


def _flops(layers: int, width: int) -> int:
    model = _config(layers, width, 0).model
    assert isinstance(model, HSTUConfig)
    return backbone_cost(model, times=True).forward_flops
