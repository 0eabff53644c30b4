"""What a model asks for: tables, and which feature looks up which table."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """An embedding table of `rows` x `width`, initialised N(0, init_stddev^2)."""

    name: str
    rows: int
    width: int
    init_stddev: float


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """One lookup: the ids of `feature` read `table`. A feature may have several, a table too."""

    feature: str
    table: str


@dataclasses.dataclass(frozen=True)
class TableSpecs:
    """All tables and lookups of a model for one schema."""

    tables: tuple[TableSpec, ...]
    lookups: tuple[FeatureSpec, ...]
