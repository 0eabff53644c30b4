"""Where each table lies on a mesh: what fits in memory first, then the least time by a bandwidth model of its stack.

The model takes the rates of data sheets and rough latencies: it ranks placements and predicts no step's time.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple, get_args

import jax

from wukong_jax.config.mesh import MeshConfig, Placement
from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.exchange import room_for
from wukong_jax.embeddings.specs import TableSpec, TableSpecs
from wukong_jax.errors import ConfigError
from wukong_jax.models.registry import table_specs
from wukong_jax.scaling.collectives import PRESETS, Hardware
from wukong_jax.sequential.schema import ITEM_TABLE, SequenceSchema

MOMENTS = {"sgd": 0, "adagrad": 1, "adam": 2, "adamw": 2}  # kept for each value; rowwise_adagrad has one a row
VALUE_PASSES, SORT_PASSES, SECTOR = 6, 64, 8  # passes over values handled and ids merged; fewest values read at once
TABLE_SHARE = 0.75  # of the memory, for tables and slots: the rest is for the dense side


Chosen = dict[str, tuple[Placement, str]]  # placement and why, by table


@dataclasses.dataclass(frozen=True)
class TableChoice:
    """A table's placement, why, and what it takes of each device."""

    table: TableSpec
    rule: TableRule
    placement: Placement
    why: str
    table_bytes: int
    slot_bytes: int
    """Slot variables and work space; of a densely updated table its gradient and moments."""
    bytes_moved: int
    """Sent by a device in a step: the table's share of what its stack sends."""
    seconds: tuple[tuple[Placement, float], ...]
    """Of each admissible placement, as a stack of its own."""


class Load(NamedTuple):
    """Rows of a stack, and its places in the global batch."""

    rows: int
    places: int


