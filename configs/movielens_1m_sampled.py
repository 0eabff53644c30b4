"""Wukong on MovieLens-1M with sampled negatives: has the user rated this film? Two negatives for each rating.

    python train.py --config configs/movielens_1m_sampled.py [--data.source FOLDER]

The settings of configs/frappe.py, untuned, in batches of 4,096: there are 30 times MovieLens-100K's rows. The source is
ml-1m.zip, its unpacked folder, or a folder with its rows in time order; without one, GroupLens' archive is downloaded.
"""

import dataclasses

from configs.movielens_100k import get_config as movielens_100k
from wukong_jax.config.run import DataConfig, RunConfig
from wukong_jax.data.recipes.movielens_1m_sampled import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    base = movielens_100k()
    return dataclasses.replace(
        base,
        name="movielens_1m_sampled",
        schema=SCHEMA,
        data=DataConfig(recipe="movielens_1m_sampled"),
        train=dataclasses.replace(base.train, batch_size=4096),
    )
