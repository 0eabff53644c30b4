"""Wukong and DLRM of 0.3 training MFLOP/example on MovieLens-1M with sampled negatives: twelve epochs, to turn.

    python -m wukong_jax sweep --sweep configs/sweeps/movielens_1m_long.py --source FOLDER --jobs 2
    python -m wukong_jax report --records results/scaling/movielens_1m_long

As movielens_1m.py, three times as long. Two seeds.
"""

from configs.sweeps.unregularised import bases, ladder
from wukong_jax.data.recipes.movielens_1m_sampled import SCHEMA
from wukong_jax.scaling.sweep import Sweep, over_seeds


def get_sweep() -> Sweep:
    """The list of runs."""
    configs = bases("movielens_1m_sampled", SCHEMA, batch_size=1024, epochs=12)
    return Sweep("movielens_1m_long", over_seeds(ladder(configs, (0.3,)), (0, 1)))
