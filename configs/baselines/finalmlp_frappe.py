"""FinalMLP on Frappe by the BARS recipe (board Frappe_x1): Adam, L2 on whole tables, plateau schedule.

    python train.py --config configs/baselines/finalmlp_frappe.py --data.source FOLDER

Published: AUC .9861, LogLoss .1484 (BARS); .9868 / .1280 in the Wukong paper, at width 128. The gates read user and
item, from tables of their own.
"""

from wukong_jax.config.baselines import FinalMLPConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="finalmlp_frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=FinalMLPConfig(
            width=10,
            mlp1=MLPConfig((400,), dropout=0.4, batch_norm=True),
            mlp2=MLPConfig((100,), dropout=0.4, batch_norm=True),
            num_heads=5,
            gates=MLPConfig((400,)),
            context1=("user",),
            context2=("item",),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.05),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
