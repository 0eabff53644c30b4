"""DLRM on Criteo Terabyte as the paper counts it: 26,136,307,201 parameters, 4.62 training MFLOP per example.

python -m wukong_jax describe --config configs/paper/dlrm_criteo_tb.py
"""

from configs.baselines.dlrm_criteo_tb import get_config as dlrm_criteo_tb
from configs.paper.criteo_tb import with_paper_tables
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return with_paper_tables(dlrm_criteo_tb())
