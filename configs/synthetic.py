"""Wukong on made data whose best possible LogLoss and AUC are known: planted interactions of orders 1 to 3.

python train.py --config configs/synthetic.py
"""

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.synthetic import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="synthetic",
        schema=SCHEMA,
        data=DataConfig(recipe="synthetic"),
        model=WukongConfig(width=16, num_layers=2, fmb_mlp=MLPConfig((64,)), head=MLPConfig((64,))),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        tables=TablesConfig((TableRule(name="adam", learning_rate=1e-3),)),
        train=TrainConfig(batch_size=1024, epochs=20, plateau=PlateauConfig()),
    )
