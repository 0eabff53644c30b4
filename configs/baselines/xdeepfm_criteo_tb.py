"""xDeepFM on Criteo Terabyte, data and recipe of configs/criteo_terabyte.py.

    python train.py --config configs/baselines/xdeepfm_criteo_tb.py --data.source /data/criteo_tb

Published in the Wukong paper: AUC .8084, LogLoss .1229, 26,300,221,171 parameters, 41.57 MFLOP per example. A point of
its grid, the MLP chosen by the MFLOP (bottom MLP and 4 x 1024 take 41.14, its count leaves CIN out); the parameters are
not explained, a weight for each of its 204,184,585 rows would alone be too many.
"""

import dataclasses

from configs.criteo_terabyte import get_config as criteo_terabyte
from wukong_jax.config.baselines import XDeepFMConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        criteo_terabyte(),
        name="xdeepfm_criteo_tb",
        model=XDeepFMConfig(
            width=128,
            cin=(64, 64, 64),
            dnn=MLPConfig((1024, 1024, 1024, 1024)),
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
    )
