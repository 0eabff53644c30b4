"""Tables of one width and one update rule stacked into one array: one gather and one update each."""

import dataclasses

from wukong_jax.config.checks import check_unique
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

    @property
    def slots(self) -> int:
        """Rows gathered for each example."""
        return sum(len(lookup.columns) for lookup in self.lookups)


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


def plan_embeddings(schema: DatasetSchema, specs: TableSpecs, config: TablesConfig) -> EmbeddingPlan:
    """Stack the tables of one width and rule, in the order of the specs; raises `ConfigError`.

    Errors: a table that no rule matches, a lookup of an unknown table or feature, more rows than int32 ids reach.
    """
    check_unique("embedding plan: tables", [table.name for table in specs.tables])
    rules = {table.name: config.rule_of(table.name, table.rows) for table in specs.tables}
    groups: dict[tuple[int, TableRule], list[TableSpec]] = {}
    for table in specs.tables:
        groups.setdefault((table.width, rules[table.name]), []).append(table)
    names = [_stack_name(width, rule) for width, rule in groups]
    stacks = []
    for number, ((width, rule), tables) in enumerate(groups.items()):
        name = (
            names[number]
            if names.count(names[number]) == 1
            else f"{names[number]}_{names[:number].count(names[number])}"
        )
        stacks.append(_stack(schema, specs, name, width, rule, tables))
    unknown = {lookup.table for lookup in specs.lookups} - set(rules)
    if unknown:
        raise ConfigError(f"embedding plan: lookups of the tables {sorted(unknown)}, which are not declared")
    return EmbeddingPlan(tuple(stacks))


def _stack_name(width: int, rule: TableRule) -> str:
    return f"width{width}_{rule.update}_{rule.name}"


def _stack(
    schema: DatasetSchema, specs: TableSpecs, name: str, width: int, rule: TableRule, tables: list[TableSpec]
) -> Stack:
    offsets, rows = {}, 0
    for table in tables:
        offsets[table.name] = rows
        rows += table.rows
    if rows > MAX_ROWS:
        raise ConfigError(f"embedding plan: stack {name} has {rows} rows, above the {MAX_ROWS} that int32 ids reach")
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
    return Stack(name, width, rows, rule, tuple(tables), tuple(offsets.values()), tuple(lookups))
