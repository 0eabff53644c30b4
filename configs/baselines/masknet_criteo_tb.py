"""MaskNet on Criteo Terabyte, data and recipe of configs/criteo_terabyte.py.

    python train.py --config configs/baselines/masknet_criteo_tb.py --data.source /data/criteo_tb

Published in the Wukong paper: AUC .8100, LogLoss .1227, 26,160,209,153 parameters, 147.40 MFLOP per example. A point of
its grid, the one that has just this count (configs/paper/): one parallel block. Here the recipe's flags beside
the 13 numeric values add 6,656 parameters, and its tables are smaller.
"""

import dataclasses

from configs.criteo_terabyte import get_config as criteo_terabyte
from wukong_jax.config.baselines import MaskNetConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        criteo_terabyte(),
        name="masknet_criteo_tb",
        model=MaskNetConfig(
            width=128,
            structure="parallel",
            blocks=(128,),
            mlp=MLPConfig((512,)),
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
    )
