"""Wukong on MovieLens-1M as a click-through task: the form and settings of MovieLens-100K, ten times the ratings.

    python train.py --config configs/movielens_1m.py [--data.source ml-1m.zip]

Without a source, GroupLens' official archive is downloaded.
"""

import dataclasses

from configs.movielens_100k import get_config as movielens_100k
from wukong_jax.config.run import DataConfig, RunConfig
from wukong_jax.data.recipes.movielens_1m import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        movielens_100k(), name="movielens_1m", schema=SCHEMA, data=DataConfig(recipe="movielens_1m")
    )
