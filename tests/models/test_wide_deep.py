import pytest

from tests.models.baseline_oracle import TWO, compare, first_order, flat_embeddings, mlp
from wukong_jax.config.baselines import WideDeepConfig
from wukong_jax.config.layers import MLPConfig

CASES = {
    "plain": WideDeepConfig(4, MLPConfig((5, 3))),
    "BatchNorm": WideDeepConfig(3, MLPConfig((5,), batch_norm=True)),
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    compare(setup, first_order(setup) + mlp(setup, "mlp", flat_embeddings(setup), config.mlp))
