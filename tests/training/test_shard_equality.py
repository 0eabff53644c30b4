"""A run over eight devices is the run of one device: in float64 to 1e-8 after 200 steps, whatever lies where.

The devices are eight of one CPU (tests/conftest.py). Batches have ids that many examples share, unused places and
weights.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import table_rule, tiny_config
from wukong_jax.config.baselines import DCNv2Config, DLRMConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig
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
ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("compile_quickly")
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
for name in ("wukong", "wukong with dropout"):  # a type that is no setting: only a proof needs it
    for field in ("dtype", "param_dtype"):
        object.__setattr__(MODELS[name], field, "float64")


def mesh(data: int, model: int, placement: str, **settings: object) -> MeshConfig:
    return MeshConfig(data, model, (PlacementRule(".*", placement),), dense_min_parameters=64, **settings)


SMALL_ITEM = (PlacementRule("item", "dealt_rows"), PlacementRule("user", "columns"), PlacementRule(".*", "replicated"))
# model, update and optimizer of the tables, mesh, examples worked off at a time
CASES = {
    "rows": ("wukong", "row_sparse", "rowwise_adagrad", mesh(8, 1, "rows"), None),
    "rows, tensor": ("wukong with dropout", "row_sparse", "rowwise_adagrad", mesh(2, 4, "rows", dense="tensor"), None),
    "dealt rows that do not fit a round": (
        "wukong",
        "row_sparse",
        "adam",
        mesh(4, 2, "dealt_rows", exchange_capacity=0.01),
        None,
    ),
    "columns, fsdp": ("wukong", "row_sparse", "rowwise_adagrad", mesh(4, 2, "columns", dense="fsdp"), None),
    "replicated": ("wukong", "row_sparse", "adam", mesh(4, 2, "replicated"), None),
    "each table elsewhere, in parts": (
        "wukong",
        "row_sparse",
        "rowwise_adagrad",
        MeshConfig(4, 1, SMALL_ITEM),
        8,
    ),
    "each table elsewhere, in parts looked up ahead": (
        "wukong",
        "row_sparse",
        "rowwise_adagrad",
        MeshConfig(4, 1, SMALL_ITEM, lookup_ahead=True),
        8,
    ),
    "dense rows, tensor": ("wukong", "dense", "adam", mesh(4, 2, "rows", dense="tensor"), None),
    "dense columns, fsdp": ("wukong", "dense", "adam", mesh(2, 2, "columns", dense="fsdp"), None),
    "dense replicated": ("wukong", "dense", "adam", mesh(8, 1, "replicated"), None),
    "dlrm": ("dlrm", "row_sparse", "adagrad", mesh(4, 2, "dealt_rows", dense="fsdp"), None),
    "dcnv2": ("dcnv2", "row_sparse", "sgd", mesh(2, 4, "columns", dense="tensor"), None),
}


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Everything in float64, products and activations too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_einsum", lambda subscripts, dtype, left, right: jnp.einsum(subscripts, left, right))
        patch.setattr(embedding_layer, "activation_dtype", lambda dtype: jnp.dtype(jnp.float64))
        patch.setattr(exchange, "SMALLEST_ROOM", 1)
        jax.config.update("jax_enable_x64", True)
        yield
        jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module", autouse=True)
def _float64() -> Iterator[None]:
    with double_precision():
        yield


def batches() -> list[Batch]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(STEPS):
        one_hot = [rng.zipf(1.5, BATCH) % size for size in (19, 43)]
        tags = rng.integers(-3, 7, (BATCH, 3)).clip(-1)
        ids = np.column_stack([*one_hot, tags]).astype(np.int32)
        labels = (rng.random((BATCH, 1)) < 0.4).astype(np.float64)
        found.append(Batch(ids, rng.normal(size=(BATCH, 1)), np.zeros((BATCH, 0)), labels, rng.uniform(0.5, 2, BATCH)))
    return found


@functools.cache
def trained(model: str, update: str, optimizer: str, on: MeshConfig, part: int | None) -> tuple[Program, TrainState]:
    config = tiny_config(pathlib.Path("none"), SCHEMA, batch_size=BATCH, eval_batch_size=BATCH, micro_batch=part)
    config = dataclasses.replace(
        config,
        model=MODELS[model],
        tables=table_rule(update, optimizer),
        optimizer=OptimizerConfig(clip_norm=1.0, schedule=ScheduleConfig(decay="cosine", warmup_steps=2)),
        mesh=on,
    )
    program = build_program(config, STEPS)
    state = in_float64(program)
    for batch in batches():
        state = jax.block_until_ready(program.train_step(state, jax.device_put(batch, program.batch_shardings)))
    return program, state


def in_float64(program: Program) -> TrainState:
    def wide(leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.jit(lambda state: jax.tree.map(wide, state), out_shardings=program.state_shardings)(program.init())


def tables(program: Program, arrays: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """Each table's rows, in order."""
    found = {}
    for stack in program.plan.stacks:
        if stack.name in arrays:
            rows = np.asarray(logical_rows(stack, arrays[stack.name]))
            for spec, first in zip(stack.tables, stack.offsets, strict=True):
                found[spec.name] = rows[first : first + spec.rows]
    return found


