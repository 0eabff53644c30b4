"""python -m wukong_jax evaluate: metrics of a trained run on a split of its store, or of another one."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from wukong_jax.config.command_line import parse


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Score a split with a run's best checkpoint and print LogLoss, exact AUC, gAUC, NE and calibration."""

    run: pathlib.Path
    """Run folder, as train.py printed it."""
    split: str = "test"
    """Split of the store."""
    store: pathlib.Path | None = None
    """Another store of the same schema; by default the one that the run was trained on."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(arguments: Sequence[str]) -> int:
    """Evaluate; raises `UserError` where run, store or split do not fit."""
    options = parse(EvaluateOptions, arguments, "python -m wukong_jax evaluate")
    import rich.console
    import rich.table

    from wukong_jax.commands.open_run import open_run
    from wukong_jax.evaluation.evaluator import evaluate_split

    console = rich.console.Console(stderr=True)
    run = open_run(options.run, options.store, console)
    split = run.store.split(options.split)
    batch_size = run.program.config.train.eval_batch_size
    metrics = evaluate_split(lambda m, b: run.program.eval_step(run.state, m, b), split, batch_size, exact=True)
    if options.json:
        print(json.dumps({"run": str(options.run), "split": options.split, "step": run.step, **metrics}))
        return 0
    table = rich.table.Table(title=f"{options.run}, step {run.step}, {options.split}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        counts = name.partition("/")[0] in ("examples", "nonfinite")
        table.add_row(name, f"{value:,.0f}" if counts else f"{value:.6f}")
    rich.console.Console().print(table)
    return 0
