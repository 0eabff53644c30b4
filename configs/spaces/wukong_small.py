"""Wukong on the small sets (Frappe, MovieLens): layers, embeddings, rank, MLPs, dropout, width, rates, L2.

    python -m wukong_jax tune --config configs/frappe.py --space configs/spaces/wukong_small.py --trials 20

Sizes are powers of two, but for the MLPs' widths. The first trial has the config's own settings, rounded into the
space. Trials of other schedules can be compared after the longest cosine only, so prune with `--prune-after 6` or more.
"""

import dataclasses
import math
from typing import Any

import optuna

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.tuning.schedules import ON_PLATEAUS, scheduled
from wukong_jax.tuning.space import Suggest, for_model

LAYER_WIDTHS = [64, 128, 256, 400, 512]


def wukong(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """l, n_F, n_L, k, d, the MLPs of FMB and head, dropout, learning rates, L2 of the tables."""
    model: Any = config.model
    model = dataclasses.replace(
        model,
        width=2 ** trial.suggest_int("log2_width", 4, 7),
        num_layers=trial.suggest_int("num_layers", 1, 4),
        num_fmb=2 ** trial.suggest_int("log2_fmb", 2, 5),
        num_lcb=2 ** trial.suggest_int("log2_lcb", 2, 5),
        rank=2 ** trial.suggest_int("log2_rank", 2, 4),
        fmb_mlp=MLPConfig(
            trial.suggest_int("fmb_depth", 1, 2) * (trial.suggest_categorical("fmb_width", LAYER_WIDTHS),),
            dropout=trial.suggest_float("fmb_dropout", 0.0, 0.5, step=0.1),
        ),
        head=MLPConfig(
            trial.suggest_int("head_depth", 1, 3) * (trial.suggest_categorical("head_width", LAYER_WIDTHS),),
            dropout=trial.suggest_float("head_dropout", 0.0, 0.5, step=0.1),
            batch_norm=trial.suggest_categorical("head_batch_norm", [False, True]),
        ),
    )
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


SPACES: dict[type, Suggest] = {WukongConfig: wukong}


def suggest(trial: optuna.Trial, config: RunConfig) -> RunConfig:
    """The config of one trial."""
    return for_model(SPACES, config)(trial, config)


def starts(config: RunConfig) -> list[dict[str, Any]]:
    """The settings that the config has, as near as the space comes."""
    model, rule = config.model, config.tables.rules[0]
    if not isinstance(model, WukongConfig):
        return []
    fmb, head = model.fmb_mlp, model.head
    near = {
        "log2_fmb": _log2(model.num_fmb, 2, 5),
        "log2_lcb": _log2(model.num_lcb, 2, 5),
        "log2_width": _log2(model.width, 4, 7),
        "num_layers": min(model.num_layers, 4),
        "log2_rank": _log2(model.rank, 2, 4),
        "fmb_depth": min(max(len(fmb.widths), 1), 2),
        "fmb_width": _nearest(max(fmb.widths, default=64)),
        "fmb_dropout": min(fmb.dropout, 0.5),
        "head_depth": min(max(len(head.widths), 1), 3),
        "head_width": _nearest(max(head.widths, default=128)),
        "head_dropout": min(head.dropout, 0.5),
        "head_batch_norm": head.batch_norm,
        "learning_rate": min(max(config.optimizer.learning_rate, 3e-4), 3e-3),
        "table_learning_rate": min(max(rule.learning_rate, 3e-4), 3e-3),
        "table_l2": min(max(rule.l2, 1e-3), 0.3),
        "schedule": ON_PLATEAUS,
    }
    return [near]


def _log2(value: int, low: int, high: int) -> int:
    return min(max(round(math.log2(value)), low), high)


def _nearest(value: int) -> int:
    return min(LAYER_WIDTHS, key=lambda width: abs(width - value))