@dataclasses.dataclass(frozen=True)
class StackModel:
    """Costs of stacks of one width and rule on a mesh."""

    mesh: MeshConfig
    hardware: Hardware
    width: int
    rule: TableRule
    whole: bool = False
    """Whether something reads the tables whole."""

    def transfers(self, load: Load, placement: Placement) -> tuple[list[float], list[float]]:
        """Bytes that a device sends in each ring collective and in each all-to-all of a step; none without rows."""
        devices, width, (rows, places) = self.mesh.devices, self.width, load
        if devices == 1 or not rows:
            return [], []
        others, value = (devices - 1) / devices, 2 if self.mesh.exchange_dtype == "bfloat16" else 4
        table = rows * width * 4
        # gathered, and its gradient scattered
        whole = [others * table] * 2 if self.whole and self.rule.update == "dense" else []
        if placement == "replicated" and self.rule.update == "dense":
            return [2 * others * table], []
        if placement == "replicated" and rows <= places:  # beside the gradient, how often each row was touched
            return [2 * others * (table + rows * 4)], []
        if placement == "replicated":
            return [others * places * 4, others * places * width * value], []
        # ids travel once: XLA finds that the backward pass would send the same ones again
        if placement == "columns":
            mean = [2 * others * places * 4] if self.rule.name == "rowwise_adagrad" else []
            return [others * places * 4, *mean, *whole], [others * places / devices * width * value] * 2
        sent = (devices - 1.0) * room_for(places // devices, devices, self.mesh.exchange_capacity)
        rounds = [2 * others * 4] * 2  # of the exchange, and what did not fit
        return [*rounds, *whole], [4 * sent, *[sent * width * value] * 2]

    def moved(self, load: Load, placement: Placement) -> float:
        """Bytes that a device sends in a step."""
        return math.fsum(itertools.chain(*self.transfers(load, placement)))

    def seconds(self, load: Load, placement: Placement) -> float:
        """Of transfers one after another, of memory passed over and of ids merged; 0 without rows."""
        devices, width, (rows, places) = self.mesh.devices, self.width, load
        if not rows:
            return 0.0
        local, rings = places / devices, self.transfers(load, placement)
        dense, merged = self.rule.update == "dense", 0.0
        if placement == "replicated":
            reduces = dense or rows <= places
            values, merged = local * width + (rows if reduces else places) * width, 0.0 if reduces else places
        elif placement == "columns":
            values, merged = local * width + places * max(width / devices, SECTOR), places
        else:
            asked = devices * room_for(places // devices, devices, self.mesh.exchange_capacity)
            values, merged = (local + asked) * width, local + asked
        values += rows * width / devices if dense and placement != "replicated" else 0.0
        total = (4 * VALUE_PASSES * values + 8 * SORT_PASSES * merged) / self.hardware.memory_bandwidth
        total += sum(self.hardware.ring_seconds(sent, devices) for sent in rings[0])
        return total + sum(self.hardware.exchange_seconds(sent, devices) for sent in rings[1])

    def sharded_kinds(self) -> tuple[Placement, ...]:
        """Placements besides `replicated`. Dealt rows are out of order, but spread the ids of most use, the first."""
        rows: Placement = "rows" if self.whole or self.rule.update == "dense" else "dealt_rows"
        return (rows,) if self.width % self.mesh.devices else (rows, "columns")

    def memory(self, rows: int, placement: Placement) -> tuple[int, int]:
        """Bytes on a device of a table, and of its slots and work space."""
        own_rows = math.ceil(rows / self.mesh.devices) if placement in ("rows", "dealt_rows") else rows
        values = own_rows * (self.width // self.mesh.devices if placement == "columns" else self.width)
        if self.rule.update == "dense":
            return 4 * values, 4 * values * (1 + MOMENTS[self.rule.name])
        slots = own_rows if self.rule.name == "rowwise_adagrad" else values * MOMENTS[self.rule.name]
        return 4 * values, 4 * slots


def plan_placements(
    specs: TableSpecs,
    tables: TablesConfig,
    mesh: MeshConfig,
    schema: DatasetSchema,
    batch_size: int,
    hardware: Hardware,
    read_whole: Collection[str] = (),
) -> tuple[TableChoice, ...]:
    """The choice for every table, in the order of the specs; the same wherever it is made.

    Within a width and rule the tables of most rows a place are sharded, the others replicated: of all such cuts the
    one of least time, latencies of both stacks included. Then replicated tables are sharded, the largest first, until
    tables and slots fit into `TABLE_SHARE` of the memory. `read_whole` names tables that are read whole somewhere.
    Raises `ConfigError` for tables that fit nowhere, and for placements that are not possible or name no table.
    """
    _check_patterns(mesh, [table.name for table in specs.tables])
    columns = schema.id_slices()
    slots = dict.fromkeys((table.name for table in specs.tables), 0)
    for lookup in specs.lookups:
        slots[lookup.table] += columns[lookup.feature].stop - columns[lookup.feature].start
    loads = {table.name: Load(table.rows, batch_size * slots[table.name]) for table in specs.tables}
    groups: dict[tuple[int, TableRule, bool], list[TableSpec]] = {}
    for table in specs.tables:
        key = (table.width, tables.rule_of(table.name, table.rows), table.name in read_whole)
        groups.setdefault(key, []).append(table)
    models: dict[str, StackModel] = {}
    chosen: Chosen = {}
    for (width, rule, whole), members in groups.items():
        model = StackModel(mesh, hardware, width, rule, whole)
        models |= {table.name: model for table in members}
        chosen |= _least_time(model, members, loads)
    chosen = _fitting(list(loads), models, {name: load.rows for name, load in loads.items()}, chosen)
    return _with_costs(specs, models, chosen, loads)


def placements_of(config: RunConfig) -> dict[str, Placement]:
    """The placement of each table, by name, on the devices of this run; the same in all its processes."""
    specs, hardware = table_specs(config.model, config.batch_schema), hardware_of(jax.devices()[0])
    return {choice.table.name: choice.placement for choice in choices_of(config, specs, hardware)}


def choices_of(config: RunConfig, specs: TableSpecs, hardware: Hardware) -> tuple[TableChoice, ...]:
    """`plan_placements` with what a config says."""
    whole = (ITEM_TABLE,) if isinstance(config.schema, SequenceSchema) else ()
    schema, size = config.batch_schema, config.train.batch_size
    return plan_placements(specs, config.tables, config.mesh, schema, size, hardware, whole)


def hardware_of(device: jax.Device) -> Hardware:
    """The preset named in the device's kind; for other accelerators the rates of an H100 and any memory."""
    words = re.split(r"[^a-z0-9]+", f"{device.device_kind} {device.platform}".lower())
    found = [preset for name, preset in PRESETS.items() if name in words]
    return found[0] if found else dataclasses.replace(PRESETS["h100"], name=device.device_kind, memory=math.inf)


def _check_patterns(mesh: MeshConfig, tables: Sequence[str]) -> None:
    """Raise `ConfigError` for a rule that matches no table: a name misspelt would leave its table to the planner."""
    for rule in mesh.placements:
        if mesh.devices > 1 and not any(re.search(rule.pattern, table) for table in tables):
            some = ", ".join(tables[:20]) + (", ..." if len(tables) > 20 else "")
            raise ConfigError(
                f"mesh.placements: received the pattern {rule.pattern!r}, which matches no table; expected one of "
                f"{some}; correct the rule or leave it out"
            )


def _least_time(model: StackModel, members: list[TableSpec], loads: dict[str, Load]) -> Chosen:
    """Placements of the tables of one width and rule, whatever memory they take."""
    if model.mesh.devices == 1:
        return {table.name: ("replicated", "one device") for table in members}
    given = _given(model, members)
    chosen: Chosen = {name: (placement, "mesh.placements") for name, placement in given.items()}
    free = [table.name for table in members if table.name not in given]
    free.sort(key=lambda name: loads[name].rows / max(loads[name].places, 1))
    sums = list(itertools.accumulate((loads[name] for name in free), _added, initial=Load(0, 0)))
    base = {kind: Load(0, 0) for kind in get_args(Placement)}
    for name, placement in given.items():
        base[placement] = _added(base[placement], loads[name])

    def seconds(cut: tuple[int, Placement]) -> float:
        rest = Load(*(a - b for a, b in zip(sums[-1], sums[cut[0]], strict=True)))
        parts = base | {"replicated": _added(base["replicated"], sums[cut[0]])}
        parts[cut[1]] = _added(parts[cut[1]], rest)
        return sum(model.seconds(load, placement) for placement, load in parts.items())

    # all replicated comes first and so wins a tie
    sizes = (len(free), 0) if model.rule.update == "dense" else range(len(free), -1, -1)
    cuts = [(size, kind) for size in sizes for kind in model.sharded_kinds()]
    size, kind = best = min(cuts, key=seconds)
    others = [(name, (0, name)) for name in model.sharded_kinds()]
    every = ", ".join(f"{name} {1e3 * seconds(cut):.3g}" for name, cut in [("replicated", cuts[0]), *others])
    why = f"{1e3 * seconds(best):.3g} ms a step for the {len(free)} of its width and rule; all of them {every}"
    return chosen | {name: ("replicated" if place < size else kind, why) for place, name in enumerate(free)}


def _given(model: StackModel, members: list[TableSpec]) -> dict[str, Placement]:
    """What mesh.placements says; raises `ConfigError` where that cannot be."""
    said = {table.name: model.mesh.placement_of(table.name) for table in members}
    given: dict[str, Placement] = {
        name: placement for name, said_of in said.items() for placement in get_args(Placement) if placement == said_of
    }
    for name, placement in given.items():
        if placement == "columns" and model.width % model.mesh.devices:
            raise ConfigError(
                f"mesh.placements: table {name!r} of width {model.width} cannot be split by columns over "
                f"{model.mesh.devices} devices; take dealt_rows, or a width that is a multiple of {model.mesh.devices}"
            )
        if placement == "dealt_rows" and model.sharded_kinds()[0] == "rows":
            raise ConfigError(
                f"mesh.placements: received dealt_rows for table {name!r}, whose rows stay in order as it is read or "
                "updated whole; expected rows, columns or replicated"
            )
    if model.rule.update == "dense" and given:
        if len(set(given.values())) > 1:
            raise ConfigError(
                f"mesh.placements: received {given} for tables that are updated together (width {model.width}, "
                "update 'dense'), expected one placement for all of them; or give them rules of their own"
            )
        given = dict.fromkeys(said, next(iter(given.values())))
    return given


def _fitting(names: Sequence[str], models: dict[str, StackModel], rows: dict[str, int], chosen: Chosen) -> Chosen:
    """Replicated tables sharded, the largest first, until all fit; raises `ConfigError` where they cannot."""
    chosen = dict(chosen)
    taken = {name: sum(models[name].memory(rows[name], chosen[name][0])) for name in names}
    for name in sorted(names, key=lambda name: -taken[name]):
        model = models[name]
        if sum(taken.values()) <= TABLE_SHARE * model.hardware.memory or model.mesh.devices == 1:
            break
        together = [name] if model.rule.update == "row_sparse" else [other for other in names if models[other] is model]
        if chosen[name][0] == "replicated" and all(model.mesh.placement_of(other) == "auto" for other in together):
            kind = model.sharded_kinds()[0]
            chosen |= dict.fromkeys(together, (kind, f"replicated it would not fit; {chosen[name][1]}"))
            taken |= {other: sum(model.memory(rows[other], kind)) for other in together}
    if names and sum(taken.values()) > model.hardware.memory:
        whole = sum(sum(models[name].memory(rows[name], "replicated")) for name in names)
        room, has = sum(taken.values()), model.hardware.memory
        raise ConfigError(
            f"mesh: tables and slots take {room / 1e9:.3g} GB of each device, a {model.hardware.name} has "
            f"{has / 1e9:.3g} GB; split by rows they fit on {math.ceil(whole / (TABLE_SHARE * has))} devices, if "
            "mesh.placements replicates none of the large ones"
        )
    return chosen


def _with_costs(
    specs: TableSpecs, models: dict[str, StackModel], chosen: Chosen, loads: dict[str, Load]
) -> tuple[TableChoice, ...]:
    stacks: dict[tuple[StackModel, Placement], Load] = {}
    for name, (placement, _) in chosen.items():
        key = (models[name], placement)
        stacks[key] = _added(stacks.get(key, Load(0, 0)), loads[name])
    choices = []
    for table in specs.tables:
        model, (placement, why), load = models[table.name], chosen[table.name], loads[table.name]
        stack = stacks[model, placement]
        by_rows = placement == "replicated" and (model.rule.update == "dense" or stack.rows <= stack.places)
        share = load.rows / stack.rows if by_rows else load.places / max(stack.places, 1)
        seconds = {kind: model.seconds(load, kind) for kind in ("replicated", *model.sharded_kinds(), placement)}
        moved = round(share * model.moved(stack, placement))
        memory = model.memory(table.rows, placement)
        choices.append(TableChoice(table, model.rule, placement, why, *memory, moved, tuple(seconds.items())))
    return tuple(choices)


def _added(left: Load, right: Load) -> Load:
    return Load(left.rows + right.rows, left.places + right.places)
