r"""Wukong and DLRM on MovieLens-1M with sampled negatives, without regularisation: compute and epochs.

    python -m wukong_jax sweep --sweep configs/sweeps/movielens_1m.py --source FOLDER --jobs 2
    python -m wukong_jax report --records results/scaling/movielens_1m

Four epochs, two seeds.
"""

from configs.sweeps.unregularised import bases, ladder
from wukong_jax.data.recipes.movielens_1m_sampled import SCHEMA
from wukong_jax.scaling.sweep import Sweep, over_seeds

BUDGETS = (0.1, 0.3, 1, 3)


def get_sweep() -> Sweep:
    """The list of runs."""
    configs = bases("movielens_1m_sampled", SCHEMA, batch_size=1024, epochs=4)
    return Sweep("movielens_1m", over_seeds(ladder(configs, BUDGETS), (0, 1)))
