import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from wukong_jax.config.run import MeshConfig
from wukong_jax.errors import ConfigError
from wukong_jax.training.sharding import batch_shardings, make_mesh, shardings


def test_one_device_is_a_mesh_of_named_auto_axes():
    mesh = make_mesh(MeshConfig())
    assert mesh.axis_names == ("data", "model")
    assert dict(mesh.shape) == {"data": 1, "model": 1}
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_a_mesh_larger_than_the_devices_is_refused():
    count = jax.device_count()
    with pytest.raises(ConfigError, match=rf"data={2 * count} x model=1 needs {2 * count} devices, there are {count}"):
        make_mesh(MeshConfig(2 * count))


def test_the_first_matching_rule_counts_and_every_leaf_needs_one():
    mesh = make_mesh(MeshConfig())
    tree = {"params": {"head": {"kernel": jnp.zeros((2, 2))}}, "tables": {"a": jnp.zeros((4, 2))}}
    rules = ((r"^tables/", PartitionSpec("model")), (r"a", PartitionSpec()))
    found = shardings(tree, mesh, rules)
    assert found["tables"]["a"].spec == PartitionSpec("model")
    assert found["params"]["head"]["kernel"].spec == PartitionSpec()
    with pytest.raises(ConfigError, match=r"no rule matches 'params/head/kernel'; add one to STATE_RULES"):
        shardings(tree, mesh, rules[:1])
    with pytest.raises(ConfigError, match="no rule matches 'unknown/x'"):
        shardings({"unknown": {"x": jnp.zeros(1)}}, mesh)


def test_batches_are_split_along_the_data_axis():
    assert {sharding.spec for sharding in batch_shardings(make_mesh(MeshConfig()))} == {PartitionSpec("data")}
