"""The paper's grids for Criteo Terabyte (section 6.2, appendix A).

    python -m wukong_jax tune --config configs/criteo_terabyte.py --space configs/spaces/criteo_tb.py --source FOLDER
    python -m wukong_jax tune --config configs/baselines/dcnv2_criteo_tb.py --space configs/spaces/criteo_tb.py ...

All MLPs: 1 to 4 layers of 512, 1024 or 2048. The paper's pilot over learning rates (1e-3, 1e-2, 1e-1 for dense and
sparse) found 1e-3 and 1e-1 best for every model and kept them, as the configs do.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import optuna

from wukong_jax.config.baselines import (
    AFNConfig,
    AutoIntConfig,
    DCNv2Config,
    DLRMConfig,
    FinalMLPConfig,
    MaskNetConfig,
    XDeepFMConfig,
)
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.tuning.space import Suggest, for_model


def mlp(trial: optuna.Trial, name: str = "mlp") -> MLPConfig:
    """1 to 4 layers x {512, 1024, 2048}."""
    return MLPConfig(
        trial.suggest_int(f"{name}_layers", 1, 4) * (trial.suggest_categorical(f"{name}_width", [512, 1024, 2048]),)
    )


def wukong(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """L in 1 to 4, n_F = n_L in {8, 16}, k = 24, the MLP of the FMBs; the head stays the config's."""
    embeddings = trial.suggest_categorical("embeddings", [8, 16])
    layers = trial.suggest_int("num_layers", 1, 4)
    model: Any = config.model
    model = dataclasses.replace(
        model,
        num_layers=layers,
        num_fmb=embeddings,
        num_lcb=embeddings,
        rank=24,
        fmb_mlp=mlp(trial),
    )
    return dataclasses.replace(config, model=model)


def dcnv2(trial: optuna.Trial) -> dict[str, Any]:
    """1 to 4 cross layers, full rank or rank 512."""
    low_rank = trial.suggest_categorical("cross", ["full", "low_rank"]) == "low_rank"
    layers = trial.suggest_int("cross_layers", 1, 4)
    return {
        "num_layers": layers,
        "cross": "low_rank" if low_rank else "full",
        "rank": 512 if low_rank else None,
        "mlp": mlp(trial),
    }


def autoint(trial: optuna.Trial) -> dict[str, Any]:
    """3 or 4 attention layers of 256 or 512, with 4 or 8 heads."""
    return {
        "num_layers": trial.suggest_int("attention_layers", 3, 4),
        "attention_width": trial.suggest_categorical("attention_width", [256, 512]),
        "num_heads": trial.suggest_categorical("heads", [4, 8]),
        "dnn": mlp(trial),
    }


def masknet(trial: optuna.Trial) -> dict[str, Any]:
    """Parallel: 1, 8 or 16 blocks of 64 or 128. Serial: 1, 4 or 8 blocks of 64, 256 or 1024. Mask ratio 1."""
    if trial.suggest_categorical("structure", ["serial", "parallel"]) == "serial":
        width = trial.suggest_categorical("serial_width", [64, 256, 1024])
        blocks = trial.suggest_categorical("serial_blocks", [1, 4, 8]) * (width,)
        return {"structure": "serial", "blocks": blocks, "mask_ratio": 1.0, "mlp": MLPConfig()}
    width = trial.suggest_categorical("parallel_width", [64, 128])
    blocks = trial.suggest_categorical("parallel_blocks", [1, 8, 16]) * (width,)
    return {"structure": "parallel", "blocks": blocks, "mask_ratio": 1.0, "mlp": mlp(trial)}


# what a trial changes in each rival
RIVALS: dict[type, Callable[[optuna.Trial], dict[str, Any]]] = {
    DLRMConfig: lambda trial: {"top_mlp": mlp(trial)},
    DCNv2Config: dcnv2,
    AutoIntConfig: autoint,
    AFNConfig: lambda trial: {
        "log_neurons": trial.suggest_categorical("log_neurons", [128, 256, 512, 1024]),
        "mlp": mlp(trial, "afn"),
        "dnn": mlp(trial, "dnn"),
    },
    XDeepFMConfig: lambda trial: {
        "cin": trial.suggest_int("cin_layers", 3, 4) * (trial.suggest_categorical("cin_maps", [16, 32, 64]),),
        "dnn": mlp(trial),
    },
    FinalMLPConfig: lambda trial: {"mlp1": mlp(trial, "mlp1"), "mlp2": mlp(trial, "mlp2"), "num_heads": 256},
    MaskNetConfig: masknet,
}


def rival(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """The rival's grid; the rest stays the config's."""
    model: Any = config.model
    return dataclasses.replace(config, model=dataclasses.replace(model, **RIVALS[type(model)](trial)))


SPACES: dict[type, Suggest] = {WukongConfig: wukong, **dict.fromkeys(RIVALS, rival)}


def suggest(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """The config of one trial."""
    return for_model(SPACES, config)(trial, config)
