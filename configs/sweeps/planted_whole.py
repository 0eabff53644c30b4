"""The ladder of planted.py up to 10 training MFLOP/example on all 1,920,000 examples, one pass: is it data that limits?

    python -m wukong_jax sweep --sweep configs/sweeps/planted_whole.py --jobs 2
    python -m wukong_jax report --records results/scaling/planted_whole

The same models and learning rates on 3.75 times the examples; 0.41 PFLOP, three seeds.
"""

from configs.sweeps.planted import BUDGETS, EXAMPLES, ladder
from wukong_jax.scaling.sweep import Sweep, over_examples, over_seeds


def get_sweep() -> Sweep:
    """The list of runs."""
    points = [point for budget in BUDGETS[:4] for point in ladder(budget)]
    return Sweep("planted_whole", over_seeds(over_examples(points, EXAMPLES[-1:]), (0, 1, 2)))
