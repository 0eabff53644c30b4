"""python -m wukong_jax evaluate: metrics of a trained run on a split of its store, or of another one."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from wukong_jax.config.command_line import parse
from wukong_jax.errors import ConfigError

if TYPE_CHECKING:  # slow to import, and --help must not wait
    from rich.table import Table

    from wukong_jax.commands.open_run import OpenRun
    from wukong_jax.evaluation.collapse import Abundance


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Score a split with a run's best checkpoint and print LogLoss, exact AUC, gAUC, NE and calibration."""

    run: pathlib.Path
    """Run folder, as train.py printed it."""
    split: str = "test"
    """Split of the store."""
    store: pathlib.Path | None = None
    """Another store of the same schema; by default the one that the run was trained on."""
    collapse: bool = False
    """Also the information abundance of each table (sum of singular values / largest one), over its trained rows."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(arguments: Sequence[str]) -> int:
    """Evaluate; raises `UserError` where run, store or split do not fit."""
    options = parse(EvaluateOptions, arguments, "python -m wukong_jax evaluate")
    if options.collapse and options.store is not None:
        raise ConfigError(
            "--collapse needs the store that the run was trained on, which tells the trained rows; leave --store out"
        )
    import rich.console
    import rich.table

    from wukong_jax.commands.open_run import open_run
    from wukong_jax.training.loop import evaluation_of

    console = rich.console.Console(stderr=True)
    run = open_run(options.run, options.store, console)
    split = run.store.split(options.split)
    batch_size = run.program.config.train.eval_batch_size
    step = evaluation_of(run.program, run.state)
    metrics = run.program.objective.evaluate(step, split, batch_size, exact=True)
    abundance = _abundance(run) if options.collapse else {}
    if options.json:
        found = {"run": str(options.run), "split": options.split, "step": run.step, **metrics}
        print(json.dumps(found | ({"information_abundance": abundance} if options.collapse else {})))
        return 0
    table = rich.table.Table(title=f"{options.run}, step {run.step}, {options.split}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        counts = name.partition("/")[0] in ("examples", "nonfinite")
        table.add_row(name, f"{value:,.0f}" if counts else f"{value:.6f}")
    rich.console.Console().print(table)
    if options.collapse:
        rich.console.Console().print(_abundance_table(abundance))
    return 0


def _abundance(run: "OpenRun") -> "dict[str, Abundance]":
    from wukong_jax.evaluation.collapse import trained_abundance

    config = run.program.config
    split = run.store.split("train")
    seen = (split, config.train, config.data.shuffle, run.step, run.program.objective.example_plan)
    return trained_abundance(run.program.plan, run.state.tables, *seen)


def _abundance_table(abundance: "dict[str, Abundance]") -> "Table":
    import rich.table

    table = rich.table.Table("table", title="Information abundance, 1 (collapsed) to the width", title_justify="left")
    for name in ("information abundance", "width", "trained rows"):
        table.add_column(name, justify="right")
    for name, found in abundance.items():
        value = found["information_abundance"]
        shown = "-" if value is None else f"{value:.3f}"
        table.add_row(escape(name), shown, str(found["width"]), f"{found['rows']:,}")
    return table
