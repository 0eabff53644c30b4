"""Sequential recommenders on a mesh of fake devices: losses and rankings are those of one device."""

import dataclasses

import numpy as np
import pytest

from tests.sequential.tiny_sequences import DENSE, SPARSE, config, random_sequences, write
from tests.tiny import memory_console
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.config.sequential import FullSoftmaxConfig, HSTUConfig, SASRecConfig
from wukong_jax.training.run import train

pytestmark = pytest.mark.usefixtures("compile_quickly")
SMALL = {"width": 8, "num_layers": 1, "max_length": 5, "dropout": 0.0}
CASES = {
    "sasrec, rows": (SASRecConfig(**SMALL), SPARSE, (8, 1, "rows", "replicated")),
    "sasrec, columns, fsdp": (SASRecConfig(**SMALL), SPARSE, (2, 2, "columns", "fsdp")),
    "hstu, dense rows, fsdp": (HSTUConfig(**SMALL, loss=FullSoftmaxConfig()), DENSE, (4, 2, "rows", "fsdp")),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sequences") / "store", random_sequences(users=200))


@pytest.mark.parametrize(
    "case", ["sasrec, rows", *(pytest.param(case, marks=pytest.mark.slow) for case in list(CASES)[1:])]
)
def test_a_sequential_recommender_on_a_mesh_trains_and_ranks_as_on_one_device(store, tmp_path, case):
    model, tables, (data, width, placement, dense) = CASES[case]
    one = config(store.path, model, tables, batch_size=16, log_every_steps=1)
    mesh = MeshConfig(data, width, (PlacementRule(".*", placement),), dense=dense, dense_min_parameters=64)
    records = [
        train(run, tmp_path / name, memory_console())
        for name, run in (("one", one), ("many", dataclasses.replace(one, mesh=mesh)))
    ]
    losses = [[point["loss"] for point in record["history"] if "loss" in point] for record in records]
    assert len(losses[0]) == 20
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert np.mean(losses[0][-3:]) < 0.9 * np.mean(losses[0][:3]), "it learns"
    scores = [record["results"]["test"] for record in records]
    assert scores[0] == pytest.approx(scores[1], abs=0.02), "ranks that rounding may exchange"
