"""The models Wukong is compared with, on the small sets: width, MLPs, dropout, rates, L2, and each model's own sizes.

    python -m wukong_jax tune --config configs/baselines/finalmlp_frappe.py --space configs/spaces/rivals_small.py

MLPs are 1 to 3 layers of 100 to 800, with BatchNorm where the BARS board has it; its settings are the first trial.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import optuna

from wukong_jax.config.baselines import (
    AFNConfig,
    AutoIntConfig,
    DCNv2Config,
    DeepFMConfig,
    DLRMConfig,
    DNNConfig,
    FinalMLPConfig,
    FinalNetConfig,
    MaskNetConfig,
    XDeepFMConfig,
)
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.tuning.schedules import ON_PLATEAUS, scheduled
from wukong_jax.tuning.space import Suggest, for_model

WIDTHS, LAYER_WIDTHS, HEADS = [10, 16, 32, 64, 128], [100, 200, 400, 800], [1, 5, 10, 20]
Settings = dict[str, Any]


class Part(NamedTuple):
    """A field of the model: how a trial draws it, and the parameters that say a value it has."""

    draw: Callable[[optuna.Trial], Any]
    parameters: Callable[[Any], Settings]


def mlp(name: str, *, batch_norm: bool = True) -> Part:
    """1 to 3 hidden layers of one width, with dropout."""

    def draw(trial: optuna.Trial) -> MLPConfig:
        widths = trial.suggest_int(f"{name}_layers", 1, 3) * (trial.suggest_categorical(f"{name}_width", LAYER_WIDTHS),)
        dropout = trial.suggest_float(f"{name}_dropout", 0.0, 0.7, step=0.1)
        return MLPConfig(widths, dropout=dropout, batch_norm=batch_norm)

    def parameters(value: MLPConfig) -> Settings:
        width = min(LAYER_WIDTHS, key=lambda width: abs(width - value.widths[0]))
        return {
            f"{name}_layers": min(len(value.widths), 3),
            f"{name}_width": width,
            f"{name}_dropout": round(value.dropout, 1),
        }

    return Part(draw, parameters)


def whole(name: str, low: int, high: int) -> Part:
    """A number from `low` to `high`."""
    return Part(lambda trial: trial.suggest_int(name, low, high), lambda value: {name: min(max(value, low), high)})


def choice(name: str, options: list[Any]) -> Part:
    """One of some values; a list stands for a tuple of equal layers."""
    return Part(lambda trial: trial.suggest_categorical(name, options), lambda value: {name: value})


def layers(name: str, high: int, options: list[int]) -> Part:
    """1 to `high` layers of one size."""

    def draw(trial: optuna.Trial) -> tuple[int, ...]:
        return trial.suggest_int(f"{name}_layers", 1, high) * (trial.suggest_categorical(f"{name}_size", options),)

    def parameters(value: tuple[int, ...]) -> Settings:
        size = min(options, key=lambda size: abs(size - value[0]))
        return {f"{name}_layers": min(len(value), high), f"{name}_size": size}

    return Part(draw, parameters)


PARTS: dict[type, dict[str, Part]] = {
    DNNConfig: {"mlp": mlp("mlp")},
    DeepFMConfig: {"mlp": mlp("mlp")},
    DLRMConfig: {"interaction": choice("interaction", ["dot", "concat"]), "top_mlp": mlp("top")},
    DCNv2Config: {"num_layers": whole("cross_layers", 1, 6), "mlp": mlp("mlp")},
    FinalMLPConfig: {
        "mlp1": mlp("mlp1"),
        "mlp2": mlp("mlp2"),
        "num_heads": choice("heads", HEADS),
    },
    FinalNetConfig: {"block1": mlp("block1"), "block2": mlp("block2")},
    AutoIntConfig: {
        "num_layers": whole("attention_layers", 1, 7),
        "attention_width": choice("attention_width", [32, 64, 128, 256]),
        "layer_norm": choice("layer_norm", [False, True]),
        "dnn": mlp("dnn"),
    },
    XDeepFMConfig: {"cin": layers("cin", 3, [16, 32, 64]), "dnn": mlp("dnn")},
    MaskNetConfig: {
        "blocks": layers("blocks", 5, LAYER_WIDTHS),
        "mask_ratio": choice("mask_ratio", [1.0, 2.0, 4.0]),
        "dropout": Part(
            lambda trial: trial.suggest_float("block_dropout", 0.0, 0.7, step=0.1),
            lambda value: {"block_dropout": round(value, 1)},
        ),
    },
    AFNConfig: {
        "log_neurons": choice("log_neurons", [500, 800, 1000, 1500]),
        "mlp": mlp("afn", batch_norm=False),
        "dnn": mlp("dnn", batch_norm=False),
    },
}


def rival(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """The model's own sizes, its width, the learning rates and the L2 of the tables."""
    own = {field: part.draw(trial) for field, part in PARTS[type(config.model)].items()}
    model: Any = config.model
    model = dataclasses.replace(model, **own, width=trial.suggest_categorical("width", WIDTHS))
    rate = trial.suggest_float("learning_rate", 3e-4, 3e-3, log=True)
    l2 = trial.suggest_float("table_l2", 1e-3, 0.3, log=True)
    rules = tuple(dataclasses.replace(rule, learning_rate=rate, l2=l2) for rule in config.tables.rules)
    return dataclasses.replace(
        config,
        model=model,
        optimizer=scheduled(trial, dataclasses.replace(config.optimizer, learning_rate=rate)),
        tables=dataclasses.replace(config.tables, rules=rules),
    )


SPACES: dict[type, Suggest] = dict.fromkeys(PARTS, rival)


def suggest(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """The config of one trial."""
    return for_model(SPACES, config)(trial, config)


def starts(config: RunConfig) -> list[Settings]:
    """The settings that the config has, as near as the space comes."""
    model: Any = config.model
    found: Settings = {}
    for field, part in PARTS.get(type(model), {}).items():
        found |= part.parameters(getattr(model, field))
    rule = config.tables.rules[0]
    near = {
        "width": min(WIDTHS, key=lambda width: abs(width - model.width)),
        "learning_rate": min(max(config.optimizer.learning_rate, 3e-4), 3e-3),
        "table_l2": min(max(rule.l2, 1e-3), 0.3),
        "schedule": ON_PLATEAUS,
    }
    return [found | near] if found else []
