"""The learning curves of a run as a picture."""

import pathlib
from typing import Any

from wukong_jax.files import whole_file

STYLES = {
    "train": ("0.6", "-", ""),
    "progressive": ("tab:green", ":", ""),
    "valid": ("tab:blue", "-", "o"),
    "test": ("tab:orange", "--", "s"),
}


def draw_curves(path: pathlib.Path, title: str, history: list[dict[str, Any]]) -> None:
    """The loss and the main score against the step, one line per split, as a PNG; drawn without a display."""
    from matplotlib.figure import Figure  # takes most of a second, and only a finished run draws

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    names = {key for point in history for key in point}
    ndcg = sorted(name for name in names if name.startswith("ndcg@"))
    panels = {ndcg[0]: ndcg[0].upper(), "loss": "loss"} if ndcg else {"logloss": "LogLoss", "auc": "AUC"}
    for axes, (metric, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for split in dict.fromkeys(point["split"] for point in history):
            for name in dict.fromkeys(key for point in history if point["split"] == split for key in point):
                if name.partition("/")[0] != metric:
                    continue
                points = [(p["step"], p[name]) for p in history if p["split"] == split and name in p]
                colour, line, marker = STYLES.get(split, ("black", "--", "s"))
                task = name.partition("/")[2]
                axes.plot(
                    *zip(*points, strict=True), line, color=colour, marker=marker, ms=4, label=f"{split} {task}".strip()
                )
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    figure.suptitle(title)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
