"""Wide & Deep on Frappe with the settings of BARS' DeepFM (board Frappe_x1): Adam, L2 on whole tables, plateaus.

    python train.py --config configs/baselines/wide_deep_frappe.py --data.source FOLDER

Published: AUC .9841, LogLoss .1490 (BARS, its own settings). Not trained here yet.
"""

import dataclasses

from configs.baselines.deepfm_frappe import get_config as deepfm_frappe
from wukong_jax.config.baselines import WideDeepConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    model = WideDeepConfig(
        width=10,
        mlp=MLPConfig((400, 400, 400), dropout=0.2, batch_norm=True),
        embedding=EmbeddingConfig(init_stddev=1e-4),
    )
    return dataclasses.replace(deepfm_frappe(), name="wide_deep_frappe", model=model)
