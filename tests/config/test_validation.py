import math
import re

import pytest

from wukong_jax.config.layers import EmbeddingConfig, FeatureGroup, ImportantFeature, MLPConfig
from wukong_jax.config.mesh import MeshConfig
from wukong_jax.config.models import (
    AttentiveConfig,
    FactorizationMachineConfig,
    LayerConfig,
    LayerOverride,
    LogisticRegressionConfig,
    WukongConfig,
)
from wukong_jax.config.optimizer import OptimizerConfig, ParameterRule, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.config.sequences import TrainingPart
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.errors import ConfigError

SCHEMA = DatasetSchema((CategoricalFeature("a", 3),))
DATA = DataConfig(store="store")

BAD = [
    *[
        (WukongConfig, {name: value}, name, value)
        for name in ("num_fmb", "num_lcb", "rank", "width", "num_layers")
        for value in (0, -1)
    ],
    *[(LayerOverride, {name: value}, name, value) for name in ("num_fmb", "num_lcb", "rank") for value in (0, -2)],
    (WukongConfig, {"num_layers": 3, "layers": (LayerOverride(),)}, "layers: received 1 entries", "num_layers=3"),
    (MLPConfig, {"dropout": 1.0}, "dropout", 1.0),
    (MLPConfig, {"dropout": -0.1}, "dropout", -0.1),
    (MLPConfig, {"dropout": float("nan")}, "dropout", "nan"),
    (MLPConfig, {"widths": (8, 0)}, "widths", 0),
    (AttentiveConfig, {"compressed": 0}, "attentive.compressed", 0),
    (ImportantFeature, {"feature": "a", "num_embeddings": 0}, "'a': num_embeddings", 0),
    (FeatureGroup, {"features": (), "width": 3}, "feature group", "no features"),
    (FeatureGroup, {"features": ("a", "a"), "width": 3}, "feature group: features", "['a'] named more than once"),
    (FeatureGroup, {"features": ("a",), "width": 0}, "feature group: width", 0),
    (FeatureGroup, {"features": ("a",), "width": 3, "num_embeddings": 0}, "num_embeddings", 0),
    (EmbeddingConfig, {"dense_embeddings": 0}, "dense_embeddings", 0),
    (EmbeddingConfig, {"vector_embeddings": 0}, "vector_embeddings", 0),
    (EmbeddingConfig, {"init_stddev": 0.0}, "init_stddev", 0.0),
    (
        EmbeddingConfig,
        {"important": (ImportantFeature("a", 2),), "groups": (FeatureGroup(("a",), 3),)},
        "important features and groups",
        "['a']",
    ),
    (LogisticRegressionConfig, {"init_stddev": -1.0}, "model.init_stddev", -1.0),
    (FactorizationMachineConfig, {"width": 0}, "model.width", 0),
    (FactorizationMachineConfig, {"init_stddev": 0.0}, "model.init_stddev", 0.0),
    (ScheduleConfig, {"warmup_steps": -1}, "schedule.warmup_steps", -1),
    (ScheduleConfig, {"warmup_fraction": 1.0}, "schedule.warmup_fraction", 1.0),
    (ScheduleConfig, {"warmup_steps": 1, "warmup_fraction": 0.1}, "warmup_steps and warmup_fraction", "keep one"),
    (ScheduleConfig, {"decay": "cosine", "epochs": 0}, "schedule.epochs", 0),
    (ScheduleConfig, {"epochs": 3}, "schedule.epochs: received 3", "decay='cosine'"),
    (TrainingPart, {"users": 0.0}, "sequences.training.users", 0.0),
    (TrainingPart, {"users": math.nan}, "sequences.training.users", math.nan),
    (TrainingPart, {"last": 1}, "sequences.training.last", 1),
    (TrainingPart, {"copies": 0}, "sequences.training.copies", 0),
    (OptimizerConfig, {"adam_b2": 1.0}, "optimizer.adam_b2", 1.0),
    (ParameterRule, {"pattern": "("}, "optimizer.rules", "'('"),
    (ParameterRule, {"pattern": ".*", "l2": -0.5}, "optimizer.rules: l2", -0.5),
    (ParameterRule, {"pattern": ".*", "learning_rate_scale": -1.0}, "learning_rate_scale", -1.0),
    (OptimizerConfig, {"learning_rate": 0.0}, "optimizer.learning_rate", 0.0),
    (OptimizerConfig, {"clip_norm": 0.0}, "optimizer.clip_norm", 0.0),
    (OptimizerConfig, {"weight_decay": -0.1, "name": "adamw"}, "optimizer.weight_decay", -0.1),
    (OptimizerConfig, {"weight_decay": 0.1}, "optimizer.weight_decay", "name='adam'"),
    (TableRule, {"pattern": "["}, "tables.rules", "'['"),
    (TableRule, {"learning_rate": -1.0}, "tables.rules: learning_rate", -1.0),
    (TableRule, {"l2": -1.0}, "tables.rules: l2", -1.0),
    (TableRule, {"initial_accumulator": -1.0}, "initial_accumulator", -1.0),
    (TableRule, {"max_rows": 0}, "max_rows", 0),
    (TableRule, {"update": "dense"}, "rowwise_adagrad", "update='row_sparse'"),
    (DataConfig, {}, "neither recipe nor store", "--data.store"),
    *[
        (PlateauConfig, {name: value}, f"train.plateau.{name}", value)
        for name, value in [("factor", 0.0), ("patience", 0)]
    ],
    *[
        (PlateauConfig, {name: value}, f"train.plateau.{name}", value)
        for name, value in [("factor", 1.5), ("min_scale", 1.5), ("stop_after", -1)]
    ],
    *[
        (TrainConfig, {name: 0}, f"train.{name}", 0)
        for name in ("batch_size", "epochs", "max_steps", "eval_every_steps")
    ],
    *[(TrainConfig, {name: -3}, f"train.{name}", -3) for name in ("eval_batch_size", "keep_last", "log_every_steps")],
    (TrainConfig, {"checkpoint_every_steps": 0}, "train.checkpoint_every_steps", 0),
    (TrainConfig, {"task_weights": (-1.0,)}, "train.task_weights", -1.0),
    (MeshConfig, {"data": 0}, "mesh.data", 0),
    (MeshConfig, {"model": -1}, "mesh.model", -1),
    (MeshConfig, {"data": 4, "dense": "fsdp"}, "mesh.dense: received 'fsdp'", "mesh.model=1"),
    (TrainConfig, {"seed": -1}, "train.seed", -1),
    (TrainConfig, {"seed": 2**32}, "train.seed", 2**32),
    (TrainConfig, {"task_weights": (0.0, 0.0)}, "train.task_weights", "only zeros"),
    (OptimizerConfig, {"learning_rate": float("inf")}, "optimizer.learning_rate", "inf"),
    (PlateauConfig, {"min_delta": -0.1}, "train.plateau.min_delta", -0.1),
    (WukongConfig, {"implementation": "mosaic_gpu", "fm": "full"}, "model.implementation", "model.fm 'full'"),
    (WukongConfig, {"implementation": "tpu", "fm": "attentive"}, "model.implementation", "model.fm 'attentive'"),
    (TrainConfig, {"micro_batch": 0}, "train.micro_batch", 0),
    (WukongConfig, {"use_fmb": False, "implementation": "tpu"}, "model.implementation", "model.use_fmb False"),
    (WukongConfig, {"fm": "full", "implementation": "cpu_kernel"}, "model.implementation", "model.fm 'full'"),
    (WukongConfig, {"use_fmb": False, "use_lcb": False, "residual": False}, "model", "nothing reaches the head"),
    (
        RunConfig,
        {"name": "a", "schema": SCHEMA, "data": DATA, "model": WukongConfig(), "mesh": MeshConfig(data=3)},
        "train.batch_size: received 1024",
        "the 3 devices of mesh 3 x 1",
    ),
    (
        RunConfig,
        {
            "name": "a",
            "schema": SCHEMA,
            "data": DATA,
            "model": WukongConfig(),
            "mesh": MeshConfig(data=2),
            "tables": TablesConfig(deduplicate="slot"),
        },
        "tables.deduplicate: received 'slot'",
        "a mesh of 2",
    ),
    (
        RunConfig,
        {
            "name": "a",
            "schema": SCHEMA,
            "data": DATA,
            "model": WukongConfig(),
            "train": TrainConfig(task_weights=(1.0, 2.0)),
        },
        "train.task_weights: received 2 weights",
        "['label']",
    ),
    (
        RunConfig,
        {"name": "a", "schema": DatasetSchema(), "data": DATA, "model": WukongConfig()},
        "schema",
        "no feature",
    ),
]


@pytest.mark.parametrize(("kind", "settings", "field", "received"), BAD)
def test_a_bad_value_is_refused_with_its_field_and_what_was_received(kind, settings, field, received):
    with pytest.raises(ConfigError, match=re.escape(field)) as caught:
        kind(**settings)
    assert str(received) in str(caught.value)


def test_a_layer_takes_the_models_settings_where_it_has_none():
    config = WukongConfig(num_layers=2, layers=(LayerOverride(num_fmb=3), LayerOverride(rank=2, fmb_mlp=MLPConfig())))
    assert config.layer(0) == LayerConfig(3, config.num_lcb, config.rank, config.fmb_mlp)
    assert config.layer(1) == LayerConfig(config.num_fmb, config.num_lcb, 2, MLPConfig())
    assert WukongConfig().layer(1) == LayerConfig(8, 8, 8, MLPConfig((64,)))
