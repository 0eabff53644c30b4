"""Learning rates on planted data: every model at 0.3 and 1 training MFLOP/example, the best ones again at 10 and 30.

    python -m wukong_jax sweep --sweep configs/sweeps/planted_rates.py --jobs 2

93 runs, 0.22 PFLOP, about 40 minutes on 2 cores. At 30 MFLOP only the best rate of each model and a quarter of it;
not of FinalMLP, for which no rate at 1 or 10 MFLOP stands out.
"""

from configs.sweeps.planted_models import bases, sized, with_rate
from wukong_jax.scaling.sweep import Point, Sweep

ALL = (1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3, 64e-3)
RATES = {0.3: ALL, 1: ALL, 10: (1e-3, 4e-3, 16e-3)}
RATES_AT_30 = {"Wukong": (1e-3, 4e-3), "DLRM": (4e-3, 16e-3), "DCNv2": (4e-3, 16e-3), "MaskNet": (1e-3, 4e-3)}


def get_sweep() -> Sweep:
    """The list of runs."""
    configs = bases()
    tried = [(budget, series, rate) for budget, rates in RATES.items() for series in configs for rate in rates]
    tried += [(30, series, rate) for series, rates in RATES_AT_30.items() for rate in rates]
    points = [
        Point(series, "rates", {"budget_mflop": budget, "rate": rate}, with_rate(sized(configs[series], budget), rate))
        for budget, series, rate in tried
    ]
    return Sweep("planted_rates", tuple(points))
