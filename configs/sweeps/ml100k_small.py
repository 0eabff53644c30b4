"""HSTU on MovieLens-100K, the smaller half of the grid of depths and widths.

python -m wukong_jax sweep --sweep configs/sweeps/ml100k_small.py --records results/performance_law/ml100k_small
"""

from configs.sweeps.ml100k_grid import half
from wukong_jax.scaling.sweep import Sweep


def get_sweep() -> Sweep:
    """The list of runs."""
    return Sweep("ml100k_small", half(larger=False))
