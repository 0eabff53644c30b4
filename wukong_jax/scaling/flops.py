"""FLOPs and parameters of a model from its traced program: nothing is allocated or run.

Convention (the paper's, section 7.1.2): inference takes the forward FLOPs, training 3 x as many, one for the forward
and two for the backward pass. Only matrix products count, 2 FLOPs per multiply-add; LayerNorm, activations, pooling and
lookups do not. `closed_form.py` has the same count by formula.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from wukong_jax.config.mesh import MeshConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.optimizers import row_optimizer
from wukong_jax.embeddings.plan import EmbeddingPlan, plan_embeddings
from wukong_jax.embeddings.planner import MOMENTS
from wukong_jax.embeddings.specs import TableSpec
from wukong_jax.models.embedding_layer import count_embeddings
from wukong_jax.models.registry import build_model, table_specs
from wukong_jax.ops.layer_norm import SUMS_SCOPE
from wukong_jax.training.program import uses_slot
from wukong_jax.training.state import blank_batch, init_variables, make_inputs

TRAINING_FACTOR = 3


class Cost(NamedTuple):
    """Forward FLOPs per example and dense parameters by component; rows and parameters by table; bytes of the state."""

    forward_flops: dict[str, int]
    dense_parameters: dict[str, int]
    tables: tuple[tuple[TableSpec, str], ...]
    """Every table with its update, such as `row_sparse adagrad`."""
    table_bytes: int
    slot_bytes: int
    dense_bytes: int
    """Parameters, their gradient and the optimizer's moments."""
    activation_bytes: int
    """Per example: every intermediate array of the forward pass, a bound on what the backward pass keeps."""

    @property
    def inference_flops(self) -> int:
        """FLOPs per example of a prediction: forward."""
        return sum(self.forward_flops.values())

    @property
    def training_flops(self) -> int:
        """FLOPs per example of a training step: 3 x forward."""
        return TRAINING_FACTOR * self.inference_flops

    @property
    def dense_total(self) -> int:
        """Dense parameters."""
        return sum(self.dense_parameters.values())

    @property
    def sparse_total(self) -> int:
        """Parameters in tables."""
        return sum(spec.rows * spec.width for spec, _ in self.tables)


class Interaction(NamedTuple):
    """The FM of one layer of Wukong, with its low-rank products and as the full X X^T; forward FLOPs per example."""

    layer: int
    embeddings: int
    """n."""
    rank: int
    """k."""
    low_rank_flops: int
    """X (X^T Y): 4 n k d."""
    full_flops: int
    """X X^T: 2 n^2 d."""


def fm_interactions(config: WukongConfig, schema: DatasetSchema) -> tuple[Interaction, ...]:
    """What each layer's FM takes either way; the MLP behind it reads n k or n^2 values."""
    n, found = count_embeddings(schema, config.embedding), []
    for index in range(config.num_layers):
        layer = config.layer(index)
        low_rank, full = 4 * n * layer.rank * config.width, 2 * n * n * config.width
        found.append(Interaction(index, n, layer.rank, low_rank, full))
        n = layer.num_fmb + layer.num_lcb
    return tuple(found)


def describe_cost(config: RunConfig) -> Cost:
    """Cost of the config's model on one device; raises `ConfigError` where the config cannot be built."""
    one_device = dataclasses.replace(config, mesh=MeshConfig())
    model_config = config.model
    if isinstance(model_config, WukongConfig):  # the paper's formulas: the same count on every platform
        model_config = dataclasses.replace(model_config, implementation="reference")
    model = build_model(model_config, config.batch_schema)
    plan = plan_embeddings(config.batch_schema, table_specs(config.model, config.batch_schema), config.tables)
    variables = jax.eval_shape(lambda key: init_variables(model, plan, config, key), jax.random.key(0))
    tables = {stack.name: jax.ShapeDtypeStruct((stack.rows, stack.width), jnp.float32) for stack in plan.stacks}

    def forward(variables: Any, tables: Any, batch: Any) -> Any:
        return model.apply(variables, make_inputs(plan, batch, tables), train=False)

    def program(examples: int) -> core.Jaxpr:
        batch = jax.eval_shape(lambda: blank_batch(config, examples))
        return jax.make_jaxpr(forward)(variables, tables, batch).jaxpr

    one, two = program(1), program(2)
    flops: Counter[str] = Counter()
    for component, count in matmul_flops(one):
        flops[_component(component)] += count
    parameters: Counter[str] = Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        parameters[_component("/".join(key.key for key in path))] += math.prod(leaf.shape)
    return Cost(
        dict(flops),
        dict(parameters),
        tuple((spec, f"{stack.rule.update} {stack.rule.name}") for stack in plan.stacks for spec in stack.tables),
        sum(4 * stack.rows * stack.width for stack in plan.stacks),
        sum(_slot_bytes(plan, work_space=uses_slot(one_device, jax.default_backend()))),
        _bytes(variables["params"]) * (2 + MOMENTS[config.optimizer.name]),
        _intermediate_bytes(two) - _intermediate_bytes(one),  # without what is there once, such as cast weights
    )


def matmul_flops(jaxpr: core.Jaxpr, prefix: str = "", repeats: int = 1) -> Iterator[tuple[str, int]]:
    """(module path, FLOPs) of every matrix product of a traced program, loops counted by their length."""
    for equation in jaxpr.eqns:
        path = "/".join(part for part in (prefix, str(equation.source_info.name_stack)) if part)
        if equation.primitive.name == "dot_general" and SUMS_SCOPE not in path.split("/"):
            contracted, _ = equation.params["dimension_numbers"][0]
            left: Any = equation.invars[0].aval
            out: Any = equation.outvars[0].aval
            yield path, repeats * 2 * math.prod(left.shape[axis] for axis in contracted) * math.prod(out.shape)
        inner_repeats = repeats * equation.params.get("length", 1) if equation.primitive.name == "scan" else repeats
        for inner in _inner_programs(equation.params):
            yield from matmul_flops(inner, path, inner_repeats)


def _intermediate_bytes(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = list(_inner_programs(equation.params))
        total += sum(map(_intermediate_bytes, inner)) or _bytes([variable.aval for variable in equation.outvars])
    return total


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _inner_programs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _component(path: str) -> str:
    """The first two module names below the model: `layer_0/fmb`, `head`, `embedding_layer/dense`."""
    parts = [part.partition(".")[0] for part in path.split("/") if re.match(r"[a-z][\w.]*$", part)]
    leaves = {"kernel", "bias", "scale", "weight", "output", "projection", "numeric"}
    kept = [part for part in parts if part not in leaves and not part.startswith(("hidden_", "batch_norm_"))]
    return "/".join(kept[:2]) or "model"


def _slot_bytes(plan: EmbeddingPlan, *, work_space: bool) -> Iterator[int]:
    for stack in plan.stacks:
        if stack.rule.update == "dense":
            yield 4 * (1 + MOMENTS[stack.rule.name]) * stack.rows * stack.width  # and the gradient
            continue
        optimizer = row_optimizer(stack.rule)
        slots = jax.eval_shape(lambda stack=stack, optimizer=optimizer: optimizer.init(stack.rows, stack.width))
        yield sum(4 * math.prod(slot.shape) for slot in slots.values())
        yield 4 * stack.rows if work_space else 0  # of the slot de-duplication
