"""Wukong on Criteo Kaggle 2014: one pass, row-wise Adagrad on the tables, Adam elsewhere (the paper's recipe, small).

    python train.py --config configs/criteo_kaggle.py --data.source /data/criteo/train.txt

Runs on the whole file (45.8M rows) as on any sample of it. No score is published for Wukong on this data.
"""

from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.criteo_kaggle import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="criteo_kaggle",
        schema=SCHEMA,
        data=DataConfig(recipe="criteo_kaggle"),
        model=WukongConfig(
            width=16,
            num_layers=3,
            num_fmb=16,
            num_lcb=16,
            rank=16,
            fmb_mlp=MLPConfig((256, 256)),
            head=MLPConfig((256, 256)),
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule=ScheduleConfig(warmup_fraction=0.1)),
        tables=TablesConfig((TableRule(name="rowwise_adagrad", learning_rate=0.02),)),
        train=TrainConfig(batch_size=2048, epochs=1, progressive=True),
    )
