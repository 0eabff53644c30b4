"""A plain MLP on Frappe by the BARS recipe (board Frappe_x1): Adam, L2 on whole tables, plateau schedule.

    python train.py --config configs/baselines/dnn_frappe.py --data.source FOLDER

Published: AUC .9833, LogLoss .1622 (BARS; the mean of its runs is .98405).
"""

from wukong_jax.config.baselines import DNNConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="dnn_frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=DNNConfig(
            width=10,
            mlp=MLPConfig((400, 400, 400), dropout=0.2, batch_norm=True),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.05),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
