"""The paper's table 5 in our count: what was found is pinned, so that it cannot be bent unseen."""

import functools
import itertools

import numpy as np
import pytest

from wukong_jax.scaling.flops import describe_cost
from wukong_jax.scaling.paper_ladder import (
    PAPER_ROWS,
    Convention,
    Fit,
    all_fits,
    best_embeddings,
    dense_parameters,
    fit_embeddings,
    row_config,
)

PLAIN = Convention(2, "2 x 512", True, False)


@functools.cache
def fits() -> list[Fit]:
    return all_fits()


def by_hand(row, n: int, *, head: int, residual: bool) -> int:
    """Training FLOPs, written out once more: d = 160, three hidden layers, two tasks."""
    m, k, h = row.embeddings, row.rank, row.mlp_width
    total = 0
    for index in range(row.layers):
        inputs = n if index == 0 else 2 * m
        total += 2 * inputs * k * 160 + inputs * k * h + 2 * h * h + h * m * 160 + inputs * m * 160
        total += inputs * 2 * m * 160 * (residual and inputs != 2 * m)
    return 6 * (total + (2 * m * 160 * head + head * head + head * 2 if head else 2 * m * 160 * 2))


@pytest.mark.parametrize("row", PAPER_ROWS)
@pytest.mark.parametrize(("n", "residual"), [(1000, True), (64, True), (777, False)])
def test_our_count_of_a_row(row, n, residual):
    fit = fit_embeddings(Convention(2, "2 x 512", residual, False))
    expected = by_hand(row, fit.embeddings, head=512, residual=residual) / 1e9
    assert fit.gflop[PAPER_ROWS.index(row)] == pytest.approx(expected, rel=1e-12)
    if row.layers < 8 and residual:
        traced = describe_cost(row_config(row, n, "linear")).training_flops
        assert traced == by_hand(row, n, head=0, residual=True)


def test_the_n_is_the_best_integer():
    fit = fit_embeddings(PLAIN)
    printed = np.array([row.gflop for row in PAPER_ROWS])

    def error(n: int) -> float:
        ours = np.array([by_hand(row, n, head=512, residual=True) for row in PAPER_ROWS]) / 1e9
        return float(np.sqrt(np.mean(np.log(ours / printed) ** 2)))

    assert fit.error == pytest.approx(error(fit.embeddings), rel=1e-9)
    assert fit.embeddings == min(range(1, 3000), key=error)


def test_what_was_found_without_an_embedding_layer():
    best = next(fit for fit in fits() if not fit.convention.constant)
    assert (best.convention, best.embeddings, best.constant_gflop) == (PLAIN, 1209, 0)
    assert best.error == pytest.approx(0.1447, abs=5e-5)
    assert best.residuals == pytest.approx([0.108, -0.135, -0.232, 0.029, 0.150, 0.032, 0.169], abs=6e-4)
    assert [best_embeddings(row, best) for row in PAPER_ROWS] == [1052, 1599, 2342, 1096, 567, 1010, 286]


def test_what_was_found_with_an_embedding_layer_of_equal_flops_in_all_rows():
    best = fits()[0]
    assert best.convention == Convention(2, "as the blocks", True, True)
    assert (best.embeddings, best.constant_gflop) == (347, 0.27)
    assert best.error == pytest.approx(0.1235, abs=5e-4)
    assert best.residuals == pytest.approx([0.162, -0.103, -0.213, -0.046, 0.061, -0.002, 0.098], abs=6e-4)


def test_a_multiply_add_is_2_flops_under_every_other_convention():
    assert len(fits()) == 2 * 3 * 2 * 2
    worst = max(fit.error for fit in fits() if fit.convention.flops_per_multiply_add == 2)
    assert worst < 0.175 < 0.24 < min(fit.error for fit in fits() if fit.convention.flops_per_multiply_add == 1)


def test_parameters_differ_from_the_printed_ones_as_the_flops_do():
    """The tables are the same in all rows, so that differences are of dense parameters, printed to 0.01 billion."""
    printed = np.diff([row.billion_parameters for row in PAPER_ROWS])
    ours = np.diff(dense_parameters(fits()[0])) / 1e9
    assert ours == pytest.approx([0.08, 0.09, 0.60, 2.98, 6.21, 9.41], abs=6e-3)
    assert ours[0] == pytest.approx(printed[0], abs=0.01)
    assert ours[1] < printed[1] - 0.01
    assert ours[5] > printed[5] + 1
    gflop = np.diff([row.gflop for row in PAPER_ROWS])
    assert (gflop / printed)[1:] == pytest.approx([6.69, 6.82, 6.65, 6.43, 6.70], abs=6e-3)


def test_rows_grow():
    for small, large in itertools.pairwise(PAPER_ROWS):
        assert small.gflop < large.gflop
        assert small.billion_parameters < large.billion_parameters
