"""Learning rates on planted data: every model at 1 training MFLOP/example, and the rule that carries them at 10.

    python -m wukong_jax sweep --sweep configs/sweeps/planted_rates.py --jobs 2

50 runs, 95 TFLOP, about an hour on 2 cores.
"""

from configs.sweeps.planted_models import bases, sized, with_rate
from wukong_jax.scaling.sweep import Point, Sweep

RATES = {1: (1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3, 64e-3), 10: (1e-3, 4e-3, 16e-3)}


def get_sweep() -> Sweep:
    """The list of runs."""
    return Sweep(
        "planted_rates",
        tuple(
            Point(series, "rates", {"budget_mflop": budget, "rate": rate}, with_rate(sized(config, budget), rate))
            for budget, rates in RATES.items()
            for series, config in bases().items()
            for rate in rates
        ),
    )
