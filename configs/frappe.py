"""Wukong on Frappe (10 fields, app usage in context) by the BARS recipe: Adam, L2 on whole tables, plateau schedule.

    python train.py --config configs/frappe.py --data.source FOLDER

10 to 13 epochs, 7 to 9 minutes on 2 cores. Test AUC .9865 ± .0003, LogLoss .158 ± .010 (3 seeds, train negatives
rebuilt); published for Wukong: .9868 / .1757.
"""

from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=WukongConfig(
            width=64,
            num_layers=2,
            num_fmb=16,
            num_lcb=16,
            rank=8,
            fmb_mlp=MLPConfig((256, 256), dropout=0.2),
            head=MLPConfig((400, 400), dropout=0.2, batch_norm=True),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.05),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
