"""Wide & Deep on Frappe with the settings of BARS' DeepFM (board Frappe_x1): Adam, L2 on whole tables, plateaus.

    python train.py --config configs/baselines/wide_deep_frappe.py --data.source FOLDER

Published: AUC .9841, LogLoss .1490 (BARS, its own settings).
"""

from wukong_jax.config.baselines import WideDeepConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="wide_deep_frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=WideDeepConfig(
            width=10,
            mlp=MLPConfig((400, 400, 400), dropout=0.2, batch_norm=True),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.05),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
