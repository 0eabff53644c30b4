import itertools

import pytest

from tests.models.baseline_oracle import TWO, compare, embeddings, first_order, flat_embeddings, mlp
from wukong_jax.config.baselines import DeepFMConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.models.registry import table_specs

CASES = {"plain": DeepFMConfig(4, MLPConfig((5, 3))), "BatchNorm": DeepFMConfig(3, MLPConfig((5,), batch_norm=True))}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    x = embeddings(setup).transpose(1, 0, 2)
    pairs = sum((one * two).sum(axis=1, keepdims=True) for one, two in itertools.combinations(x, 2))
    compare(setup, first_order(setup) + pairs + mlp(setup, "mlp", flat_embeddings(setup), config.mlp))


def test_every_feature_has_a_weight_a_task_and_an_embedding():
    config = DeepFMConfig(4, embedding=EmbeddingConfig(init_stddev=1e-4))
    tables = {table.name: table for table in table_specs(config, TWO).tables}
    assert {name: table.width for name, table in tables.items()} == {
        "a": 4, "b": 4, "mean": 4, "sum": 4, "a:weight": 2, "b:weight": 2, "mean:weight": 2, "sum:weight": 2,
    }  # fmt: skip
    assert {table.init_stddev for table in tables.values()} == {1e-4}
