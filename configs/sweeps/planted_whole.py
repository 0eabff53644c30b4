"""The ladder of planted.py up to 10 training MFLOP/example on all 1,920,000 examples, one pass: is it data that limits?

    python -m wukong_jax sweep --sweep configs/sweeps/planted_whole.py --jobs 2
    python -m wukong_jax report --records results/scaling/planted_whole

The same models and learning rates on 3.75 times the examples, three seeds; and the smallest rivals at the rates of
1 MFLOP, as those tuned for them on 512,000 examples are high. 72 runs, 0.42 PFLOP.
"""

from configs.sweeps.planted import BUDGETS, EXAMPLES, ladder
from configs.sweeps.planted_models import RATES, RIVALS, bases, sized, with_rate
from wukong_jax.scaling.sweep import Point, Sweep, over_examples, over_seeds


def get_sweep() -> Sweep:
    """The list of runs."""
    points = [point for budget in BUDGETS[:4] for point in ladder(budget)]
    for series in RIVALS:
        rate, config = RATES[series][1], sized(bases()[series], 0.3)
        points.append(Point(series, "rates", {"budget_mflop": 0.3, "rate": rate}, with_rate(config, rate)))
    return Sweep("planted_whole", over_seeds(over_examples(points, EXAMPLES[-1:]), (0, 1, 2)))
