"""MaskNet on Criteo Terabyte as the paper counts it: 26,160,209,153 parameters, 147.40 training MFLOP per example.

python -m wukong_jax describe --config configs/paper/masknet_criteo_tb.py
"""

from configs.baselines.masknet_criteo_tb import get_config as masknet_criteo_tb
from configs.paper.criteo_tb import with_paper_tables
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return with_paper_tables(masknet_criteo_tb())
