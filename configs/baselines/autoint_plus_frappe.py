"""AutoInt+ on Frappe by the BARS recipe (board Frappe_x1): Adam, L2 on whole tables, plateau schedule.

    python train.py --config configs/baselines/autoint_plus_frappe.py --data.source FOLDER

Published: AUC .9848, LogLoss .1490 (BARS), whose settings these are. The Wukong paper's .9806 / .1754 belongs, by its
parameter count, to AutoInt without an MLP.
"""

from wukong_jax.config.baselines import AutoIntConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="autoint_plus_frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=AutoIntConfig(
            width=10,
            num_layers=5,
            attention_width=128,
            num_heads=4,
            scale=True,
            layer_norm=True,
            dropout=0.1,
            dnn=MLPConfig((400, 400, 400), dropout=0.1, batch_norm=True),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.1),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
