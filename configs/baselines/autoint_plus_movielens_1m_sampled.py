"""AutoInt+ on MovieLens-1M with sampled negatives, on the split of configs/movielens_1m_sampled.py.

    python train.py --config configs/baselines/autoint_plus_movielens_1m_sampled.py [--data.source FOLDER]

Model, regularisation and rates are BARS' for MovielensLatest_x1, untuned; batch size, epochs and schedule are those of
configs/movielens_1m_sampled.py. No score is published for this set.
"""

import dataclasses

from configs.movielens_1m_sampled import get_config as movielens_1m_sampled
from wukong_jax.config.baselines import AutoIntConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        movielens_1m_sampled(),
        name="autoint_plus_movielens_1m_sampled",
        model=AutoIntConfig(
            width=10,
            num_layers=2,
            attention_width=128,
            num_heads=4,
            scale=True,
            layer_norm=True,
            dropout=0.1,
            dnn=MLPConfig((400, 400, 400), dropout=0.1, batch_norm=True),
            linear=True,
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.01),)),
    )
