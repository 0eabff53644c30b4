"""python -m wukong_jax describe: parameters, FLOPs and memory of a config; nothing is allocated or read."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from wukong_jax.config.codec import to_plain
from wukong_jax.config.command_line import RunArguments, parse_run_arguments
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError

if TYPE_CHECKING:
    import rich.console

    from wukong_jax.embeddings.planner import TableChoice
    from wukong_jax.scaling.flops import Cost
    from wukong_jax.scaling.memory import Memory


@dataclasses.dataclass(frozen=True)
class DescribeOptions(RunArguments):
    """Print a config's parameters and FLOPs per component, its tables, and what a step needs in memory."""

    json: bool = False
    """Print one JSON object instead of tables."""
    mesh: str | None = None
    """Devices as data x model, such as 8x16: where each table would lie, and what each device would hold and send."""
    hardware: Literal["h100", "h200", "a100", "cpu"] | None = None
    """Devices that the plan of a mesh is for, h100 if not given; a training run takes those that it finds."""


def main(arguments: Sequence[str]) -> int:
    """Describe; raises `UserError` where the config cannot be built."""
    options = parse_run_arguments(DescribeOptions, arguments, "python -m wukong_jax describe")
    import rich.console

    from wukong_jax.scaling.flops import describe_cost

    run = options.run if options.mesh is None else _on_mesh(options.run, options.mesh)
    if options.hardware is not None and run.mesh.devices == 1:
        raise ConfigError(f"--hardware: received {options.hardware!r}, which is for a plan; add --mesh, such as 8x16")
    cost, hardware = describe_cost(run), options.hardware or "h100"
    plan = _planned(run, cost, hardware) if options.mesh is not None or run.mesh.devices > 1 else None
    if options.json:
        print(json.dumps(_plain(options.run, cost) | ({} if plan is None else {"mesh": _plain_plan(run, *plan)})))
        return 0
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)  # a file or a pipe cuts no line
    _print_cost(console, run, cost)
    if plan is None:
        _print_tables(console, cost)
        console.print(f"parameters in all: {cost.dense_total + cost.sparse_total:,}", highlight=False)
        for name, size in _named_memory(run, cost).items():
            console.print(f"{name}: {size / 2**20:,.1f} MiB")
    else:
        _print_plan(console, run, *plan, hardware)
    return 0


def _named_memory(run: RunConfig, cost: "Cost") -> dict[str, int]:
    from wukong_jax.scaling.memory import step_memory

    return _names(step_memory(run, cost))


def _names(step: "Memory") -> dict[str, int]:
    return {
        "tables": step.tables,
        "slots and work space of the tables": step.slots,
        "dense parameters, gradients, optimizer": step.dense,
        f"activations (at most, {step.examples} examples at a time)": step.activations,
    }


def _plain(run: RunConfig, cost: "Cost") -> dict[str, Any]:
    names = ("dense_total", "sparse_total", "inference_flops", "training_flops")
    interactions = {"interactions": [layer._asdict() for layer in _interactions(run)]}
    return {
        **to_plain(cost._asdict()),
        **{name: getattr(cost, name) for name in names},
        "parameters": cost.dense_total + cost.sparse_total,
        **interactions,
        "memory_bytes": _named_memory(run, cost),
    }


def _interactions(run: RunConfig) -> tuple[Any, ...]:
    from wukong_jax.config.models import WukongConfig
    from wukong_jax.scaling.flops import fm_interactions

    return fm_interactions(run.model, run.batch_schema) if isinstance(run.model, WukongConfig) else ()


