"""AFN+ on Frappe by the BARS recipe (board Frappe_x1): Adam, L2 on whole tables, plateau schedule.

    python train.py --config configs/baselines/afn_plus_frappe.py --data.source FOLDER

Published: AUC .9826, LogLoss .2139 (BARS), whose settings these are, the best of five runs of mean AUC .9802 ± .0014;
.9812 / .2340 in the Wukong paper, by its parameter count at width 32.
"""

from wukong_jax.config.baselines import AFNConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.frappe import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="afn_plus_frappe",
        schema=SCHEMA,
        data=DataConfig(recipe="frappe"),
        model=AFNConfig(
            width=10,
            log_neurons=1000,
            mlp=MLPConfig((400,), dropout=0.4),
            dnn=MLPConfig((400, 400, 400), dropout=0.2),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.001),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-6)),
    )
