"""FinalMLP on MovieLens-1M with sampled negatives, on the split of configs/movielens_1m_sampled.py.

    python train.py --config configs/baselines/finalmlp_movielens_1m_sampled.py [--data.source FOLDER]

Model, regularisation and rates are BARS' for MovielensLatest_x1, untuned; batch size, epochs and schedule are those of
configs/movielens_1m_sampled.py. No score is published for this set. Both gates read learned vectors.
"""

import dataclasses

from configs.movielens_1m_sampled import get_config as movielens_1m_sampled
from wukong_jax.config.baselines import FinalMLPConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        movielens_1m_sampled(),
        name="finalmlp_movielens_1m_sampled",
        model=FinalMLPConfig(
            width=10,
            mlp1=MLPConfig((400,), dropout=0.4, batch_norm=True),
            mlp2=MLPConfig((800,), dropout=0.2, batch_norm=True),
            num_heads=10,
            gates=MLPConfig((800,)),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.01),)),
    )
