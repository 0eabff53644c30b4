"""The models Wukong is compared with, on the small sets: width, MLPs, dropout, rates, L2, and each model's own sizes.

    python -m wukong_jax tune --config configs/baselines/finalmlp_frappe.py --space configs/spaces/rivals_small.py

MLPs are 1 to 3 layers of 100 to 800, with BatchNorm where the config has it. The first trial has the config's own
settings (the nearest in the space). Trials of other schedules can be compared after the
longest cosine only, so prune with `--prune-after 6` or more.
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
    WideDeepConfig,
    XDeepFMConfig,
)
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.tuning.schedules import ON_PLATEAUS, scheduled
from wukong_jax.tuning.space import Suggest, for_model

WIDTHS, HEADS = [10, 16, 32, 64, 128], [1, 5, 10, 20]
LAYER_WIDTHS = [100, 200, 400, 500, 800]
Settings = dict[str, Any]


class Part(NamedTuple):
    """A field of the model: how a trial draws it, given the config's value, and the parameters that say that value."""

    draw: Callable[[optuna.Trial, Any], Any]
    parameters: Callable[[Any], Settings]


def mlp(name: str) -> Part:
    """1 to 3 hidden layers of one width, with dropout."""

    def draw(trial: optuna.Trial, own: MLPConfig) -> MLPConfig:
        widths = trial.suggest_int(f"{name}_layers", 1, 3) * (trial.suggest_categorical(f"{name}_width", LAYER_WIDTHS),)
        dropout = trial.suggest_float(f"{name}_dropout", 0.0, 0.7, step=0.1)
        return dataclasses.replace(own, widths=widths, dropout=dropout)

    def parameters(value: MLPConfig) -> Settings:
        return {
            f"{name}_layers": min(len(value.widths), 3),
            f"{name}_width": nearest(value.widths[0], LAYER_WIDTHS),
            f"{name}_dropout": round(value.dropout, 1),
        }

    return Part(draw, parameters)


def whole(name: str, low: int, high: int) -> Part:
    """A number from `low` to `high`."""
    return Part(lambda trial, _: trial.suggest_int(name, low, high), lambda value: {name: min(max(value, low), high)})


def choice(name: str, options: list[Any]) -> Part:
    """One of some values."""
    return Part(lambda trial, _: trial.suggest_categorical(name, options), lambda value: {name: value})


def hidden(name: str) -> Part:
    """One hidden layer, all else as in the config."""

    def draw(trial: optuna.Trial, own: MLPConfig) -> MLPConfig:
        return dataclasses.replace(own, widths=(trial.suggest_categorical(f"{name}_width", LAYER_WIDTHS),))

    return Part(draw, lambda value: {f"{name}_width": nearest(value.widths[0], LAYER_WIDTHS)})


def nearest(value: int, options: list[int]) -> int:
    """The option next to a value."""
    return min(options, key=lambda option: abs(option - value))


def layers(name: str, high: int, options: list[int]) -> Part:
    """1 to `high` layers of one size."""

    def draw(trial: optuna.Trial, _: tuple[int, ...]) -> tuple[int, ...]:
        return trial.suggest_int(f"{name}_layers", 1, high) * (trial.suggest_categorical(f"{name}_size", options),)

    def parameters(value: tuple[int, ...]) -> Settings:
        return {f"{name}_layers": min(len(value), high), f"{name}_size": nearest(value[0], options)}

    return Part(draw, parameters)


PARTS: dict[type, dict[str, Part]] = {
    DNNConfig: {"mlp": mlp("mlp")},
    WideDeepConfig: {"mlp": mlp("mlp")},
    DeepFMConfig: {"mlp": mlp("mlp")},
    DLRMConfig: {"interaction": choice("interaction", ["dot", "concat"]), "top_mlp": mlp("top")},
    DCNv2Config: {"num_layers": whole("cross_layers", 1, 6), "mlp": mlp("mlp")},
    FinalMLPConfig: {
        "mlp1": mlp("mlp1"),
        "mlp2": mlp("mlp2"),
        "num_heads": choice("heads", HEADS),
        "gates": hidden("gates"),
    },
    FinalNetConfig: {"block1": mlp("block1"), "block2": mlp("block2")},
    AutoIntConfig: {
        "num_layers": whole("attention_layers", 1, 7),
        "attention_width": choice("attention_width", [32, 64, 128, 256]),
        "num_heads": choice("attention_heads", [1, 2, 4, 8]),
        "layer_norm": choice("layer_norm", [False, True]),
        "dnn": mlp("dnn"),
    },
    XDeepFMConfig: {"cin": layers("cin", 3, [16, 32, 64]), "dnn": mlp("dnn")},
    MaskNetConfig: {
        "blocks": layers("blocks", 5, [50, *LAYER_WIDTHS]),
        "mask_ratio": choice("mask_ratio", [1.0, 2.0, 4.0]),
        "dropout": Part(
            lambda trial, _: trial.suggest_float("block_dropout", 0.0, 0.7, step=0.1),
            lambda value: {"block_dropout": round(value, 1)},
        ),
    },
    AFNConfig: {
        "log_neurons": choice("log_neurons", [500, 800, 1000, 1500]),
        "mlp": mlp("afn"),
        "dnn": mlp("dnn"),
    },
}


def rival(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """The model's own sizes, its width, the learning rates of dense parameters and tables, the tables' L2."""
    model: Any = config.model
    own = {field: part.draw(trial, getattr(model, field)) for field, part in PARTS[type(model)].items()}
    model = dataclasses.replace(model, **own, width=trial.suggest_categorical("width", WIDTHS))
    rate = trial.suggest_float("learning_rate", 3e-4, 3e-3, log=True)
    table_rate = trial.suggest_float("table_learning_rate", 3e-4, 3e-3, log=True)
    l2 = trial.suggest_float("table_l2", 1e-3, 0.3, log=True)
    rules = tuple(dataclasses.replace(rule, learning_rate=table_rate, l2=l2) for rule in config.tables.rules)
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
        "width": nearest(model.width, WIDTHS),
        "learning_rate": min(max(config.optimizer.learning_rate, 3e-4), 3e-3),
        "table_learning_rate": min(max(rule.learning_rate, 3e-4), 3e-3),
        "table_l2": min(max(rule.l2, 1e-3), 0.3),
        "schedule": ON_PLATEAUS,
    }
    return [found | near] if found else []
