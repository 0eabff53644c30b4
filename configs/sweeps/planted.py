"""The law on planted data: Wukong and four rivals, 0.3 to 100 training MFLOP/example, one pass over 512,000 examples.

    python -m wukong_jax sweep --sweep configs/sweeps/planted.py --jobs 2
    python -m wukong_jax report --records results/scaling/planted

Learning rates are those that planted_rates.py found. Ladder (three seeds at its ends and where curves cross), one knob
at a time, the parts left out one by one, and sizes of the data; 1.06 PFLOP in all, cheap runs first. Every run
keeps the floor of the data, so the figures are gaps.
"""

import dataclasses

from configs.sweeps.planted_models import bases, sized, with_tuned_rate
from wukong_jax.config.run import RunConfig
from wukong_jax.scaling.sweep import (
    Point,
    Points,
    Sweep,
    one_at_a_time,
    over_examples,
    over_seeds,
    points_of,
    with_fields,
)

BUDGETS = (0.3, 1, 3, 10, 30, 100)
KNOBS = {
    "model.num_layers": (2, 4, 8),
    "model.rank": (8, 16, 32),
    "model.num_fmb": (8, 16, 32),
    "model.num_lcb": (8, 16, 32),
    "model.fmb_mlp.widths": ((64,), (128,), (256,)),
}
PARTS_LEFT_OUT: tuple[dict[str, bool], ...] = (
    {},
    {"model.use_fmb": False},
    {"model.use_lcb": False},
    {"model.residual": False},
    {"model.use_lcb": False, "model.residual": False},
)
CROSSING = {
    1: ("Wukong", "DLRM", "MaskNet"),
    3: ("Wukong", "DLRM", "MaskNet"),
    10: ("Wukong", "DLRM", "MaskNet"),
    30: ("Wukong", "DLRM"),
}
"""The models whose curves cross near a budget."""
EXAMPLES = (128_000, 256_000, 512_000, 1_024_000, 1_920_000)


def ladder(budget: float) -> Points:
    """All models at one budget."""
    return tuple(
        Point(series, "ladder", {"budget_mflop": budget}, with_tuned_rate(series, sized(config, budget), budget))
        for series, config in bases().items()
    )


def knobs() -> Points:
    """Wukong at l = 2, n_F = n_L = k = 8, and each knob larger."""
    base = with_tuned_rate("Wukong", bases()["Wukong"], 1)
    return one_at_a_time(points_of("knob", {"Wukong": base}), KNOBS)


def ablation(full: RunConfig) -> Points:
    """A Wukong with all of its parts, and without them."""
    full = dataclasses.replace(full, name=f"{full.name}_ablation")
    flags = ("model.use_fmb", "model.use_lcb", "model.residual")
    return tuple(
        Point(
            "Wukong",
            "ablation",
            {flag.removeprefix("model."): left_out.get(flag, True) for flag in flags},
            with_fields(full, left_out),
        )
        for left_out in PARTS_LEFT_OUT
    )


def data_sizes() -> Points:
    """Wukong at three sizes and DLRM at one, on more and more examples."""
    points: Points = ()
    for series, budget in (("Wukong", 0.3), ("Wukong", 1), ("Wukong", 10), ("DLRM", 1)):
        config = with_tuned_rate(series, sized(bases()[series], budget), budget)
        config = dataclasses.replace(config, name=f"{config.name}_data")
        points += tuple(
            dataclasses.replace(point, varied={"budget_mflop": budget} | dict(point.varied))
            for point in over_examples(points_of("data", {series: config}), EXAMPLES)
        )
    return points


def get_sweep() -> Sweep:
    """The list of runs."""
    first = [point for budget in BUDGETS[:4] for point in ladder(budget)]
    ends = over_seeds((*ladder(BUDGETS[0]), *ladder(BUDGETS[-1])), (1, 2))
    at_3 = dataclasses.replace(with_tuned_rate("Wukong", sized(bases()["Wukong"], 3), 3), name="planted")
    others = (*over_seeds((*knobs(), *ablation(at_3)), (0, 1, 2)), *data_sizes())
    last = [point for budget in BUDGETS[4:] for point in ladder(budget)]
    crossing = [point for budget, series in CROSSING.items() for point in ladder(budget) if point.series in series]
    return Sweep("planted", (*first, *others, *last, *ends, *over_seeds(crossing, (1, 2))))
