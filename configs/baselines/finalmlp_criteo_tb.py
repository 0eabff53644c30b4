"""FinalMLP on Criteo Terabyte, data and recipe of configs/criteo_terabyte.py.

    python train.py --config configs/baselines/finalmlp_criteo_tb.py --data.source /data/criteo_tb

Published in the Wukong paper: AUC .8096, LogLoss .1226, 26,149,500,924 parameters, 84.95 MFLOP per example
with its own tables. Heads and gates are the paper's (256; one hidden layer of 800). It does not give the streams:
these, of its grid, come nearest to its count: with the paper's tables and 13 numeric values 21,434 parameters short.
"""

import dataclasses

from configs.criteo_terabyte import get_config as criteo_terabyte
from wukong_jax.config.baselines import FinalMLPConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        criteo_terabyte(),
        name="finalmlp_criteo_tb",
        model=FinalMLPConfig(
            width=128,
            mlp1=MLPConfig((1024, 1024, 1024)),
            mlp2=MLPConfig((512, 512, 512)),
            num_heads=256,
            gates=MLPConfig((800,)),
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
    )
