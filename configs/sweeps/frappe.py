r"""Wukong on Frappe without regularisation: compute, one knob at a time, and the parts left out one by one.

    python -m wukong_jax sweep --sweep configs/sweeps/frappe.py --source FOLDER --jobs 2
    python -m wukong_jax report --records results/scaling/frappe

202,027 real examples, six epochs: the turning point from learning to overfitting is what the ladder looks for. Knobs
and parts are compared at each run's best epoch by validation. Three seeds.
"""

from configs.sweeps.planted import KNOBS, ablation
from configs.sweeps.unregularised import bases, ladder
from wukong_jax.data.recipes.frappe import SCHEMA
from wukong_jax.scaling.sweep import Sweep, one_at_a_time, over_seeds, points_of

BUDGETS = (0.1, 0.3, 1, 3, 10)


def get_sweep() -> Sweep:
    """The list of runs."""
    configs = bases("frappe", SCHEMA, batch_size=512, epochs=6)
    wukong = configs["Wukong"]
    knobs = one_at_a_time(points_of("knob", {"Wukong": wukong}), KNOBS)
    points = (*ladder(configs, BUDGETS), *knobs, *ablation(wukong))
    return Sweep("frappe", over_seeds(points, (0, 1, 2)))
