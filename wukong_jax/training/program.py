"""A config made runnable: model, plan, optimizer, mesh and the compiled steps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wukong_jax.config.models import ModelConfig, WukongConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.config.sequential import BackboneConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.plan import EmbeddingPlan, plan_embeddings
from wukong_jax.embeddings.planner import placements_of
from wukong_jax.embeddings.sharded import OverMesh
from wukong_jax.embeddings.table_ops import ONE_DEVICE, TableOps
from wukong_jax.errors import ConfigError
from wukong_jax.models.registry import build_model, table_specs
from wukong_jax.ops.layout import Layout, traced_on
from wukong_jax.ops.platform import check_implementation, compiler_options
from wukong_jax.sequential.backbone import check_dtype
from wukong_jax.training.diagnostics import Figures, make_diagnose
from wukong_jax.training.micro_batch import check_lookup_ahead, evaluation_part, micro_batch_size
from wukong_jax.training.objective import Objective, make_objective
from wukong_jax.training.optim import dense_optimizer
from wukong_jax.training.semi_synchronous import blank_ahead, check_semi_synchronous, look_ahead
from wukong_jax.training.sharding import batch_shardings, make_mesh, shardings, state_rules
from wukong_jax.training.state import TrainState, init_state
from wukong_jax.training.step import make_eval_step, make_train_step

ON_ONE_DEVICE = ("cpu_kernel", "mosaic_gpu", "tpu")


@dataclasses.dataclass(frozen=True)
class Program:
    """What the loop runs. `train_step` takes its state over (donation): do not use the old one again."""

    config: RunConfig
    model: nn.Module
    plan: EmbeddingPlan
    objective: Objective
    mesh: Mesh
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], TrainState]
    look_up_first: Callable[[TrainState, Batch], TrainState]
    """Put a run's first batch into its state, where a step trains the batch that was looked up by the one before."""
    eval_step: Callable[[TrainState, Any, Batch], tuple[Any, jax.Array]]
    diagnose: Callable[[TrainState, Batch], Figures]
    """Compiled when first called; leaves the state as it is."""
    state_shardings: TrainState
    batch_shardings: Batch

    @property
    def one_at_a_time(self) -> bool:
        """Whether a step must end before the next is started.

        Devices of one CPU share its threads, and steps that wait for each other's collectives can take all of them.
        """
        return self.mesh.local_mesh.size > 1 and self.mesh.devices.flat[0].platform == "cpu"

    def abstract_state(self) -> Any:
        """Shapes, dtypes and shardings of the state, without allocating it."""
        shapes = jax.eval_shape(self.init)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.state_shardings,
        )


def build_program(config: RunConfig, total_steps: int) -> Program:
    """Build and jit everything for a run of `total_steps`; raises `ConfigError` where the parts do not fit."""
    mesh = make_mesh(config.mesh)
    platform = mesh.devices.flat[0].platform
    model = build_model(_on_one_device(config.model, mesh), config.batch_schema)
    plan = plan_of(config)
    objective = make_objective(config, plan)
    optimizer = dense_optimizer(config.optimizer, plan, total_steps)
    part_of = functools.partial(micro_batch_size, config, platform)
    part = part_of(config.train.batch_size)  # a bad size is refused now, not when the first batch is there
    check_lookup_ahead(config, part)
    check_semi_synchronous(config)
    if isinstance(config.model, WukongConfig):
        check_implementation(config.model.implementation, config.model.dtype, platform)
        if mesh.size > 1 and config.model.implementation in ON_ONE_DEVICE:
            raise ConfigError(
                f"model.implementation: received {config.model.implementation!r} and a mesh of {mesh.size} devices, "
                "over which XLA cannot split its kernels; use 'auto'"
            )
    if isinstance(config.model, BackboneConfig):
        check_dtype(config.model, platform)
    slot, options = uses_slot(config, platform), compiler_options(platform)
    operations: TableOps = ONE_DEVICE if mesh.size == 1 else OverMesh(mesh, config.mesh)
    traced = functools.partial(_traced_on, Layout(mesh, config.mesh))

    def init() -> TrainState:
        state = init_state(model, plan, optimizer, config, slot=slot, mesh=mesh)
        if not config.train.semi_synchronous:
            return state
        return dataclasses.replace(state, ahead=blank_ahead(plan, config))

    def look_up_first(state: TrainState, batch: Batch) -> TrainState:
        parts = batch.ids.shape[0] // part_of(batch.ids.shape[0])
        return dataclasses.replace(state, ahead=look_ahead(objective, state, batch, state.step, parts, operations))

    shapes = jax.eval_shape(init)
    state_shardings = shardings(shapes, mesh, state_rules(plan, shapes, config.mesh))
    on_batch = batch_shardings(mesh)
    train_step = jax.jit(
        traced(make_train_step(model, objective, optimizer, config, total_steps, part_of, operations)),
        in_shardings=(state_shardings, on_batch),
        out_shardings=state_shardings,
        donate_argnums=0,
        compiler_options=options,
    )
    first = jax.jit(
        traced(look_up_first),
        in_shardings=(state_shardings, on_batch),
        out_shardings=state_shardings,
        donate_argnums=0,
        compiler_options=options,
    )
    # given for the metrics going in and out, so that the second call compiles nothing
    everywhere = NamedSharding(mesh, PartitionSpec())
    eval_step = jax.jit(
        traced(make_eval_step(model, objective, functools.partial(evaluation_part, config, platform), operations)),
        in_shardings=(state_shardings, everywhere, on_batch),
        out_shardings=everywhere,
        donate_argnums=1,
        compiler_options=options,
    )
    diagnose = jax.jit(
        traced(make_diagnose(model, objective, optimizer, config, total_steps, part_of, operations)),
        in_shardings=(state_shardings, on_batch),
        out_shardings=everywhere,
        compiler_options=options,
    )
    jitted_init = jax.jit(init, out_shardings=state_shardings)
    steps = (train_step, first, eval_step, diagnose)
    return Program(config, model, plan, objective, mesh, jitted_init, *steps, state_shardings, on_batch)


def plan_of(config: RunConfig) -> EmbeddingPlan:
    """The stacks of a config, placed on its mesh."""
    specs, devices = table_specs(config.model, config.batch_schema), config.mesh.devices
    placements = placements_of(config) if devices > 1 else None
    return plan_embeddings(config.batch_schema, specs, config.tables, placements, devices)


def _traced_on(layout: Layout, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with traced_on(layout):
            return function(*arguments)

    return traced


def _on_one_device(config: ModelConfig, mesh: Mesh) -> ModelConfig:
    """XLA cannot split the CPU kernels over several devices, as it does with its own operations."""
    if isinstance(config, WukongConfig) and config.implementation == "auto" and mesh.size > 1:
        return dataclasses.replace(config, implementation="xla_cpu" if jax.default_backend() == "cpu" else "xla")
    return config


def uses_slot(config: RunConfig, platform: str) -> bool:
    """Whether equal ids are merged by slot (one CPU device) or by sort (elsewhere, where it is deterministic)."""
    by_default = platform == "cpu" and config.mesh.devices == 1
    return config.tables.deduplicate == "slot" or (config.tables.deduplicate == "auto" and by_default)
