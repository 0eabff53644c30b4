"""AutoInt+ on Criteo Terabyte, data and recipe of configs/criteo_terabyte.py.

    python train.py --config configs/baselines/autoint_plus_criteo_tb.py --data.source /data/criteo_tb

Published in the Wukong paper: AUC .8073, LogLoss .1233, 26,142,619,137 parameters, 163.34 MFLOP per example. A point of
its grid: 4 layers, 256 wide. With an MLP of 4 x 512 on the attention's output and the embeddings together that gives
its MFLOP exactly and all but 2,560 of its parameters; here, as in AutoInt's paper, the MLP reads the embeddings only.
"""

import dataclasses

from configs.criteo_terabyte import get_config as criteo_terabyte
from wukong_jax.config.baselines import AutoIntConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        criteo_terabyte(),
        name="autoint_plus_criteo_tb",
        model=AutoIntConfig(
            width=128,
            num_layers=4,
            attention_width=256,
            num_heads=4,
            dnn=MLPConfig((512, 512, 512, 512)),
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
    )
