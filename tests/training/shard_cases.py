"""What the proofs of several devices train: models, placements, meshes, and 200 batches.

Batches have ids that many examples share, unused places and weights.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import table_rule, tiny_config
from wukong_jax.config.baselines import DCNv2Config, DLRMConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.config.models import ModelConfig, WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig, TablesConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature
from wukong_jax.embeddings import exchange
from wukong_jax.embeddings.relayout import logical_rows
from wukong_jax.models import embedding_layer
from wukong_jax.ops import products
from wukong_jax.training.program import Program, build_program
from wukong_jax.training.state import TrainState

SCHEMA = DatasetSchema(
    categorical=(CategoricalFeature("user", 19), CategoricalFeature("item", 43)),
    multi_hot=(MultiHotFeature("tags", 7, 3, "mean"),),
    numeric=(NumericFeature("price"),),
)
BATCH, STEPS = 32, 200
MLP = MLPConfig((16, 8))
XLA = {"implementation": "xla_cpu"}
MODELS = {
    "wukong": WukongConfig(
        width=8, num_layers=2, num_fmb=2, num_lcb=2, rank=2, fmb_mlp=MLP, head=MLPConfig((16, 8, 8)), **XLA
    ),
    "wukong with dropout": WukongConfig(
        width=8,
        num_layers=1,
        num_fmb=2,
        num_lcb=2,
        fm="full",
        head=MLPConfig((16, 8), dropout=0.2, batch_norm=True),
        **XLA,
    ),
    "dlrm": DLRMConfig(width=8, embedding=EmbeddingConfig(dense_mlp=MLP), top_mlp=MLP),
    "dcnv2": DCNv2Config(width=8, num_layers=2, mlp=MLP),
}


class Case(NamedTuple):
    """A model, how its tables are updated, where they lie, and the examples worked off at a time."""

    model: str
    update: str
    optimizer: str
    mesh: MeshConfig
    micro_batch: int | None = None
    semi_synchronous: bool = False

    def on_one_device(self) -> "Case":
        return self._replace(mesh=MeshConfig(), micro_batch=None)


class Trained(NamedTuple):
    program: Program
    state: TrainState
    losses: np.ndarray
    """Of every step: (steps,)."""


def mesh(data: int, model: int, placement: str, **settings: object) -> MeshConfig:
    return MeshConfig(data, model, (PlacementRule(".*", placement),), dense_min_parameters=64, **settings)


MIXED = (PlacementRule("item", "dealt_rows"), PlacementRule("user", "columns"), PlacementRule(".*", "replicated"))
SMALL_ROOM = {"exchange_capacity": 0.01}
CASES = {
    "rows": Case("wukong", "row_sparse", "rowwise_adagrad", mesh(8, 1, "rows")),
    "rows of two devices": Case("wukong", "row_sparse", "rowwise_adagrad", mesh(2, 1, "rows")),
    "rows, tensor": Case("wukong with dropout", "row_sparse", "rowwise_adagrad", mesh(2, 4, "rows", dense="tensor")),
    "dealt rows that do not fit a round": Case("wukong", "row_sparse", "adam", mesh(4, 2, "dealt_rows", **SMALL_ROOM)),
    "columns, fsdp": Case("wukong", "row_sparse", "rowwise_adagrad", mesh(4, 2, "columns", dense="fsdp")),
    "replicated": Case("wukong", "row_sparse", "adam", mesh(4, 2, "replicated")),
    "each table elsewhere, in parts": Case("wukong", "row_sparse", "rowwise_adagrad", MeshConfig(4, 1, MIXED), 8),
    "each table elsewhere, in parts looked up ahead": Case(
        "wukong", "row_sparse", "rowwise_adagrad", MeshConfig(4, 1, MIXED, lookup_ahead=True), 8
    ),
    "semi-synchronous, dealt rows": Case("wukong", "row_sparse", "adam", mesh(8, 1, "dealt_rows"), 16, True),
    "dense rows, tensor": Case("wukong", "dense", "adam", mesh(4, 2, "rows", dense="tensor")),
    "dense columns, fsdp": Case("wukong", "dense", "adam", mesh(2, 2, "columns", dense="fsdp")),
    "dense replicated": Case("wukong", "dense", "adam", mesh(8, 1, "replicated")),
    "dlrm": Case("dlrm", "row_sparse", "adagrad", mesh(4, 2, "dealt_rows", dense="fsdp")),
    "dcnv2": Case("dcnv2", "row_sparse", "sgd", mesh(2, 4, "columns", dense="tensor")),
}


@contextlib.contextmanager
def small_exchange_rooms() -> Iterator[None]:
    """Let few ids fill the room of an exchange, as many do in earnest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "SMALLEST_ROOM", 1)
        yield


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Everything in float64, products and activations too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_einsum", lambda subscripts, dtype, left, right: jnp.einsum(subscripts, left, right))
        patch.setattr(embedding_layer, "activation_dtype", lambda dtype: jnp.dtype(jnp.float64))
        jax.config.update("jax_enable_x64", True)
        yield
        jax.config.update("jax_enable_x64", False)


