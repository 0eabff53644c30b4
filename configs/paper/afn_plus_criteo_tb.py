"""AFN+ on Criteo Terabyte as the paper counts it: 26,436,527,675 parameters, 1826.50 training MFLOP per example.

python -m wukong_jax describe --config configs/paper/afn_plus_criteo_tb.py
"""

from configs.baselines.afn_plus_criteo_tb import get_config as afn_plus_criteo_tb
from configs.paper.criteo_tb import with_paper_tables
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings."""
    return with_paper_tables(afn_plus_criteo_tb())
