"""AFN+ on Criteo Terabyte, data and recipe of configs/criteo_terabyte.py.

    python train.py --config configs/baselines/afn_plus_criteo_tb.py --data.source /data/criteo_tb

Published in the Wukong paper: AUC .8023, LogLoss .1242, 26,436,527,675 parameters, 1826.50 MFLOP per example. A point
of its grid, the one that has just this count (configs/paper/): one set of tables, for the DNN too. Here the
recipe's flags beside the 13 numeric values add 6,656 parameters, and its tables are smaller.
"""

import dataclasses

from configs.criteo_terabyte import get_config as criteo_terabyte
from wukong_jax.config.baselines import AFNConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return dataclasses.replace(
        criteo_terabyte(),
        name="afn_plus_criteo_tb",
        model=AFNConfig(
            width=128,
            log_neurons=1024,
            mlp=MLPConfig((2048, 2048, 2048, 2048)),
            dnn=MLPConfig((2048, 2048, 2048, 2048)),
            shared_tables=True,
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
    )
