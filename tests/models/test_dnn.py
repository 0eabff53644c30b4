import pytest

from tests.models.baseline_oracle import TWO, compare, flat_embeddings, mlp
from wukong_jax.config.baselines import DNNConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig

CASES = {
    "plain": DNNConfig(4, MLPConfig((5, 3))),
    "BatchNorm": DNNConfig(3, MLPConfig((5, 6), "tanh", 0.5, batch_norm=True)),
    "bottom MLP": DNNConfig(4, MLPConfig((5,), "silu"), EmbeddingConfig(dense_mlp=MLPConfig((3,)), dense_embeddings=2)),
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    compare(setup, mlp(setup, "mlp", flat_embeddings(setup), config.mlp))
