"""FinalNet of two blocks on MovieLens-100K, on the split of configs/movielens_100k.py.

    python train.py --config configs/baselines/finalnet_movielens_100k.py

Model, regularisation and rates are BARS' for MovielensLatest_x1, untuned; batch size, epochs and schedule are those of
configs/movielens_100k.py. No score is published for this set.
"""

import dataclasses

from configs.movielens_100k import get_config as movielens_100k
from wukong_jax.config.baselines import FinalNetConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        movielens_100k(),
        name="finalnet_movielens_100k",
        model=FinalNetConfig(
            width=10,
            block1=MLPConfig((400, 400), batch_norm=True),
            block2=MLPConfig((500,), batch_norm=True),
            gates=True,
            self_distillation=True,
            residual="concat",
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.01),)),
    )
