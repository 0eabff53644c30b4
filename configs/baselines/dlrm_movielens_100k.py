"""DLRM (concat) on MovieLens-100K, on the split of configs/movielens_100k.py.

    python train.py --config configs/baselines/dlrm_movielens_100k.py

Model, regularisation and rates are BARS' for MovielensLatest_x1, untuned; batch size, epochs and schedule are those of
configs/movielens_100k.py. No score is published for this set. With `interaction_op: cat` BARS ran an MLP without dot
products.
"""

import dataclasses

from configs.movielens_100k import get_config as movielens_100k
from wukong_jax.config.baselines import DLRMConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        movielens_100k(),
        name="dlrm_movielens_100k",
        model=DLRMConfig(
            width=10,
            interaction="concat",
            top_mlp=MLPConfig((400, 400, 400), dropout=0.2, batch_norm=True),
            embedding=EmbeddingConfig(init_stddev=1e-4),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=10.0),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3, l2=0.01),)),
    )
