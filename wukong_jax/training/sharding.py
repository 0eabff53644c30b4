"""One mesh with named axes for every run, and the sharding of every leaf of the state from ordered path rules."""

import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wukong_jax.config.run import MeshConfig
from wukong_jax.data.batch import Batch
from wukong_jax.errors import ConfigError
from wukong_jax.training.optim import parameter_path

# The first rule that matches a leaf's path counts; a leaf that none matches is an error, never a silent replica.
STATE_RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"^(step|rng|learning_rate_scale|loss_sum)$", PartitionSpec()),
    (r"^(params|batch_stats|opt_state|progressive)/", PartitionSpec()),
    (r"^(tables|slots|scratch)/", PartitionSpec()),
)


def make_mesh(config: MeshConfig) -> Mesh:
    """Mesh of axes (data, model); raises `ConfigError` if there are fewer devices."""
    needed = config.data * config.model
    if needed > jax.device_count():
        raise ConfigError(
            f"mesh: data={config.data} x model={config.model} needs {needed} devices, there are {jax.device_count()}"
        )
    shape, axes = (config.data, config.model), ("data", "model")
    return jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:needed])


def shardings(tree: Any, mesh: Mesh, rules: tuple[tuple[str, PartitionSpec], ...] = STATE_RULES) -> Any:
    """The sharding of each leaf; raises `ConfigError` for a leaf that no rule matches."""

    def of(path: tuple[Any, ...], _: Any) -> NamedSharding:
        name = parameter_path(path)
        for pattern, spec in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, spec)
        raise ConfigError(f"sharding: no rule matches {name!r}; add one to STATE_RULES")

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_shardings(mesh: Mesh) -> Batch:
    """Batches are split along the data axis."""
    return Batch(*[NamedSharding(mesh, PartitionSpec("data"))] * len(Batch._fields))
