"""The exchange of rows between devices against NumPy; the tests run on eight devices that are one CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from wukong_jax.config.mesh import MeshConfig
from wukong_jax.embeddings.exchange import Wire, counted, fetch, request, room_for, send_back
from wukong_jax.training.sharding import AXES, make_mesh

DEVICES, DEVICE_ROWS, PLACES, WIDTH = 8, 10, 12, 4
END = DEVICES * DEVICE_ROWS
SPREAD = PartitionSpec(AXES)


def drawn_ids(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Stored rows that each of the devices asks for, [devices, places]."""
    shape = (DEVICES, PLACES)
    if kind == "uniform":
        return rng.integers(0, END, shape)
    if kind == "all of one device":
        return rng.integers(3 * DEVICE_ROWS, 4 * DEVICE_ROWS, shape)
    if kind == "one row":
        return np.full(shape, END - 1)
    if kind == "none":
        return np.full(shape, END)
    return np.where(rng.random(shape) < 0.4, END + 5, rng.zipf(1.3, shape) % END)  # skewed, some unused


KINDS = ("uniform", "all of one device", "one row", "none", "skewed")


@functools.cache
def exchange(room: int, dtype=None):
    wire = Wire(AXES, DEVICES, DEVICE_ROWS, room, dtype)
    mesh = make_mesh(MeshConfig(4, 2))

    def local(table, ids, gradients):
        requests = request(ids, wire)
        zeros = jnp.zeros((DEVICE_ROWS, WIDTH)), jnp.zeros(DEVICE_ROWS, jnp.int32)

        def take(rows, received, carry):
            return carry[0].at[rows].add(received, mode="drop"), carry[1] + jnp.zeros_like(carry[1]).at[rows].set(
                1, mode="drop"
            )

        sums, times = send_back(gradients, requests, wire, take, zeros)
        return fetch(table, requests, wire), sums, times, requests.rounds, requests.excess

    return jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=SPREAD,
            out_specs=(SPREAD, SPREAD, SPREAD, PartitionSpec(), PartitionSpec()),
            check_vma=False,
        )
    )


@pytest.mark.parametrize("room", [1, 2, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_every_place_gets_its_row_and_every_row_all_of_its_gradient(kind: str, room: int, rng: np.random.Generator):
    ids = drawn_ids(kind, rng).astype(np.int32)
    table = rng.normal(size=(END, WIDTH)).astype(np.float32)
    gradients = rng.normal(size=(DEVICES * PLACES, WIDTH)).astype(np.float32)
    rows, sums, times, rounds, excess = exchange(room)(table, ids.reshape(-1), gradients)

    flat = ids.reshape(-1)
    padded = np.concatenate([table, np.zeros((6, WIDTH), np.float32)])
    np.testing.assert_array_equal(rows, padded[flat])
    expected = np.zeros((END + 6, WIDTH))
    np.add.at(expected, flat, gradients.astype(np.float64))
    np.testing.assert_allclose(sums, expected[:END], atol=1e-5)
    # an optimizer may be applied to what comes in one round only if nothing of the row comes in another
    assert times.max() <= 1
    np.testing.assert_array_equal(np.asarray(times) > 0, np.isin(np.arange(END), flat))

    asked = [[len(np.unique(own[own // DEVICE_ROWS == owner])) for owner in range(DEVICES)] for own in ids]
    assert excess == np.maximum(np.array(asked) - room, 0).sum()
    assert (rounds == 1) == (np.max(asked) <= room)


def test_rows_travel_in_bfloat16_and_gradients_are_summed_before_they_are_rounded(rng: np.random.Generator):
    ids = np.zeros((DEVICES, PLACES), np.int32)
    table = rng.normal(size=(END, WIDTH)).astype(np.float32)
    gradients = np.full((DEVICES * PLACES, WIDTH), 1 + 2**-7, np.float32)
    rows, sums, *_ = exchange(4, jnp.bfloat16)(table, ids.reshape(-1), gradients)
    rounded = np.asarray(jnp.asarray(table[0]).astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_array_equal(rows, np.broadcast_to(rounded, rows.shape))
    of_one = np.float32(jnp.asarray(PLACES * (1 + 2**-7)).astype(jnp.bfloat16))
    np.testing.assert_array_equal(np.asarray(sums)[0], np.full(WIDTH, DEVICES * of_one))


def test_room_is_a_multiple_of_an_even_share_and_at_most_all_places():
    assert room_for(1000, 8, 1.5) == 188
    assert room_for(1000, 8, 100.0) == 1000
    assert room_for(4, 8, 1.5) == 4
    assert room_for(20, 8, 0.1) == 8


@pytest.mark.parametrize(
    ("before", "more", "total"), [(0, 0, 0), (3, 4, 7), (2**31 - 5, 4, 2**31 - 1), (2**31 - 5, 9, 2**31 - 1)]
)
def test_a_count_of_rows_stops_at_the_largest_int32(before: int, more: int, total: int):
    assert int(counted(jnp.int32(before), jnp.int32(more))) == total
