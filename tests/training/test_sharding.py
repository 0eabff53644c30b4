import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.tiny import table_rule, tiny_config
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.errors import ConfigError
from wukong_jax.ops.layout import Layout, gathered, traced_on
from wukong_jax.training.optim import parameter_path
from wukong_jax.training.program import build_program
from wukong_jax.training.sharding import batch_shardings, make_mesh, shardings


def test_one_device_is_a_mesh_of_named_auto_axes():
    mesh = make_mesh(MeshConfig())
    assert mesh.axis_names == ("data", "model")
    assert dict(mesh.shape) == {"data": 1, "model": 1}
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_a_mesh_larger_than_the_devices_is_refused():
    count = jax.device_count()
    with pytest.raises(ConfigError, match=rf"needs {2 * count} devices, there are {count} \(cpu\)") as refused:
        make_mesh(MeshConfig(2 * count))
    for mend in (f"--mesh.data {count} ", "more processes", f"device_count={2 * count} "):
        assert mend in str(refused.value)


def test_the_first_matching_rule_counts_and_every_leaf_needs_one():
    mesh = make_mesh(MeshConfig())
    tree = {"params": {"head": {"kernel": jnp.zeros((2, 2))}}, "tables": {"a": jnp.zeros((4, 2))}}
    rules = ((r"^tables/", lambda path, leaf: PartitionSpec("model")), (r"a", lambda path, leaf: PartitionSpec()))
    found = shardings(tree, mesh, rules)
    assert found["tables"]["a"].spec == PartitionSpec("model")
    assert found["params"]["head"]["kernel"].spec == PartitionSpec()
    with pytest.raises(ConfigError, match=r"no rule matches 'params/head/kernel'; add one to state_rules"):
        shardings(tree, mesh, rules[:1])


def test_batches_are_split_over_all_devices():
    assert {sharding.spec for sharding in batch_shardings(make_mesh(MeshConfig(2, 2)))} == {
        PartitionSpec(("data", "model"))
    }


SMALL = MLPConfig((16, 8))
WHOLE, BY_ROWS, BY_COLUMNS = PartitionSpec(), PartitionSpec(("data", "model")), PartitionSpec(None, ("data", "model"))
STACKS = {  # placement: table, slot with a value a row, slot with one for each value
    "replicated": (WHOLE, WHOLE, WHOLE),
    "rows": (BY_ROWS, BY_ROWS, BY_ROWS),
    "dealt_rows": (BY_ROWS, BY_ROWS, BY_ROWS),
    "columns": (BY_COLUMNS, WHOLE, BY_COLUMNS),
}


def specs(program, tree):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {parameter_path(path): leaf.spec for path, leaf in found}


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
@pytest.mark.parametrize("placement", STACKS)
def test_slots_lie_where_their_rows_do(placement, optimizer):
    program = program_on(MeshConfig(2, 2, (PlacementRule(".*", placement),)), table_rule("row_sparse", optimizer))
    table, a_row, a_value = STACKS[placement]
    (stack,) = program.plan.stacks
    assert program.state_shardings.tables[stack.name].spec == table
    found = {sharding.spec for sharding in program.state_shardings.slots[stack.name].values()}
    assert found == {a_row if optimizer == "rowwise_adagrad" else a_value}


@pytest.mark.parametrize("placement", ["replicated", "rows", "columns"])
def test_moments_of_a_densely_updated_table_lie_where_it_does(placement):
    program = program_on(MeshConfig(2, 2, (PlacementRule(".*", placement),)), table_rule("dense", "adam"))
    (stack,) = program.plan.stacks
    table = program.state_shardings.tables[stack.name].spec
    moments = [spec for path, spec in specs(program, program.state_shardings.opt_state).items() if "/tables/" in path]
    assert len(moments) == 2
    assert set(moments) == {table}


def test_large_kernels_and_their_moments_are_split_along_the_model_axis():
    program = program_on(MeshConfig(2, 2, dense="fsdp", dense_min_parameters=16), table_rule("row_sparse", "sgd"))
    shapes, state = program.abstract_state(), program.state_shardings
    found = specs(program, state.params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes.params):
        longest = max((size, -axis) for axis, size in enumerate(leaf.shape)) if leaf.size >= 16 else (0, 0)
        expected = PartitionSpec(*[None] * -longest[1], "model") if leaf.size >= 16 else PartitionSpec()
        assert found[parameter_path(path)] == expected, path
    assert sum(spec != PartitionSpec() for spec in found.values()) >= 4
    for path, spec in specs(program, state.opt_state).items():
        name = path.rpartition("params/")[2]
        assert spec == (found[name] if name in found else PartitionSpec()), path


@pytest.mark.parametrize(("dense", "whole"), [("fsdp", True), ("tensor", False), ("replicated", False)])
def test_parameters_stored_in_parts_are_put_together_for_use_under_fsdp_only(dense, whole):
    config = MeshConfig(2, 2, dense=dense)
    mesh = make_mesh(config)
    split = jax.device_put(jnp.ones((4, 8)), NamedSharding(mesh, PartitionSpec("model")))
    with traced_on(Layout(mesh, config)):
        assert jax.jit(lambda x: 2 * gathered(x))(split).sharding.is_fully_replicated == whole


def test_hidden_layers_are_split_in_pairs_by_outputs_and_inputs():
    head = MLPConfig((16, 8, 8, 3))
    program = program_on(
        MeshConfig(2, 2, dense="tensor", dense_min_parameters=32), table_rule("row_sparse", "sgd"), head=head
    )
    found = specs(program, program.state_shardings.params["head"])
    by_outputs, by_inputs, whole = PartitionSpec(None, "model"), PartitionSpec("model"), PartitionSpec()
    assert found == {
        "hidden_0/kernel": by_outputs,
        "hidden_0/bias": PartitionSpec("model"),
        "hidden_1/kernel": by_inputs,
        "hidden_1/bias": whole,
        "hidden_2/kernel": by_outputs,
        "hidden_2/bias": PartitionSpec("model"),
        "hidden_3/kernel": by_inputs,
        "hidden_3/bias": whole,
        "output/kernel": whole,
        "output/bias": whole,
    }


def test_kernels_that_cannot_be_split_are_refused_on_several_devices():
    config = tiny_config(pathlib.Path("none"))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, implementation="cpu_kernel"))
    with pytest.raises(ConfigError, match=r"received 'cpu_kernel' and a mesh of 2 devices.*use 'auto'"):
        build_program(dataclasses.replace(config, mesh=MeshConfig(2)), 1)


def program_on(mesh, tables, head=SMALL):
    config = tiny_config(pathlib.Path("none"))
    model = dataclasses.replace(config.model, head=head)
    return build_program(dataclasses.replace(config, mesh=mesh, tables=tables, model=model), 1)
