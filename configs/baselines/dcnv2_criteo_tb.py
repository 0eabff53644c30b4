"""DCNv2 (stacked, full-rank cross layers) on Criteo Terabyte, data and recipe of configs/criteo_terabyte.py.

    python train.py --config configs/baselines/dcnv2_criteo_tb.py --data.source /data/criteo_tb

Published in the Wukong paper: AUC .8096, LogLoss .1227, 26,179,364,097 parameters, 262.35 MFLOP per example
with its own tables (configs/paper/dcnv2_criteo_tb.py counts them).
"""

import dataclasses

from configs.criteo_terabyte import get_config as criteo_terabyte
from wukong_jax.config.baselines import DCNv2Config
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        criteo_terabyte(),
        name="dcnv2_criteo_tb",
        model=DCNv2Config(
            width=128,
            structure="stacked",
            num_layers=2,
            mlp=MLPConfig((2048, 2048, 2048, 2048)),
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
    )
