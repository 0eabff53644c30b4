"""The models of the sweeps on planted data, sized for a budget, each with its own learning rate.

A rate is the best by validation of those tried (`planted_rates.py`) at the largest tried budget that is not larger, so
for 3 training MFLOP/example at 1 and for 100 at 30.
"""

import dataclasses

from configs.planted import get_config as wukong
from wukong_jax.config.baselines import DCNv2Config, DLRMConfig, FinalMLPConfig, MaskNetConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import ModelConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.scaling.ladder import rung
from wukong_jax.scaling.sweep import with_fields

MFLOP = 1e6
WIDTH = 16
RIVALS: dict[str, ModelConfig] = {
    "DLRM": DLRMConfig(width=WIDTH, top_mlp=MLPConfig((64, 64))),
    "DCNv2": DCNv2Config(width=WIDTH, structure="parallel", num_layers=3, mlp=MLPConfig((64, 64))),
    "MaskNet": MaskNetConfig(width=WIDTH, blocks=(64, 64, 64)),
    "FinalMLP": FinalMLPConfig(
        width=WIDTH, mlp1=MLPConfig((64, 64)), mlp2=MLPConfig((64,)), num_heads=2, gates=MLPConfig((64,)),
        context1=("C1",), context2=("C2",),
    ),
}  # fmt: skip

RATES = {
    "Wukong": {0.3: 4e-3, 1: 4e-3, 10: 4e-3, 30: 4e-3},
    "DLRM": {0.3: 32e-3, 1: 16e-3, 10: 16e-3, 30: 4e-3},
    "DCNv2": {0.3: 64e-3, 1: 16e-3, 10: 16e-3, 30: 16e-3},
    "MaskNet": {0.3: 2e-3, 1: 4e-3, 10: 1e-3, 30: 1e-3},
    "FinalMLP": {0.3: 4e-3, 1: 2e-3, 10: 1e-3, 30: 1e-3},
}
"""By MFLOP."""


def bases() -> dict[str, RunConfig]:
    """One config a model; all but model and name are those of `configs/planted.py`."""
    rivals = {
        series: dataclasses.replace(wukong(), name=f"planted_{series.lower()}", model=model)
        for series, model in RIVALS.items()
    }
    return {"Wukong": wukong()} | rivals


def with_rate(config: RunConfig, rate: float) -> RunConfig:
    """The config with this learning rate for dense parameters and tables."""
    return with_fields(config, {"optimizer.learning_rate": rate, "tables.rules.0.learning_rate": rate})


def sized(config: RunConfig, mflop: float) -> RunConfig:
    """The rung of the model's ladder for so many training MFLOP/example."""
    return rung(config, mflop * MFLOP)


def with_tuned_rate(series: str, config: RunConfig, mflop: float) -> RunConfig:
    """The config with the model's rate at its budget."""
    rates = RATES[series]
    return with_rate(config, rates[max(budget for budget in rates if budget <= mflop)])
