"""DCNv2 (parallel) on Frappe by the BARS recipe (board Frappe_x1): Adam, L2 on whole tables, plateau schedule.

    python train.py --config configs/baselines/dcnv2_frappe.py --data.source FOLDER

Published: AUC .9845, LogLoss .1491 (BARS; the mean of 5 runs is .98382 ± .00043). The Wukong paper's .9774 / .2325 is,
by its parameter count, that of 4 cross layers alone at width 128.
"""

from wukong_jax.config.baselines import DCNv2Config
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="dcnv2_frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=DCNv2Config(
            width=10,
            structure="parallel",
            num_layers=4,
            mlp=MLPConfig((400, 400, 400), dropout=0.4, batch_norm=True),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.05),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