def slots(program: Program, state: TrainState) -> dict[str, dict[str, np.ndarray]]:
    names = {name for found in state.slots.values() for name in found}
    return {
        name: tables(program, {stack: found[name] for stack, found in state.slots.items() if name in found})
        for name in names
    }


SLOW = (
    "rows",
    "rows, tensor",
    "replicated",
    "each table elsewhere, in parts",
    "dense columns, fsdp",
    "dense replicated",
)
EVERY_CASE = [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]


@pytest.mark.parametrize("case", EVERY_CASE)
def test_the_mesh_changes_nothing(case: str):
    model, update, optimizer, on, part = CASES[case]
    one, expected = trained(model, update, optimizer, MeshConfig(), None)
    many, found = trained(model, update, optimizer, on, part)
    assert found.loss_sum.dtype == jnp.float64
    np.testing.assert_allclose(found.loss_sum, expected.loss_sum, rtol=1e-8)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)
    jax.tree.map(close, found.params, expected.params)
    jax.tree.map(close, tables(many, found.tables), tables(one, expected.tables))
    jax.tree.map(close, slots(many, found), slots(one, expected))
    if case.startswith("dealt rows"):
        assert sum(int(count) for count in found.exchange.values()) > STEPS


@pytest.mark.parametrize("case", EVERY_CASE)
def test_nothing_of_a_split_tables_size_is_kept_on_a_device(case: str):
    model, update, optimizer, on, part = CASES[case]
    program, state = trained(model, update, optimizer, on, part)
    for stack in program.plan.stacks:
        table = state.tables[stack.name]
        share = 1 if stack.placement == "replicated" else stack.devices
        assert table.addressable_shards[0].data.size * share == table.size


@pytest.mark.parametrize("case", ["columns, fsdp", "each table elsewhere, in parts looked up ahead"])
def test_diagnostics_are_those_of_one_device(case: str):
    model, update, optimizer, on, part = CASES[case]
    one, expected = trained(model, update, optimizer, MeshConfig(), None)
    many, found = trained(model, update, optimizer, on, part)
    batch = batches()[-1]
    figures = many.diagnose(found, jax.device_put(batch, many.batch_shardings))
    reference = one.diagnose(expected, jax.device_put(batch, one.batch_shardings))
    assert figures.keys() == reference.keys() >= {"gradient_norm/table/item", "update_ratio/table/user"}
    for name, value in reference.items():
        np.testing.assert_allclose(figures[name], value, rtol=1e-5, err_msg=name)


TWO_PROCESSES = ("rows, tensor", "each table elsewhere, in parts", "dense columns, fsdp", "dlrm", "dcnv2")


@pytest.mark.slow
@pytest.mark.parametrize("case", TWO_PROCESSES)
def test_two_processes_change_nothing(case: str, tmp_path: pathlib.Path):
    model, update, optimizer, on, _ = CASES[case]
    with socket.create_server(("", 0)) as free:
        port = str(free.getsockname()[1])
    flags = f"--xla_force_host_platform_device_count={on.devices // 2}"
    # compiled as this process does: exponentials are other ones where XLA optimises
    own = {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    environment = os.environ | own
    words = [sys.executable, "-m", "tests.training.shard_process"]
    started = [
        subprocess.Popen(
            [*words, str(process), port, case, str(tmp_path / "found")],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in (0, 1)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    processes, devices, (loss, params, found_tables, found_slots) = pickle.loads((tmp_path / "found").read_bytes())
    assert (processes, devices) == (2, on.devices)
    one, expected = trained(model, update, optimizer, MeshConfig(), None)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)
    assert loss.dtype == np.float64
    close(loss, expected.loss_sum)
    jax.tree.map(close, params, expected.params)
    jax.tree.map(close, found_tables, tables(one, expected.tables))
    jax.tree.map(close, found_slots, slots(one, expected))