def _print_cost(console: "rich.console.Console", run: RunConfig, cost: "Cost") -> None:
    import rich.table

    from wukong_jax.config.models import WukongConfig
    from wukong_jax.scaling.flops import TRAINING_FACTOR

    table = rich.table.Table("component", title=f"{run.name}: {type(run.model).__name__}", title_justify="left")
    for heading in ("dense parameters", "inference FLOPs/example", "training FLOPs/example"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys([*cost.forward_flops, *cost.dense_parameters]):
        flops = cost.forward_flops.get(name, 0)
        table.add_row(name, f"{cost.dense_parameters.get(name, 0):,}", f"{flops:,}", f"{TRAINING_FACTOR * flops:,}")
    table.add_section()
    table.add_row("total", f"{cost.dense_total:,}", f"{cost.inference_flops:,}", f"{cost.training_flops:,}")
    console.print(table)
    if isinstance(run.model, WukongConfig) and run.model.use_fmb:
        title = f"factorization machine of each layer (here: {run.model.fm}), inference FLOPs/example"
        layers = rich.table.Table("layer", title=title, title_justify="left")
        for heading in ("n", "k", "X (X^T Y): 4 n k d", "X X^T: 2 n^2 d", "full / low rank"):
            layers.add_column(heading, justify="right")
        for index, n, k, low_rank, full in _interactions(run):
            layers.add_row(f"layer_{index}", f"{n:,}", f"{k:,}", f"{low_rank:,}", f"{full:,}", f"{full / low_rank:.2f}")
        console.print(layers)


def _print_tables(console: "rich.console.Console", cost: "Cost") -> None:
    import rich.table

    tables = rich.table.Table("table", title="embedding tables", title_justify="left")
    for heading in ("rows", "width", "parameters", "update"):
        tables.add_column(heading, justify="right")
    for spec, update in cost.tables:
        tables.add_row(spec.name, f"{spec.rows:,}", f"{spec.width:,}", f"{spec.rows * spec.width:,}", update)
    tables.add_section()
    tables.add_row("total", f"{sum(spec.rows for spec, _ in cost.tables):,}", "", f"{cost.sparse_total:,}", "")
    console.print(tables)


def _on_mesh(run: RunConfig, mesh: str) -> RunConfig:
    """The config on a mesh; raises `ConfigError` for another form, and where the batch cannot be split so."""
    sizes = re.fullmatch(r"(\d+)x(\d+)", mesh)
    if sizes is None:
        raise ConfigError(f"--mesh: received {mesh!r}, expected the devices as data x model, such as 8x16")
    placed = dataclasses.replace(run.mesh, data=int(sizes[1]), model=int(sizes[2]))
    return dataclasses.replace(run, mesh=placed)


def _planned(run: RunConfig, cost: "Cost", hardware: str) -> tuple[tuple["TableChoice", ...], "Memory"]:
    from wukong_jax.embeddings.planner import choices_of
    from wukong_jax.models.registry import table_specs
    from wukong_jax.scaling.collectives import PRESETS
    from wukong_jax.scaling.memory import device_memory
    from wukong_jax.training.micro_batch import check_lookup_ahead
    from wukong_jax.training.semi_synchronous import check_semi_synchronous

    choices = choices_of(run, table_specs(run.model, run.batch_schema), PRESETS[hardware])
    memory = device_memory(run, cost, choices, "cpu" if hardware == "cpu" else "gpu")
    check_lookup_ahead(run, memory.examples * run.mesh.devices)
    check_semi_synchronous(run)
    return choices, memory


def _plain_plan(run: RunConfig, choices: Sequence["TableChoice"], memory: "Memory") -> dict[str, Any]:
    tables = [
        {
            "name": choice.table.name,
            "rows": choice.table.rows,
            "width": choice.table.width,
            "placement": choice.placement,
            "why": choice.why,
            "table_bytes": choice.table_bytes,
            "slot_bytes": choice.slot_bytes,
            "bytes_moved": choice.bytes_moved,
            "seconds": dict(choice.seconds),
        }
        for choice in choices
    ]
    return {
        "data": run.mesh.data,
        "model": run.mesh.model,
        "tables": tables,
        "memory_bytes": _names(memory),
        "bytes_moved": sum(choice.bytes_moved for choice in choices),
    }


def _print_plan(
    console: "rich.console.Console", run: RunConfig, choices: Sequence["TableChoice"], memory: "Memory", hardware: str
) -> None:
    import rich.table

    title = f"embedding tables on {run.mesh.data} x {run.mesh.model} devices ({hardware}): of each device"
    tables = rich.table.Table("table", title=title, title_justify="left")
    for heading in ("rows", "width", "placement", "table, MiB", "slots, MiB", "sent a step, MiB", "why"):
        tables.add_column(heading, justify="left" if heading in ("placement", "why") else "right")
    reasons = list(dict.fromkeys(choice.why for choice in choices))
    for choice in choices:
        sizes = [f"{size / 2**20:,.2f}" for size in (choice.table_bytes, choice.slot_bytes, choice.bytes_moved)]
        rows, width = f"{choice.table.rows:,}", f"{choice.table.width:,}"
        why = str(1 + reasons.index(choice.why))
        tables.add_row(choice.table.name, rows, width, choice.placement, *sizes, why)
    moved = sum(choice.bytes_moved for choice in choices)
    totals = [f"{size / 2**20:,.2f}" for size in (memory.tables, memory.slots, moved)]
    tables.add_section()
    tables.add_row("total", f"{sum(choice.table.rows for choice in choices):,}", "", "", *totals, "")
    console.print(tables)
    for number, why in enumerate(reasons, 1):
        console.print(f"why {number}: {why}", highlight=False)
    for name, size in _names(memory).items():
        console.print(f"{name}: {size / 2**20:,.1f} MiB on each device")
