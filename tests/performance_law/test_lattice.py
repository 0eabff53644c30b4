"""Sizes to choose from, and which of them lie between the measured ones."""

import numpy as np
import pytest

from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.lattice import MOST_VALUES, Lattice, Measured


def measured(*sizes):
    layers, dims = np.array(sizes, float).T
    return Measured(layers, dims)


GRID = measured(*((n, d) for n in (4, 8, 32) for d in (25, 50, 100)))


def test_the_lattice_is_every_whole_size_in_the_measured_ranges():
    found = GRID.lattice()
    np.testing.assert_array_equal(found.layers, np.arange(4, 33))
    np.testing.assert_array_equal(found.dims, np.arange(25, 101))


def test_wide_ranges_take_multiples_of_a_power_of_two():
    found = measured((8, 128), (64, 1024)).lattice()
    assert len(found.dims) <= MOST_VALUES
    assert np.all(found.dims % 4 == 0)
    assert found.dims[0] == 128
    assert found.dims[-1] == 1024


def test_a_range_far_beyond_the_runs_keeps_what_was_measured():
    found = GRID.lattice(None, (1, 1_000_000))
    assert {1, 1_000_000, *range(25, 101)} <= {*found.dims}
    assert np.all(np.diff(found.dims) <= np.maximum(1, 0.03 * found.dims[1:]))
    assert f"widths searched: {len(found.dims)} from 1 to 1000000, in steps of 1 to " in found.searched
    wide = measured((8, 100), (64, 450), (64, 1000)).lattice()
    assert {100, 450, 1000} <= {*wide.dims}


def test_deep_ranges_are_thinned_like_wide_ones():
    found = measured((4, 64), (3000, 64), (10_001, 128)).lattice()
    assert {4, 3000, 10_001} <= {*found.layers}
    assert np.all(np.diff(found.layers) <= np.maximum(1, 0.13 * found.layers[1:]))


def test_what_is_searched_is_said():
    assert GRID.lattice().searched == "depths searched: all from 4 to 32; widths searched: all from 25 to 100"
    found = GRID.lattice((2, 2), (10, 40), 16)
    assert found.searched == "depths searched: 2 alone; widths searched: 2 from 16 to 32, in steps of 16"


def test_given_ranges_and_multiple():
    found = GRID.lattice((2, 3), (10, 40), 16)
    assert found.layers.tolist() == [2, 3]
    assert found.dims.tolist() == [16, 32]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1, 10**9), (1, 10**9), 4096), "depths x 244,140 widths, .* at most 200,000 sizes; narrow a range"),
        (((5, 4), None, None), "layers_range: received 5 to 4"),
        ((None, (0, 4), None), "dim_range: received 0 to 4"),
        ((None, (33, 40), 64), "no multiple of 64 lies between 33 and 40"),
        ((None, None, 0), "dim_multiple: received 0"),
    ],
)
def test_wrong_ranges_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        GRID.lattice(*arguments)


@pytest.mark.parametrize("axis", [[], [0.0], [2.0, 2.0], [1.5]])
def test_sizes_are_increasing_whole_numbers(axis):
    with pytest.raises(ConfigError, match="layers are"):
        Lattice(np.array(axis), np.array([8.0]))


def test_a_size_interpolates_within_the_polygon_of_the_runs():
    ragged = measured((4, 25), (32, 25), (4, 100))  # no run is deep and wide
    sizes = np.array([[4, 25], [16, 25], [8, 40], [32, 100], [16, 80], [3, 25], [33, 25], [4, 101]], float).T
    assert ragged.within(*sizes).tolist() == [True, True, True, False, False, False, False, False]
    assert GRID.within(*sizes).tolist() == [True, True, True, True, True, False, False, False]


def test_runs_on_a_line_or_of_one_size_have_no_inside():
    line = measured((4, 25), (8, 50), (16, 100))
    sizes = np.array([[4, 25], [8, 50], [5, 31.25], [8, 51], [32, 200]], float).T
    assert line.within(*sizes).tolist() == [True, True, True, False, False]
    one = measured((4, 25), (4, 25))
    assert one.within(*sizes).tolist() == [True, False, False, False, False]