def batches(dtype: str = "float64") -> list[Batch]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(STEPS):
        one_hot = [rng.zipf(1.5, BATCH) % size for size in (19, 43)]
        tags = rng.integers(-3, 7, (BATCH, 3)).clip(-1)
        ids = np.column_stack([*one_hot, tags]).astype(np.int32)
        labels = (rng.random((BATCH, 1)) < 0.4).astype(dtype)
        numeric, weights = rng.normal(size=(BATCH, 1)).astype(dtype), rng.uniform(0.5, 2, BATCH).astype(dtype)
        found.append(Batch(ids, numeric, np.zeros((BATCH, 0), dtype), labels, weights))
    return found


@functools.cache
def trained(case: Case, dtype: str = "float64") -> Trained:
    """After all batches; `dtype` float64 asks for `double_precision`."""
    settings = {"micro_batch": case.micro_batch, "semi_synchronous": case.semi_synchronous}
    config = tiny_config(pathlib.Path("none"), SCHEMA, batch_size=BATCH, eval_batch_size=BATCH, **settings)
    config = dataclasses.replace(
        config,
        model=_model(case.model, dtype),
        tables=_table_rule(case.update, case.optimizer),
        optimizer=OptimizerConfig(clip_norm=1.0, schedule=ScheduleConfig(decay="cosine", warmup_steps=2)),
        mesh=case.mesh,
    )
    program = build_program(config, STEPS)
    cast = functools.partial(jax.tree.map, lambda leaf: _cast(leaf, dtype))
    state = jax.jit(cast, out_shardings=program.state_shardings)(program.init())
    losses, taken = [], [jax.device_put(batch, program.batch_shardings) for batch in batches(dtype)]
    if case.semi_synchronous:
        state, taken = program.look_up_first(state, taken[0]), [*taken[1:], taken[0]]
    for batch in taken:
        zero = jax.device_put(np.zeros((), dtype), program.state_shardings.loss_sum)
        state = jax.block_until_ready(program.train_step(state.replace(loss_sum=zero), batch))
        losses.append(np.array(state.loss_sum))
    return Trained(program, state, np.array(losses))


def tables(program: Program, arrays: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """Each table's rows, in order."""
    found = {}
    for stack in program.plan.stacks:
        if stack.name in arrays:
            rows = np.asarray(logical_rows(stack, arrays[stack.name]))
            for spec, first in zip(stack.tables, stack.offsets, strict=True):
                found[spec.name] = rows[first : first + spec.rows]
    return found


def slots(program: Program, arrays: dict[str, dict[str, jax.Array]]) -> dict[str, dict[str, np.ndarray]]:
    names = {name for found in arrays.values() for name in found}
    return {
        name: tables(program, {stack: found[name] for stack, found in arrays.items() if name in found})
        for name in names
    }


def _model(name: str, dtype: str) -> ModelConfig:
    config = dataclasses.replace(MODELS[name])
    if isinstance(config, WukongConfig):
        for field in ("dtype", "param_dtype"):  # float64 is no setting: only a proof needs it
            object.__setattr__(config, field, dtype)
    return config


def _table_rule(update: str, name: str) -> TablesConfig:
    """At Adam's usual rate: at .05 a last digit of float32 grows to a loss of another 1e-2, on one device too."""
    [rule] = table_rule(update, name).rules
    return TablesConfig((dataclasses.replace(rule, learning_rate=1e-3) if name == "adam" else rule,))


def _cast(leaf: jax.Array, dtype: str) -> jax.Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
