"""The counts by hand, with which settings of the paper's Wukong are looked for, are those of the model."""

import random

import pytest

from benchmarks import paper_sizes
from benchmarks.paper_sizes import EMBEDDINGS, LAYERS, MLPS, PUBLISHED, RANKS, WIDTH
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import DataConfig, RunConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, NumericFeature
from wukong_jax.scaling.flops import describe_cost


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("seed", [0, 1])
def test_counts_are_those_of_the_model(name, seed):
    published, rng = PUBLISHED[name], random.Random(seed)
    numeric = 13 if published.bottom else 0
    layers, fmb, lcb, rank = (rng.choice(options) for options in (LAYERS, EMBEDDINGS, EMBEDDINGS, RANKS))
    hidden = rng.choice(MLPS)
    below = dict(paper_sizes.stacks(published))[layers, fmb, lcb, rank, hidden]
    top, norm, above = rng.choice(paper_sizes.heads(fmb + lcb))
    model = WukongConfig(
        width=WIDTH, num_layers=layers, num_fmb=fmb, num_lcb=lcb, rank=rank, fmb_mlp=MLPConfig(hidden),
        head=MLPConfig(top, batch_norm=norm), embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
    )  # fmt: skip
    schema = DatasetSchema(
        tuple(CategoricalFeature(f"c{i}", 3) for i in range(published.fields - bool(numeric))),
        numeric=tuple(NumericFeature(f"i{i}") for i in range(numeric)),
    )
    found = describe_cost(RunConfig("sizes", schema, DataConfig(store="s"), model))
    assert below.parameters + above.parameters + published.bottom == found.dense_total
    assert 6 * (below.products + above.products + published.bottom_products) == found.training_flops
