"""HSTU on MovieLens-100K, the larger half of the grid of depths and widths.

python -m wukong_jax sweep --sweep configs/sweeps/ml100k_large.py --records results/performance_law/ml100k_large
"""

from configs.sweeps.ml100k_grid import half
from wukong_jax.scaling.sweep import Sweep


def get_sweep() -> Sweep:
    """The list of runs."""
    return Sweep("ml100k_large", half(larger=True))
