"""DLRM on Criteo Terabyte, data and recipe of configs/criteo_terabyte.py.

    python train.py --config configs/baselines/dlrm_criteo_tb.py --data.source /data/criteo_tb

Published in the Wukong paper: AUC .8076, LogLoss .1232, 26,136,307,201 parameters, 4.62 MFLOP per example
with its own tables (configs/paper/dlrm_criteo_tb.py counts them).
"""

import dataclasses

from configs.criteo_terabyte import get_config as criteo_terabyte
from wukong_jax.config.baselines import DLRMConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        criteo_terabyte(),
        name="dlrm_criteo_tb",
        model=DLRMConfig(
            width=128,
            interaction="dot",
            top_mlp=MLPConfig((512, 512)),
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
    )
