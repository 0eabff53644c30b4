"""The models of the sweeps on planted data, sized for a budget, each with its own learning rate.

The rate is tuned for every model at 1 training MFLOP/example (`planted_rates.py`) and carried to C MFLOP by the rule
rate(C) = rate(1) C^-1/4 for C > 1, and rate(1) below.
"""

import dataclasses

from configs.planted import get_config as wukong
from wukong_jax.config.baselines import DCNv2Config, DLRMConfig, FinalMLPConfig, MaskNetConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import ModelConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError
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

RATES = {"Wukong": 4e-3}
"""At 1 MFLOP; those of the rivals are not known until `planted_rates.py` has run to its end."""


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


def with_carried_rate(series: str, config: RunConfig, mflop: float) -> RunConfig:
    """The config with the model's rate at 1 MFLOP, carried to its size; raises `ConfigError` where it is not known."""
    if series not in RATES:
        raise ConfigError(
            f"configs/sweeps/planted_models.py: RATES has no learning rate for {series}; take the best one from the "
            "records of configs/sweeps/planted_rates.py"
        )
    return with_rate(config, RATES[series] * max(mflop, 1.0) ** -0.25)
