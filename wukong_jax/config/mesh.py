"""Devices by named axes, and what lies where: embedding tables, dense parameters, the exchange of rows."""

import dataclasses
import re
from typing import Literal

from wukong_jax.config.checks import check_pattern, check_positive
from wukong_jax.errors import ConfigError

Placement = Literal["replicated", "rows", "dealt_rows", "columns"]
"""Where a table's rows lie: whole on every device, blocks of rows, rows dealt out in turn, or blocks of columns."""


@dataclasses.dataclass(frozen=True)
class PlacementRule:
    """Where the tables that match lie; the first matching rule counts."""

    pattern: str = ".*"
    """Regular expression, searched in the table's name."""
    placement: Literal["auto", "replicated", "rows", "dealt_rows", "columns"] = "auto"
    """replicated: whole on every device. rows: block after block. dealt_rows: row r on device r modulo the devices,
    which spreads frequent ids. columns: each device has some columns of every row. auto: the planner chooses."""

    def __post_init__(self) -> None:
        """Check the pattern; raises `ConfigError`."""
        check_pattern("mesh.placements", self.pattern)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices by named axes; one device is a mesh of 1 x 1. The batch and sharded tables are split over all of them."""

    data: int = 1
    """Devices along which only the batch is split."""
    model: int = 1
    """Devices along which large dense parameters are split too, as `dense` says."""
    placements: tuple[PlacementRule, ...] = (PlacementRule(),)
    """Ordered rules of where tables lie; together they must cover every table."""
    dense: Literal["replicated", "fsdp", "tensor"] = "replicated"
    """Large kernels of the dense side. replicated: whole on every device. fsdp: stored in parts along the model axis,
    put together where they are used. tensor: MLPs computed in parts along the model axis."""
    dense_min_parameters: int = 2**16
    """Kernels with fewer parameters are replicated whatever `dense` says."""
    exchange_capacity: float = 1.5
    """Room for ids that a device asks of another, as a multiple of its even share; what does not fit is exchanged in
    further rounds."""
    exchange_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which rows and their gradients travel between devices; sums are taken in float32."""
    lookup_ahead: bool = False
    """Look the rows of a batch's next part up while the model works on this one; takes `train.micro_batch`."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        for name in ("data", "model", "dense_min_parameters", "exchange_capacity"):
            check_positive(f"mesh.{name}", getattr(self, name))
        if self.dense != "replicated" and self.model == 1 and self.data > 1:
            raise ConfigError(
                f"mesh.dense: received {self.dense!r}, which splits along the model axis, and mesh.model=1; "
                f"use for example --mesh.data {max(self.data // 2, 1)} --mesh.model 2"
            )

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.data * self.model

    def placement_of(self, table: str) -> str:
        """What the first matching rule says of a table, `auto` included; raises `ConfigError` if none matches."""
        for rule in self.placements:
            if re.search(rule.pattern, table):
                return rule.placement
        raise ConfigError(f"mesh.placements: no rule matches table {table!r}; end the rules with PlacementRule('.*')")
