"""FinalNet of two blocks on Frappe by the BARS recipe (board Frappe_x1): Adam, L2 on whole tables, plateau schedule.

    python train.py --config configs/baselines/finalnet_frappe.py --data.source FOLDER

Published: AUC .9857, LogLoss .1311 (BARS), whose settings these are, with the self-distillation between the blocks.
"""

from wukong_jax.config.baselines import FinalNetConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="finalnet_frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=FinalNetConfig(
            width=10,
            block1=MLPConfig((400, 400), "relu", dropout=0.1, batch_norm=True),
            block2=MLPConfig((400,), "relu", dropout=0.1, batch_norm=True),
            gates=True,
            self_distillation=True,
            residual="concat",
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.1),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
