"""The main test score (AUC, NDCG) against training FLOPs as a picture that also reads in black and white."""

import itertools
import math
import pathlib

from wukong_jax.comparison.report import MFLOP
from wukong_jax.comparison.table import Comparison, base, heading, spread
from wukong_jax.files import whole_file

MARKERS = "osD^v<>Ph*Xpd"


def draw_auc_flops(path: pathlib.Path, comparison: Comparison) -> None:
    """A PNG: one marker a model at its mean, bars of one standard deviation; a panel a label."""
    from matplotlib.figure import Figure  # takes most of a second

    metrics = [name for name in comparison.metrics if base(name) == base(comparison.metrics[0])]
    figure = Figure(figsize=(9, 4.2 * len(metrics)), layout="constrained")
    for axes, metric in zip(figure.subplots(len(metrics), 1, squeeze=False)[:, 0], metrics, strict=True):
        costs = []
        for index, (row, marker) in enumerate(zip(comparison.rows, itertools.cycle(MARKERS))):
            found = spread(list(row.scores(metric).values()))
            costs.append(row.fact("training_flops_per_example") / MFLOP)
            axes.errorbar(
                costs[-1],
                found.mean,
                yerr=None if math.isnan(found.std) else found.std,
                fmt=marker,
                color="black",
                markerfacecolor=("black", "white", "0.65")[index % 3],
                ms=7,
                lw=1,
                capsize=3,
                label=f"{row.model} ({row.config})",
            )
        positive = [cost for cost in costs if cost > 0]
        if positive:  # models without products cost 0, which a plain logarithm cannot show
            axes.set_xscale("symlog" if len(positive) < len(costs) else "log", **_linear_up_to(positive, costs))
        axes.set_xlabel("training MFLOP/example")
        axes.set_ylabel(f"test {heading(metric)}")
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _linear_up_to(positive: list[float], costs: list[float]) -> dict[str, float]:
    return {"linthresh": 10.0 ** math.floor(math.log10(min(positive)))} if len(positive) < len(costs) else {}
