"""Costs against the parameters of blocks written out, and limits."""

import math

import numpy as np
import pytest

from wukong_jax.config.sequential import HSTUConfig, LlamaConfig, SASRecConfig
from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.budgets import (
    TIME_BUCKETS,
    Budget,
    backbone_named,
    flops_per_token,
    non_embedding_parameters,
    size,
    total_parameters,
)
from wukong_jax.sequential.cost import backbone_cost

N, D, LENGTH, ITEMS = 8, 50, 200, 3706
BLOCKS = {
    # one projection d x 4d to u, v, q, k; one matrix and bias back; biases by position and by time
    "hstu": D * 4 * D + D * D,
    # q, k, v, output; d x d_ff and back, d_ff = d
    "sasrec": 4 * D * D + 2 * D * D,
    # q, k, v, output; gate, up and down, 8/3 d wide, rounded up
    "llama": 4 * D * D + 3 * D * 134,
}
"""Weights of the matrices."""
CONFIGS = {"hstu": HSTUConfig, "sasrec": SASRecConfig, "llama": LlamaConfig}


def at(cost, n=N, d=D):
    return float(cost(np.array([float(n)]), np.array([float(d)]))[0])


@pytest.mark.parametrize("name", BLOCKS)
def test_costs_are_those_of_this_program_s_models(name):
    backbone, sizes = backbone_named(name), [(1, 2), (8, 50), (3, 64), (5, 66)]
    layers, dims = np.array(sizes, float).T
    models = [CONFIGS[name](width=d, num_layers=n, max_length=LENGTH) for n, d in sizes]
    costs = [backbone_cost(model, times=True) for model in models]
    own = np.array([cost.parameters for cost in costs], float)
    positions = [cost.position_parameters for cost in costs]
    np.testing.assert_array_equal(non_embedding_parameters(backbone, LENGTH)(layers, dims), own)
    np.testing.assert_array_equal(
        total_parameters(backbone, LENGTH, ITEMS)(layers, dims), own + positions + ITEMS * dims
    )
    forward = np.array([cost.forward_flops for cost in costs], float)
    np.testing.assert_array_equal(flops_per_token(backbone, LENGTH)(layers, dims), 3 * forward)


@pytest.mark.parametrize("name", BLOCKS)
def test_parameters_are_the_matrices_and_little_more(name):
    parameters = at(non_embedding_parameters(backbone_named(name), LENGTH))
    vectors = {"hstu": D + LENGTH + TIME_BUCKETS, "sasrec": 10 * D, "llama": 2 * D + D / N}[name]
    assert parameters == N * (BLOCKS[name] + vectors)


@pytest.mark.parametrize("name", BLOCKS)
def test_flops_are_three_times_two_a_weight_and_the_attention(name):
    backbone = backbone_named(name)
    forward = N * (2 * BLOCKS[name] + 2 * (2 * LENGTH * D))
    assert at(flops_per_token(backbone, LENGTH)) == pytest.approx(3 * forward)
    assert at(flops_per_token(backbone, LENGTH, 129)) == pytest.approx(3 * (forward + 2 * 129 * D))


def test_another_width_of_the_feed_forward_layer():
    sasrec = non_embedding_parameters(backbone_named("sasrec", 4.0), LENGTH)
    assert at(sasrec) == N * (12 * D * D + 13 * D)
    llama = non_embedding_parameters(backbone_named("llama", 0.3), LENGTH)
    assert at(llama, d=11) == N * (4 * 11**2 + 3 * 11 * 4 + 2 * 11) + 11  # 3.3 units are 4


def test_a_budget_allows_what_costs_no_more():
    allowed = Budget("N d", 400.0, size).allows(np.array([8.0, 8.0, 9.0]), np.array([50.0, 51.0, 44.0]))
    assert allowed.tolist() == [True, False, True]


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_a_limit_is_a_number_above_zero(limit):
    with pytest.raises(ConfigError, match="budget of N d: received"):
        Budget("N d", float(limit), size)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: backbone_named("gru"), "backbone: received 'gru', expected one of hstu, sasrec, llama"),
        (lambda: backbone_named("hstu", 2.0), "hstu has no feed-forward layer"),
        (lambda: backbone_named("llama", 0.0), "ffn_ratio: received 0"),
        (lambda: non_embedding_parameters(backbone_named("hstu"), 0), "length: received 0"),
        (lambda: total_parameters(backbone_named("hstu"), 5, 0), "items: received 0"),
        (lambda: flops_per_token(backbone_named("hstu"), 5, -1), "candidates: received -1"),
    ],
)
def test_wrong_numbers_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
