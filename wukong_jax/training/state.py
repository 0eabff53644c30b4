"""Everything that a training step reads and writes."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.embeddings.initialise import init_stack
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.optimizers import row_optimizer
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.embeddings.table_ops import ONE_DEVICE, TableOps
from wukong_jax.evaluation.metrics import MetricState, init_metrics

Leaf = Any  # an array; in an abstract state its shape, in a tree of shardings its sharding


@flax.struct.dataclass
class TrainState:
    """One pytree; donated to each step. All of it but `scratch` is in every checkpoint."""

    step: Leaf
    params: Any
    batch_stats: Any
    """Running means and variances of BatchNorm; empty without it."""
    opt_state: optax.OptState
    tables: dict[str, Leaf]
    """All stacks, dense and row-sparse."""
    slots: dict[str, dict[str, Leaf]]
    """Slot variables of the row-sparse stacks."""
    rng: Leaf
    """Key data from which each step's dropout key is derived."""
    learning_rate_scale: Leaf
    """Product of the plateau's factors."""
    loss_sum: Leaf
    """Sum of the steps' losses since the last point of the training curve."""
    progressive: tuple[MetricState, ...]
    """Metrics of progressive validation, one per task; empty when it is off."""
    exchange: dict[str, Leaf]
    """By stack that is split by rows, the rows that needed further rounds of exchange since the training curve's last
    point; at most the largest int32."""
    scratch: dict[str, Leaf]
    """Work space of the slot de-duplication: its content never matters between steps."""
    ahead: dict[str, dict[str, Leaf]] = dataclasses.field(default_factory=dict)
    """The batch of the next step and its rows, where these are looked up one step early; else empty."""


def key_of_step(state: TrainState, step: jax.Array) -> jax.Array:
    """The key of all that is random in a step."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.rng), step)


def look_up(
    plan: EmbeddingPlan, tables: dict[str, jax.Array], ids: Int[Array, "batch id_columns"], operations: TableOps
) -> dict[str, Float[Array, "batch slots width"]]:
    """The rows of a batch, by stack."""
    with jax.named_scope("gather"):
        return {stack.name: operations.gather(stack, tables[stack.name], ids) for stack in plan.stacks}


def make_inputs(
    plan: EmbeddingPlan, batch: Batch, tables: dict[str, jax.Array], operations: TableOps = ONE_DEVICE
) -> Inputs:
    """Look up all rows of a batch."""
    dense = {stack.name: tables[stack.name] for stack in plan.dense}
    rows = look_up(plan, tables, batch.ids, operations)
    return Inputs(rows, dense, batch.ids, batch.numeric, batch.vectors, plan)


def blank_batch(config: RunConfig, rows: int) -> Batch:
    """A batch of zeros with the shapes of the config's schema."""
    schema = config.batch_schema
    return Batch(
        jnp.zeros((rows, schema.id_columns), jnp.int32),
        jnp.zeros((rows, len(schema.numeric))),
        jnp.zeros((rows, schema.vector_columns)),
        jnp.zeros((rows, len(schema.labels))),
        jnp.ones(rows),
    )


def init_variables(model: nn.Module, plan: EmbeddingPlan, config: RunConfig, key: jax.Array) -> dict[str, Any]:
    """Parameters and BatchNorm statistics of the dense side."""
    tables = {stack.name: jnp.zeros((1, stack.width)) for stack in plan.stacks}
    inputs = make_inputs(plan, blank_batch(config, 1), tables)
    # one row is enough for shapes, except for a whole table that a model reads
    whole = {stack.name: jnp.zeros((stack.stored_rows, stack.width)) for stack in plan.dense}
    return dict(model.init({"params": key}, dataclasses.replace(inputs, tables=whole), train=False))


def init_state(
    model: nn.Module,
    plan: EmbeddingPlan,
    optimizer: optax.GradientTransformation,
    config: RunConfig,
    *,
    slot: bool,
    mesh: Mesh | None = None,
) -> TrainState:
    """The state before the first step; every value follows from the config's seed, not from the mesh.

    `slot` says whether the slot de-duplication is used, which needs an int32 per row of work space.
    """
    params_key, tables_key, rng = jax.random.split(jax.random.key(config.train.seed), 3)
    variables = init_variables(model, plan, config, params_key)
    tables = {stack.name: init_stack(stack, tables_key, mesh) for stack in plan.stacks}
    dense = {"params": variables["params"], "tables": {stack.name: tables[stack.name] for stack in plan.dense}}
    slots = {stack.name: row_optimizer(stack.rule).init(stack.stored_rows, stack.width) for stack in plan.row_sparse}
    tasks = len(config.batch_schema.labels) if config.train.progressive else 0
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(dense),
        tables=tables,
        slots=slots,
        rng=jax.random.key_data(rng),
        learning_rate_scale=jnp.ones(()),
        loss_sum=jnp.zeros(()),
        progressive=tuple(init_metrics() for _ in range(tasks)),
        exchange={stack.name: jnp.zeros((), jnp.int32) for stack in plan.stacks if stack.split_by_rows},
        scratch={stack.name: jnp.zeros(stack.stored_rows, jnp.int32) for stack in plan.row_sparse} if slot else {},
    )
