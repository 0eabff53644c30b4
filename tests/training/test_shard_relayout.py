"""A state saved on some devices goes on on others, its tables laid out otherwise: parameters, slots, moments."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import STEPS_PER_EPOCH, memory_console, plain_config, table_rule, tiny_config
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.data.store import open_store
from wukong_jax.embeddings.relayout import logical_rows
from wukong_jax.training import loop, run
from wukong_jax.training.checkpoint import Checkpoints
from wukong_jax.training.program import Program, build_program
from wukong_jax.training.relayout import layout_json, saved_layout
from wukong_jax.training.run import evaluate_all, load_best, train
from wukong_jax.training.state import TrainState

pytestmark = pytest.mark.usefixtures("compile_quickly")
TABLES = {
    "rowwise_adagrad": table_rule("row_sparse", "rowwise_adagrad"),
    "lazy adam": table_rule("row_sparse", "adam"),
    "dense adam": table_rule("dense", "adam"),
    "one of each": TablesConfig(
        (TableRule("item", update="dense", name="adam"), TableRule(name="rowwise_adagrad", learning_rate=0.05))
    ),
}


def mesh(data: int, model: int, placement: str = "auto", **settings: object) -> MeshConfig:
    return MeshConfig(data, model, (PlacementRule(".*", placement),), dense_min_parameters=8, **settings)


def one_device() -> MeshConfig:
    return MeshConfig()


# tables, saved on, restored on
CASES = {
    "8 to 1, dealt rows": ("lazy adam", mesh(8, 1, "dealt_rows"), one_device()),
    "1 to 8, dealt rows": ("rowwise_adagrad", one_device(), mesh(8, 1, "dealt_rows")),
    "4 x 2 to 2 x 4, fsdp to tensor": (
        "rowwise_adagrad",
        mesh(4, 2, "rows", dense="fsdp"),
        mesh(2, 4, "rows", dense="tensor"),
    ),
    "4 to 2, rows that fill up alike": ("lazy adam", mesh(4, 1, "dealt_rows"), mesh(2, 1, "dealt_rows")),
    "8 to 3": ("lazy adam", mesh(8, 1, "dealt_rows"), mesh(3, 1, "rows")),
    "rows to columns": ("lazy adam", mesh(4, 1, "rows"), mesh(2, 2, "columns")),
    "columns to 1": ("rowwise_adagrad", mesh(4, 1, "columns"), one_device()),
    "dense, 8 to 1": ("dense adam", mesh(4, 2, "rows"), one_device()),
    "dense, 1 to 8": ("dense adam", one_device(), mesh(4, 2, "rows", dense="fsdp")),
    "each table elsewhere": (
        "one of each",
        MeshConfig(4, 1, (PlacementRule("user", "columns"), PlacementRule("tags", "dealt_rows"), PlacementRule())),
        MeshConfig(2, 1, (PlacementRule("user", "rows"), PlacementRule())),
    ),
    "semi-synchronous, 8 to 1": ("lazy adam, a batch ahead", mesh(8, 1, "dealt_rows"), one_device()),
    "semi-synchronous, 1 to 8": ("lazy adam, a batch ahead", one_device(), mesh(8, 1, "rows")),
    "semi-synchronous, each table elsewhere": (
        "one of each, a batch ahead",
        MeshConfig(4, 1, (PlacementRule("user", "columns"), PlacementRule("tags", "dealt_rows"), PlacementRule())),
        MeshConfig(2, 1, (PlacementRule("user", "rows"), PlacementRule())),
    ),
}
AHEAD = ", a batch ahead"


def config_of(tables: str, on: MeshConfig) -> RunConfig:
    settings = {"batch_size": 24, "eval_batch_size": 24, "semi_synchronous": tables.endswith(AHEAD)}
    config = tiny_config(pathlib.Path("none"), **settings)
    return dataclasses.replace(config, tables=TABLES[tables.removesuffix(AHEAD)], mesh=on)


@functools.cache
def program(tables: str, on: MeshConfig) -> Program:
    return build_program(config_of(tables, on), 10)


def some_state(of: Program) -> TrainState:
    """Every value its own, as after training, unused rows too."""
    number = iter(range(10**6))

    def fill(leaf: jax.Array, sharding: jax.sharding.Sharding) -> jax.Array:
        start = next(number) * 1000
        values = np.arange(start, start + leaf.size).reshape(leaf.shape).astype(leaf.dtype)
        return jax.device_put(values, sharding)

    shapes = jax.eval_shape(of.init)
    return jax.tree.map(fill, shapes, of.state_shardings)


def in_order(of: Program, state: TrainState) -> dict[str, np.ndarray]:
    """Every value of a state by name, those of tables with their rows in order."""
    found = {}
    for stack in of.plan.stacks:
        arrays = {"": state.tables[stack.name]} | state.slots.get(stack.name, {})
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
            if f"'{stack.name}'" in jax.tree_util.keystr(path[-1:]):
                arrays[jax.tree_util.keystr(path)] = leaf
        for kind, array in arrays.items():
            rows = np.asarray(logical_rows(stack, array))
            for spec, first in zip(stack.tables, stack.offsets, strict=True):
                found[f"{spec.name} {kind}"] = rows[first : first + spec.rows]
        for lookup in stack.lookups if state.ahead else ():
            slots = slice(lookup.first_slot, lookup.first_slot + len(lookup.columns))
            found[f"{lookup.feature} in {lookup.table}"] = np.asarray(state.ahead["rows"][stack.name])[:, slots]
    for name, array in state.ahead.get("batch", {}).items():
        found[f"ahead {name}"] = np.asarray(array)
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.step, state.rng, state.opt_state)):
        name = jax.tree_util.keystr(path)
        if not any(f"'{stack.name}'" in name for stack in of.plan.stacks):
            found[name] = np.asarray(leaf)
    return found


SLOW = ("8 to 3", "rows to columns", "columns to 1", "dense, 8 to 1", "semi-synchronous, 1 to 8")
EVERY_CASE = [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]


@pytest.mark.parametrize("case", EVERY_CASE)
def test_a_checkpoint_goes_on_elsewhere(case: str, tmp_path: pathlib.Path):
    tables, saved_on, restored_on = CASES[case]
    before, after = program(tables, saved_on), program(tables, restored_on)
    state = some_state(before)
    state = dataclasses.replace(state, step=jnp.asarray(3, jnp.int32))
    expected = in_order(before, state)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(state, {"layout": layout_json(before.plan)})
        checkpoints.wait()
        restored = checkpoints.restore(3, after.abstract_state(), functools.partial(saved_layout, after))
    found = in_order(after, restored.state)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    placed = jax.tree.map(lambda leaf: leaf.sharding, restored.state)
    assert jax.tree.leaves(placed) == jax.tree.leaves(after.state_shardings)


def test_the_program_of_the_same_layout_reads_a_checkpoint_as_it_is():
    of = program("lazy adam", mesh(4, 2, "rows"))
    again = program("lazy adam", mesh(2, 4, "rows"))
    assert saved_layout(again, {"layout": layout_json(of.plan)}) is None
    assert saved_layout(program("lazy adam", MeshConfig()), {}) is None, "runs before there were several devices"


def test_the_first_state_does_not_depend_on_the_mesh():
    one = program("one of each", MeshConfig())
    expected = in_order(one, one.init())
    for on in (CASES["each table elsewhere"][1], mesh(4, 2, "rows"), mesh(4, 1, "columns")):
        other = program("one of each", on)
        found = in_order(other, other.init())
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_a_run_goes_on_elsewhere_and_ends_with_the_best_checkpoint_from_before(tiny_store, tmp_path, monkeypatch):
    """The first evaluation is the best; the run then goes on with other devices, and its record is of that one."""
    scores = iter((0.9, 0.1, 0.1, 0.1))
    monkeypatch.setattr(loop, "monitored", lambda metrics, monitor: next(scores))
    monkeypatch.setattr(run, "draw_curves", lambda *arguments: None)
    config = plain_config(tiny_store, epochs=3)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            dataclasses.replace(config, mesh=mesh(4, 1, "dealt_rows")), tmp_path, memory_console(), on_evaluation=stop
        )
    record = train(dataclasses.replace(config, mesh=mesh(2, 1, "rows")), tmp_path, memory_console())
    assert (record["best_step"], record["steps"]) == (STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH)
    assert record["devices"] == 2

    monkeypatch.setattr(jax, "device_count", lambda: 1)
    program, best = load_best(tmp_path, pytest.fail)
    assert (program.mesh.size, best.step) == (1, STEPS_PER_EPOCH)
    results = evaluate_all(program, open_store(tiny_store), best.state)
    for name, value in record["results"]["test"].items():
        assert results["test"][name] == pytest.approx(value, rel=1e-5)
