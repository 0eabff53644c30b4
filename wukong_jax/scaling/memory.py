"""What a training step needs in memory, by `describe_cost`: nothing is allocated."""

from typing import NamedTuple

import jax

from wukong_jax.config.run import RunConfig
from wukong_jax.scaling.flops import Cost
from wukong_jax.training.micro_batch import micro_batch_size


class Memory(NamedTuple):
    """Bytes of a training step."""

    tables: int
    slots: int
    """Slot variables and work space of the tables."""
    dense: int
    """Dense parameters, their gradient and the optimizer's moments."""
    activations: int
    """At most, of `examples` examples."""
    examples: int
    """Examples worked off at a time."""

    @property
    def total(self) -> int:
        """Bytes of all of it."""
        return self.tables + self.slots + self.dense + self.activations


def step_memory(config: RunConfig, cost: Cost, platform: str | None = None) -> Memory:
    """The memory of a config whose cost is known, on a platform (cpu, gpu, tpu), by default JAX's own."""
    part = micro_batch_size(config, platform or jax.default_backend(), config.train.batch_size)
    return Memory(cost.table_bytes, cost.slot_bytes, cost.dense_bytes, cost.activation_bytes * part, part)
