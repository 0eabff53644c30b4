"""Wukong and DLRM on real data with nothing against overfitting: no dropout, no L2, a fixed number of epochs."""

import dataclasses

from configs.sweeps.planted_models import RIVALS
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.scaling.ladder import over_budgets
from wukong_jax.scaling.sweep import Points, points_of

RATE = 1e-3


def bases(recipe: str, schema: DatasetSchema, *, batch_size: int, epochs: int) -> dict[str, RunConfig]:
    """The models at about 1 training MFLOP/example or less; the best epoch by validation LogLoss counts."""
    wukong = RunConfig(
        name=f"{recipe}_unregularised_wukong",
        schema=schema,
        data=DataConfig(recipe=recipe),
        model=WukongConfig(
            width=16, num_layers=2, num_fmb=8, num_lcb=8, rank=8, fmb_mlp=MLPConfig((64,)), head=MLPConfig((64,))
        ),
        optimizer=OptimizerConfig(learning_rate=RATE, clip_norm=1.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=RATE),)),
        train=TrainConfig(batch_size=batch_size, epochs=epochs, monitor="logloss", log_every_steps=50),
    )
    dlrm = dataclasses.replace(wukong, name=f"{recipe}_unregularised_dlrm", model=RIVALS["DLRM"])
    return {"Wukong": wukong, "DLRM": dlrm}


def ladder(configs: dict[str, RunConfig], budgets: tuple[float, ...]) -> Points:
    """Every model at every budget in MFLOP, cheap runs first."""
    return over_budgets(points_of("ladder", configs), budgets)
