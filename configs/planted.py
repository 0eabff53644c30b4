"""Wukong on made data for scaling laws: planted interactions of orders 2 to 8, known best possible LogLoss.

    python train.py --config configs/planted.py

One pass over 512,000 examples, 2,000 steps of 256. Sizes for a budget: `wukong_jax.scaling.ladder.rung`; all of them:
`python -m wukong_jax sweep --sweep configs/sweeps/planted.py`, once the models' rates are known there.
"""

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.planted import SCHEMA

SCHEDULE = ScheduleConfig(decay="cosine", warmup_fraction=0.1)


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="planted_wukong",
        schema=SCHEMA,
        data=DataConfig(recipe="planted"),
        model=WukongConfig(
            width=16, num_layers=2, num_fmb=8, num_lcb=8, rank=8, fmb_mlp=MLPConfig((64,)), head=MLPConfig((64,))
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule=SCHEDULE, clip_norm=1.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=2e-3),)),
        train=TrainConfig(batch_size=256, epochs=1, max_steps=2_000, eval_every_steps=1_000),
    )
