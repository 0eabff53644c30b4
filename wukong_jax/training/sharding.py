"""One mesh with named axes for every run, and the sharding of every leaf of the state from ordered path rules."""

import re
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wukong_jax.config.mesh import MeshConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.embeddings.sharded import table_spec
from wukong_jax.errors import ConfigError
from wukong_jax.ops.layout import splits_outputs
from wukong_jax.training.optim import parameter_path

AXES = ("data", "model")
WHOLE = PartitionSpec()
Rule = tuple[str, Callable[[str, Any], PartitionSpec]]
"""A pattern of paths, and the layout of a leaf that has such a path."""


def make_mesh(config: MeshConfig) -> Mesh:
    """Mesh of axes (data, model); raises `ConfigError` if there are fewer devices."""
    needed, there = config.devices, jax.device_count()
    if needed > there:
        platform = jax.devices()[0].platform
        more = f", or XLA_FLAGS=--xla_force_host_platform_device_count={needed} to try it on CPU"
        raise ConfigError(
            f"mesh: data={config.data} x model={config.model} needs {needed} devices, there are {there} ({platform}); "
            f"use at most {there}, for example --mesh.data {there} --mesh.model 1, start more processes "
            f"(docs/distributed.md){more if platform == 'cpu' else ''}"
        )
    shape = (config.data, config.model)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:needed])


def state_rules(plan: EmbeddingPlan, state: Any, config: MeshConfig) -> tuple[Rule, ...]:
    """The first rule that matches a leaf's path counts; a leaf that none matches is an error, never a silent replica.

    `state` gives the shapes of all parameters, of which `tensor` splits some for their neighbours' sake.
    """
    stacks = {stack.name: stack for stack in plan.stacks}
    of_tensor = _tensor_specs(state.params, config)

    def of_stack(path: str, leaf: Any) -> PartitionSpec:
        name = next(part for part in path.split("/") if part in stacks)
        return table_spec(stacks[name], AXES, leaf.ndim)

    def of_parameter(path: str, leaf: Any) -> PartitionSpec:
        if config.dense == "fsdp":
            return _fsdp_spec(leaf.shape, config)
        return of_tensor.get(path.rpartition("params/")[2], WHOLE)

    def whole(path: str, leaf: Any) -> PartitionSpec:
        return WHOLE

    return (
        (r"^(step|rng|learning_rate_scale|loss_sum)$", whole),
        (r"^(batch_stats|progressive|exchange)/", whole),
        (r"^(tables|slots|scratch)/", of_stack),
        (r"^opt_state/(.*/)?tables/", of_stack),
        (r"^(params/|opt_state/(.*/)?params/)", of_parameter),
        (r"^opt_state/.*count$", whole),
        (r"^ahead/", lambda path, leaf: PartitionSpec(AXES)),
    )


def shardings(tree: Any, mesh: Mesh, rules: tuple[Rule, ...]) -> Any:
    """The sharding of each leaf; raises `ConfigError` for a leaf that no rule matches."""

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = parameter_path(path)
        for pattern, spec in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, spec(name, leaf))
        raise ConfigError(f"sharding: no rule matches {name!r}; add one to state_rules")

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_shardings(mesh: Mesh) -> Batch:
    """Batches are split over all devices."""
    return Batch(*[NamedSharding(mesh, PartitionSpec(AXES))] * len(Batch._fields))


def _fsdp_spec(shape: tuple[int, ...], config: MeshConfig) -> PartitionSpec:
    """A large array split along its longest axis that the devices divide."""
    size = 1
    for length in shape:
        size *= length
    fitting = [axis for axis, length in enumerate(shape) if length % config.model == 0]
    if config.model == 1 or size < config.dense_min_parameters or not fitting:
        return WHOLE
    axis = max(fitting, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * axis, "model")


def _tensor_specs(params: Any, config: MeshConfig) -> dict[str, PartitionSpec]:
    """By path, the parameters of MLPs that are split: kernels in pairs by outputs and by inputs, and their biases."""
    found: dict[str, PartitionSpec] = {}
    shapes = {parameter_path(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for mlp in dict.fromkeys(path.rpartition("hidden_0/kernel")[0] for path in shapes if "hidden_0/kernel" in path):
        layers = [name for index in range(len(shapes)) if f"{mlp}{(name := f'hidden_{index}')}/kernel" in shapes]
        after_split = False
        for name in [*layers, "output"]:
            kernel = f"{mlp}{name}/kernel"
            if kernel not in shapes:
                continue
            if after_split:
                found[kernel], after_split = PartitionSpec("model"), False
            elif name != "output" and splits_outputs(shapes[kernel], config):
                found |= {kernel: PartitionSpec(None, "model"), f"{mlp}{name}/bias": PartitionSpec("model")}
                after_split = True
    return found
