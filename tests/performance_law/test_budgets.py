"""Costs against the parameters of blocks written out, and limits."""

import math

import numpy as np
import pytest

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

N, D, LENGTH, ITEMS = 8, 50, 200, 3706
BLOCKS = {
    # one projection d x 4d to u, v, q, k; one matrix and bias back; biases by position and by time
    "hstu": D * 4 * D + D * D + D + (2 * LENGTH - 1) + TIME_BUCKETS,
    # q, k, v, output; d x d_ff and back, d_ff = d
    "sasrec": 4 * D * D + 2 * D * D,
    # q, k, v, output; gate, up and down, 8/3 d wide
    "llama": 4 * D * D + 3 * D * (8 * D / 3),
}


def at(cost, n=N, d=D):
    return float(cost(np.array([float(n)]), np.array([float(d)]))[0])


@pytest.mark.parametrize("name", BLOCKS)
def test_parameters_are_those_of_the_blocks(name):
    backbone = backbone_named(name)
    assert at(non_embedding_parameters(backbone, LENGTH)) == pytest.approx(N * BLOCKS[name])
    assert at(total_parameters(backbone, LENGTH, ITEMS)) == pytest.approx(N * BLOCKS[name] + (ITEMS + 1) * D)


@pytest.mark.parametrize("name", BLOCKS)
def test_flops_are_three_times_two_a_weight_and_the_attention(name):
    backbone = backbone_named(name)
    no_matrices = D + (2 * LENGTH - 1) + TIME_BUCKETS if name == "hstu" else 0
    forward = N * (2 * (BLOCKS[name] - no_matrices) + 2 * (2 * LENGTH * D))
    assert at(flops_per_token(backbone, LENGTH)) == pytest.approx(3 * forward)
    assert at(flops_per_token(backbone, LENGTH, 129)) == pytest.approx(3 * (forward + 2 * 129 * D))


def test_another_width_of_the_feed_forward_layer():
    assert at(non_embedding_parameters(backbone_named("sasrec", 4.0), LENGTH)) == pytest.approx(N * 12 * D * D)


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
