r"""Wukong on Frappe by depth and width: whether the Performance Law of sequential models says anything of it.

    python -m wukong_jax sweep --sweep configs/sweeps/wukong_frappe_grid.py --source FOLDER \
        --records results/performance_law/wukong_frappe_grid

The settings are those of `configs/tuned/wukong_frappe_first.py`, which were searched for at width 128 and two layers.
"""

import dataclasses

from configs.tuned.wukong_frappe_first import get_config
from wukong_jax.config.models import WukongConfig
from wukong_jax.scaling.sweep import Point, Sweep

LAYERS, WIDTHS = (1, 2, 4, 8), (8, 16, 32, 64)
CORNERS = tuple((layers, width) for layers in (1, 8) for width in (8, 64))


def get_sweep() -> Sweep:
    """The list of runs, the cheapest first; two seeds at the corners of the grid."""
    cells = sorted(((layers, width) for layers in LAYERS for width in WIDTHS), key=lambda cell: cell[0] * cell[1])
    return Sweep("wukong_frappe_grid", tuple(point for cell in cells for point in _points(*cell)))


def _points(layers: int, width: int) -> tuple[Point, ...]:
    config = dataclasses.replace(get_config(), name="wukong_frappe_grid")
    assert isinstance(config.model, WukongConfig)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=width, num_layers=layers))
    seeds = range(2 if (layers, width) in CORNERS else 1)
    changes = {"num_layers": layers, "width": width}
    return tuple(
        Point(
            "Wukong",
            "depth and width",
            changes,
            dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed)),
        )
        for seed in seeds
    )
