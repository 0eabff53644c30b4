"""MaskNet on Frappe by the BARS recipe (board Frappe_x1): Adam, L2 on whole tables, plateau schedule.

    python train.py --config configs/baselines/masknet_frappe.py --data.source FOLDER

Published: AUC .9837, LogLoss .1696 (BARS), whose settings these are; .9816 / .1701 in the Wukong paper, at width 128
and, by its parameter count, with blocks of 100.
"""

from wukong_jax.config.baselines import MaskNetConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="masknet_frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=MaskNetConfig(
            width=10,
            structure="parallel",
            blocks=(50, 50, 50),
            mask_ratio=2.0,
            embedding_norm=False,
            dropout=0.1,
            mlp=MLPConfig((400, 400, 400), dropout=0.1),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.1),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
