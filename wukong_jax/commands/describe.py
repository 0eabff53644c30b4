"""python -m wukong_jax describe: parameters, training FLOPs and memory of a config; nothing is allocated or read."""

import dataclasses
import json
from collections.abc import Sequence

from wukong_jax.config.codec import to_plain
from wukong_jax.config.command_line import RunArguments, parse_run_arguments


@dataclasses.dataclass(frozen=True)
class DescribeOptions(RunArguments):
    """Print a config's parameters and training FLOPs per component, its tables, and what a step needs in memory."""

    json: bool = False
    """Print one JSON object instead of tables."""


def main(arguments: Sequence[str]) -> int:
    """Describe; raises `UserError` where the config cannot be built."""
    options = parse_run_arguments(DescribeOptions, arguments, "python -m wukong_jax describe")
    import jax
    import rich.console
    import rich.table

    from wukong_jax.scaling.flops import TRAINING_FACTOR, describe_cost
    from wukong_jax.training.micro_batch import micro_batch_size

    cost = describe_cost(options.run)
    part = micro_batch_size(options.run, jax.default_backend(), options.run.train.batch_size)
    memory = {
        "tables": cost.table_bytes,
        "slots and work space of the tables": cost.slot_bytes,
        "dense parameters, gradients, optimizer": cost.dense_bytes,
        f"activations (at most, {part} examples at a time)": cost.activation_bytes * part,
    }
    if options.json:
        totals = {name: getattr(cost, name) for name in ("dense_total", "sparse_total", "training_flops")}
        print(json.dumps({**to_plain(cost._asdict()), **totals, "memory_bytes": memory}))
        return 0
    console = rich.console.Console()
    table = rich.table.Table(
        "component", title=f"{options.run.name}: {type(options.run.model).__name__}", title_justify="left"
    )
    for heading in ("dense parameters", "forward FLOPs/example", "training FLOPs/example"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys([*cost.forward_flops, *cost.dense_parameters]):
        flops = cost.forward_flops.get(name, 0)
        table.add_row(name, f"{cost.dense_parameters.get(name, 0):,}", f"{flops:,}", f"{TRAINING_FACTOR * flops:,}")
    table.add_section()
    total = sum(cost.forward_flops.values())
    table.add_row("total", f"{cost.dense_total:,}", f"{total:,}", f"{cost.training_flops:,}")
    console.print(table)
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
