import itertools

import numpy as np
import pytest

from tests.models.baseline_oracle import FEATURES, ONE, TWO, compare, embeddings, flat_embeddings, mlp
from wukong_jax.config.baselines import DLRMConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.errors import ConfigError

BOTTOM = EmbeddingConfig(dense_mlp=MLPConfig((5, 3)), dense_embeddings=2, vector_embeddings=2)
PLAIN = DLRMConfig(4, top_mlp=MLPConfig((5, 3)))
CASES = {
    "plain": (PLAIN, ONE, 2),
    "ids only": (PLAIN, DatasetSchema(FEATURES[0]), 0),
    "numeric only": (PLAIN, DatasetSchema(numeric=FEATURES[2]), 1),
    "bottom MLP, BatchNorm": (DLRMConfig(3, "dot", MLPConfig((5,), batch_norm=True), BOTTOM), TWO, 4),
    "no top MLP": (DLRMConfig(3, "dot", MLPConfig()), TWO, 2),
}


@pytest.mark.parametrize(("config", "schema", "lifted"), CASES.values(), ids=CASES.keys())
def test_dot_equals_the_float64_forward_pass(config, schema, lifted, set_up):
    """`lifted` of the embeddings, the last ones, come from continuous features."""
    setup = set_up(config, schema)
    x = embeddings(setup).transpose(1, 0, 2)
    parts = [*x[len(x) - lifted :]]
    parts += [(one * two).sum(axis=1, keepdims=True) for one, two in itertools.combinations(x, 2)]
    compare(setup, mlp(setup, "top_mlp", np.concatenate(parts, axis=1), config.top_mlp))


def test_concat_equals_the_float64_forward_pass(set_up):
    config = DLRMConfig(4, "concat", MLPConfig((5, 3), batch_norm=True), BOTTOM)
    setup = set_up(config, TWO)
    compare(setup, mlp(setup, "top_mlp", flat_embeddings(setup), config.top_mlp))


def test_dot_is_refused_where_there_is_nothing_to_interact(set_up):
    schema = DatasetSchema((CategoricalFeature("a", 9),))
    with pytest.raises(ConfigError, match="received 'dot', but the schema gives a single embedding"):
        set_up(DLRMConfig(4), schema)
    set_up(DLRMConfig(4, "concat"), schema)
