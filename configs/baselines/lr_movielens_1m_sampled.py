"""Logistic regression on MovieLens-1M with sampled negatives, on the split of configs/movielens_1m_sampled.py.

    python train.py --config configs/baselines/lr_movielens_1m_sampled.py [--data.source FOLDER]

Regularisation and rates are BARS' for MovielensLatest_x1, untuned; batch size, epochs and schedule are those of
configs/movielens_1m_sampled.py. No score is published for this set.
"""

import dataclasses

from configs.movielens_1m_sampled import get_config as movielens_1m_sampled
from wukong_jax.config.models import LogisticRegressionConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        movielens_1m_sampled(),
        name="lr_movielens_1m_sampled",
        model=LogisticRegressionConfig(),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=5e-6),)),
    )
