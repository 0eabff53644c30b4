"""Tables of one width, update rule and placement stacked into one array: one gather and one update each."""

import dataclasses
from collections.abc import Mapping

from wukong_jax.config.checks import check_unique
from wukong_jax.config.mesh import Placement
from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.data.schema import DatasetSchema, MultiHotFeature
from wukong_jax.embeddings.specs import TableSpec, TableSpecs
from wukong_jax.errors import ConfigError

MAX_ROWS = 2**31 - 2**24  # ids are int32; the rest stays free for marks past the end


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Where one feature's rows lie: columns of the id matrix, slots of its stack's gathered rows."""

    feature: str
    table: str
    stack: str
    columns: tuple[int, ...]
    first_slot: int
    row_offset: int
    combiner: str | None
    """None for one-hot; sum or mean for multi-hot."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """Tables one after another in one array [rows, width]; `offsets` are their first rows."""

    name: str
    width: int
    rows: int
    rule: TableRule
    tables: tuple[TableSpec, ...]
    offsets: tuple[int, ...]
    lookups: tuple[Lookup, ...]
    numbers: tuple[tuple[int, int], ...]
    """Of each table its group of one width and rule, and its place there: its values are drawn from these."""
    placement: Placement = "replicated"
    devices: int = 1
    """Devices that the stack is spread over."""

    @property
    def slots(self) -> int:
        """Rows gathered for each example."""
        return sum(len(lookup.columns) for lookup in self.lookups)

    @property
    def device_rows(self) -> int:
        """Rows on each device; split by rows, the last device's end with unused ones."""
        return -(-self.rows // self.devices) if self.split_by_rows else self.rows

    @property
    def stored_rows(self) -> int:
        """Rows of the stored array, unused ones included."""
        return self.device_rows * self.devices if self.split_by_rows else self.rows

    @property
    def split_by_rows(self) -> bool:
        """Whether each device has other rows."""
        return self.placement in ("rows", "dealt_rows")


@dataclasses.dataclass(frozen=True)
class EmbeddingPlan:
    """All stacks; static, hashable, made once per run."""

    stacks: tuple[Stack, ...]

    @property
    def dense(self) -> tuple[Stack, ...]:
        """Stacks that Optax updates whole."""
        return tuple(stack for stack in self.stacks if stack.rule.update == "dense")

    @property
    def row_sparse(self) -> tuple[Stack, ...]:
        """Stacks of which only the touched rows are updated."""
        return tuple(stack for stack in self.stacks if stack.rule.update == "row_sparse")

    def lookup(self, feature: str, table: str) -> Lookup:
        """The lookup of `feature` in `table`; raises `KeyError` if the model did not declare it."""
        for stack in self.stacks:
            for lookup in stack.lookups:
                if (lookup.feature, lookup.table) == (feature, table):
                    return lookup
        raise KeyError((feature, table))

    def table_rows(self, table: str) -> tuple[Stack, int, int]:
        """Stack, first row and number of rows of a table."""
        for stack in self.stacks:
            for spec, offset in zip(stack.tables, stack.offsets, strict=True):
                if spec.name == table:
                    return stack, offset, spec.rows
        raise KeyError(table)


def plan_embeddings(
    schema: DatasetSchema,
    specs: TableSpecs,
    config: TablesConfig,
    placements: Mapping[str, Placement] | None = None,
    devices: int = 1,
) -> EmbeddingPlan:
    """Stack the tables of one width, rule and placement, in the order of the specs; raises `ConfigError`.

    `placements` by table, all replicated without it. Densely updated tables of one group must have one placement.
    Errors: a table that no rule matches, a lookup of an unknown table or feature, more rows than int32 ids reach, a
    width that `devices` do not divide where columns are split.
    """
    check_unique("embedding plan: tables", [table.name for table in specs.tables])
    rules = {table.name: config.rule_of(table.name, table.rows) for table in specs.tables}
    numbers = _numbers(specs, rules)
    groups: dict[tuple[int, TableRule, Placement], list[TableSpec]] = {}
    for table in specs.tables:
        placement: Placement = "replicated" if placements is None or devices == 1 else placements[table.name]
        groups.setdefault((table.width, rules[table.name], placement), []).append(table)
    _check_dense(groups)
    names = [_stack_name(width, rule, placement) for width, rule, placement in groups]
    stacks = []
    for number, ((width, rule, placement), tables) in enumerate(groups.items()):
        name = (
            names[number]
            if names.count(names[number]) == 1
            else f"{names[number]}_{names[:number].count(names[number])}"
        )
        own = tuple(numbers[table.name] for table in tables)
        stacks.append(_stack(schema, specs, name, width, rule, tables, own, placement, devices))
    unknown = {lookup.table for lookup in specs.lookups} - set(rules)
    if unknown:
        raise ConfigError(f"embedding plan: lookups of the tables {sorted(unknown)}, which are not declared")
    return EmbeddingPlan(tuple(stacks))


def _check_dense(groups: Mapping[tuple[int, TableRule, Placement], list[TableSpec]]) -> None:
    for width, rule, placement in groups:
        others = [other for other in groups if other[:2] == (width, rule) and other[2] != placement]
        if rule.update == "dense" and others:
            first, second = groups[width, rule, placement][0].name, groups[others[0]][0].name
            raise ConfigError(
                f"mesh.placements: tables {first!r} ({placement}) and {second!r} ({others[0][2]}) are updated whole by "
                "one rule and have one width; give them one placement"
            )


def _numbers(specs: TableSpecs, rules: Mapping[str, TableRule]) -> dict[str, tuple[int, int]]:
    """Group by width and rule, and place in the group, whatever the placement."""
    groups: dict[tuple[int, TableRule], list[str]] = {}
    for table in specs.tables:
        groups.setdefault((table.width, rules[table.name]), []).append(table.name)
    return {name: (group, place) for group, names in enumerate(groups.values()) for place, name in enumerate(names)}


def _stack_name(width: int, rule: TableRule, placement: Placement) -> str:
    # a densely updated stack keeps its name wherever it lies: the optimizer's state is ordered by it
    where = "" if placement == "replicated" or rule.update == "dense" else f"_{placement}"
    return f"width{width}_{rule.update}_{rule.name}{where}"


def _stack(
    schema: DatasetSchema,
    specs: TableSpecs,
    name: str,
    width: int,
    rule: TableRule,
    tables: list[TableSpec],
    numbers: tuple[tuple[int, int], ...],
    placement: Placement,
    devices: int,
) -> Stack:
    offsets, rows = {}, 0
    for table in tables:
        offsets[table.name] = rows
        rows += table.rows
    columns, features = schema.id_slices(), {feature.name: feature for feature in schema.id_features}
    lookups: list[Lookup] = []
    slot = 0
    for spec in specs.lookups:
        if spec.table not in offsets:
            continue
        if spec.feature not in features:
            raise ConfigError(f"embedding plan: unknown feature {spec.feature!r}; the schema has {sorted(features)}")
        feature = features[spec.feature]
        part = columns[spec.feature]
        combiner = feature.combiner if isinstance(feature, MultiHotFeature) else None
        places = tuple(range(part.start, part.stop))
        lookups.append(Lookup(spec.feature, spec.table, name, places, slot, offsets[spec.table], combiner))
        slot += len(places)
    stack = Stack(
        name, width, rows, rule, tuple(tables), tuple(offsets.values()), tuple(lookups), numbers, placement, devices
    )
    if stack.stored_rows > MAX_ROWS:
        raise ConfigError(
            f"embedding plan: stack {name} has {stack.stored_rows} rows, above the {MAX_ROWS} that int32 ids reach"
        )
    if placement == "dealt_rows" and rule.update == "dense":
        raise ConfigError(
            f"mesh.placements: table {tables[0].name!r} is updated whole, and so its rows stay in order; "
            "received dealt_rows, expected rows, columns or replicated"
        )
    if placement == "columns" and width % devices:
        raise ConfigError(
            f"mesh.placements: table {tables[0].name!r} of width {width} cannot be split by columns over {devices} "
            "devices; choose another placement for it, or a width that the devices divide"
        )
    return stack
