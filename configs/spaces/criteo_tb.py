"""The paper's grids for Criteo Terabyte (section 6.2, appendix A).

    python -m wukong_jax tune --config configs/criteo_terabyte.py --space configs/spaces/criteo_tb.py --source FOLDER

All MLPs: 1 to 4 layers of 512, 1024 or 2048. The paper's pilot over learning rates (1e-3, 1e-2, 1e-1 for dense and
sparse) found 1e-3 and 1e-1 best for every model and kept them, as the configs do.
"""

import dataclasses
from typing import Any

import optuna

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.tuning.space import Suggest, for_model


def mlp_widths(trial: optuna.Trial) -> tuple[int, ...]:
    """1 to 4 layers x {512, 1024, 2048}."""
    return trial.suggest_int("mlp_layers", 1, 4) * (trial.suggest_categorical("mlp_width", [512, 1024, 2048]),)


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
        fmb_mlp=MLPConfig(mlp_widths(trial)),
    )
    return dataclasses.replace(config, model=model)


SPACES: dict[type, Suggest] = {WukongConfig: wukong}


def suggest(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """The config of one trial."""
    return for_model(SPACES, config)(trial, config)
