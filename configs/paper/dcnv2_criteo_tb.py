"""DCNv2 on Criteo Terabyte as the paper counts it: 26,179,364,097 parameters, 262.35 training MFLOP per example.

python -m wukong_jax describe --config configs/paper/dcnv2_criteo_tb.py
"""

from configs.baselines.dcnv2_criteo_tb import get_config as dcnv2_criteo_tb
from configs.paper.criteo_tb import with_paper_tables
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return with_paper_tables(dcnv2_criteo_tb())
