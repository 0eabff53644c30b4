"""python -m wukong_jax describe: parameters, FLOPs and memory of a config; nothing is allocated or read."""

import dataclasses
import json
from collections.abc import Sequence

from wukong_jax.config.codec import to_plain
from wukong_jax.config.command_line import RunArguments, parse_run_arguments


@dataclasses.dataclass(frozen=True)
class DescribeOptions(RunArguments):
    """Print a config's parameters and FLOPs per component, its tables, and what a step needs in memory."""

    json: bool = False
    """Print one JSON object instead of tables."""


def main(arguments: Sequence[str]) -> int:
    """Describe; raises `UserError` where the config cannot be built."""
    options = parse_run_arguments(DescribeOptions, arguments, "python -m wukong_jax describe")
    import rich.console
    import rich.table

    from wukong_jax.config.models import WukongConfig
    from wukong_jax.scaling.flops import TRAINING_FACTOR, describe_cost, fm_interactions
    from wukong_jax.scaling.memory import step_memory

    cost, model = describe_cost(options.run), options.run.model
    step = step_memory(options.run, cost)
    memory = {
        "tables": step.tables,
        "slots and work space of the tables": step.slots,
        "dense parameters, gradients, optimizer": step.dense,
        f"activations (at most, {step.examples} examples at a time)": step.activations,
    }
    interactions = fm_interactions(model, options.run.batch_schema) if isinstance(model, WukongConfig) else ()
    if options.json:
        names = ("dense_total", "sparse_total", "inference_flops", "training_flops")
        more = {"interactions": [layer._asdict() for layer in interactions], "memory_bytes": memory}
        print(json.dumps({**to_plain(cost._asdict()), **{name: getattr(cost, name) for name in names}, **more}))
        return 0
    console = rich.console.Console()
    table = rich.table.Table(
        "component", title=f"{options.run.name}: {type(options.run.model).__name__}", title_justify="left"
    )
    for heading in ("dense parameters", "inference FLOPs/example", "training FLOPs/example"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys([*cost.forward_flops, *cost.dense_parameters]):
        flops = cost.forward_flops.get(name, 0)
        table.add_row(name, f"{cost.dense_parameters.get(name, 0):,}", f"{flops:,}", f"{TRAINING_FACTOR * flops:,}")
    table.add_section()
    table.add_row("total", f"{cost.dense_total:,}", f"{cost.inference_flops:,}", f"{cost.training_flops:,}")
    console.print(table)
    if isinstance(model, WukongConfig) and model.use_fmb:
        title = f"factorization machine of each layer (here: {model.fm}), inference FLOPs/example"
        layers = rich.table.Table("layer", title=title, title_justify="left")
        for heading in ("n", "k", "X (X^T Y): 4 n k d", "X X^T: 2 n^2 d", "full / low rank"):
            layers.add_column(heading, justify="right")
        for index, n, k, low_rank, full in interactions:
            layers.add_row(f"layer_{index}", f"{n:,}", f"{k:,}", f"{low_rank:,}", f"{full:,}", f"{full / low_rank:.2f}")
        console.print(layers)
    tables = rich.table.Table("table", title="embedding tables", title_justify="left")
    for heading in ("rows", "width", "parameters", "update"):
        tables.add_column(heading, justify="right")
    for spec, update in cost.tables:
        tables.add_row(spec.name, f"{spec.rows:,}", f"{spec.width:,}", f"{spec.rows * spec.width:,}", update)
    tables.add_section()
    tables.add_row("total", f"{sum(spec.rows for spec, _ in cost.tables):,}", "", f"{cost.sparse_total:,}", "")
    console.print(tables)
    for name, size in memory.items():
        console.print(f"{name}: {size / 2**20:,.1f} MiB")
    return 0
