"""What a training step needs in memory, by `describe_cost`: nothing is allocated."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding

from wukong_jax.config.run import RunConfig
from wukong_jax.embeddings.plan import plan_embeddings
from wukong_jax.embeddings.planner import TableChoice
from wukong_jax.models.registry import build_model, table_specs
from wukong_jax.scaling.flops import Cost
from wukong_jax.training.micro_batch import micro_batch_size
from wukong_jax.training.optim import dense_optimizer, parameter_path
from wukong_jax.training.sharding import AXES, state_rules
from wukong_jax.training.state import init_state


class Memory(NamedTuple):
    """Bytes of a training step."""

    tables: int
    slots: int
    """Slot variables and work space of the tables."""
    dense: int
    """Dense parameters, their gradient and the optimizer's moments."""
    activations: int
    """At most, of `examples` examples; with the next batch's rows where they are looked up ahead."""
    examples: int
    """Examples worked off at a time."""

    @property
    def total(self) -> int:
        """Bytes of all of it."""
        return self.tables + self.slots + self.dense + self.activations


def step_memory(config: RunConfig, cost: Cost, platform: str | None = None) -> Memory:
    """The memory of a config whose cost is known, on a platform (cpu, gpu, tpu), by default JAX's own."""
    part = micro_batch_size(config, platform or jax.default_backend(), config.train.batch_size)
    activations = cost.activation_bytes * part + _ahead_bytes(config)
    return Memory(cost.table_bytes, cost.slot_bytes, cost.dense_bytes, activations, part)


def device_memory(config: RunConfig, cost: Cost, choices: Sequence[TableChoice], platform: str) -> Memory:
    """The memory of each device of the config's mesh, tables placed as chosen; activations as if none were split."""
    part = micro_batch_size(config, platform, config.train.batch_size) // config.mesh.devices
    tables = sum(choice.table_bytes for choice in choices)
    slots = sum(choice.slot_bytes for choice in choices)
    activations = cost.activation_bytes * part + _ahead_bytes(config) // config.mesh.devices
    return Memory(tables, slots, _dense_bytes(config), activations, part)


def _ahead_bytes(config: RunConfig) -> int:
    """Bytes of the next batch's rows, over all devices."""
    if not config.train.semi_synchronous:
        return 0
    plan = plan_embeddings(config.batch_schema, table_specs(config.model, config.batch_schema), config.tables)
    return sum(4 * config.train.batch_size * stack.slots * stack.width for stack in plan.stacks)


def _dense_bytes(config: RunConfig) -> int:
    """Bytes at rest on a device, laid out as the training program does: parameters, gradient, optimizer's moments."""
    schema = config.batch_schema
    plan = plan_embeddings(schema, table_specs(config.model, schema), config.tables)
    model, optimizer = build_model(config.model, schema), dense_optimizer(config.optimizer, plan, 1)
    state = jax.eval_shape(lambda: init_state(model, plan, optimizer, config, slot=False))
    rules = state_rules(plan, state, config.mesh)
    mesh = AbstractMesh((config.mesh.data, config.mesh.model), AXES, axis_types=(AxisType.Auto,) * 2)
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = parameter_path(path)
        if not re.search(r"^(params|opt_state/(.*/)?params)/", name):
            continue
        spec = next(spec(name, leaf) for pattern, spec in rules if re.search(pattern, name))
        own = math.prod(NamedSharding(mesh, spec).shard_shape(leaf.shape)) * leaf.dtype.itemsize
        total += own * (2 if name.startswith("params/") else 1)  # with the gradient
    return total
