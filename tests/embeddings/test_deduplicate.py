import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.embeddings.deduplicate import MergedRows, merge_by_slot, merge_by_sort

ROWS, COUNT, WIDTH = 60, 400, 3


def batch(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ids = {
        "heavy duplicates": rng.zipf(1.3, COUNT) % ROWS,
        "some unused places": np.where(rng.random(COUNT) < 0.3, ROWS, rng.integers(0, ROWS, COUNT)),
        "all unused": np.full(COUNT, ROWS),
        "all one row": np.full(COUNT, 7),
        "first and last row": rng.choice([0, ROWS - 1], COUNT),
        "each row once": np.concatenate([rng.permutation(ROWS), np.full(COUNT - ROWS, ROWS)]),
    }[kind].astype(np.int32)
    return ids, rng.normal(size=(COUNT, WIDTH)).astype(np.float32)


def summed(ids: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    total = np.zeros((ROWS, WIDTH))
    used = ids < ROWS
    np.add.at(total, ids[used], gradients[used].astype(np.float64))
    return total


def check(merged: MergedRows, ids: np.ndarray, gradients: np.ndarray) -> None:
    found = np.asarray(merged.ids)
    assert len(np.unique(found)) == COUNT, "ids that hold no row must differ: the scatter relies on unique ids"
    held = found < ROWS
    np.testing.assert_array_equal(np.sort(found[held]), np.unique(ids[ids < ROWS]))
    total = np.zeros((ROWS, WIDTH))
    total[found[held]] = np.asarray(merged.gradients)[held]
    np.testing.assert_allclose(total, summed(ids, gradients), rtol=1e-5, atol=1e-5)


KINDS = ["heavy duplicates", "some unused places", "all unused", "all one row", "first and last row", "each row once"]
by_slot, by_sort = jax.jit(merge_by_slot), jax.jit(merge_by_sort, static_argnums=2, static_argnames="scatter")


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_sums_each_row_once(kind, rng):
    ids, gradients = batch(kind, rng)
    for scatter in (True, False):
        check(by_sort(jnp.asarray(ids), jnp.asarray(gradients), ROWS, scatter=scatter), ids, gradients)
    dirty = jnp.asarray(rng.integers(-5, 2 * COUNT, ROWS), jnp.int32)  # what an earlier step left there
    merged, scratch = by_slot(jnp.asarray(ids), jnp.asarray(gradients), dirty)
    check(merged, ids, gradients)
    untouched = np.setdiff1d(np.arange(ROWS), ids)
    np.testing.assert_array_equal(np.asarray(scratch)[untouched], np.asarray(dirty)[untouched])


def test_scratch_needs_no_clearing_between_steps(rng):
    scratch = jnp.zeros(ROWS, jnp.int32)
    for kind in KINDS:
        ids, gradients = batch(kind, rng)
        merged, scratch = by_slot(jnp.asarray(ids), jnp.asarray(gradients), scratch)
        check(merged, ids, gradients)


def test_by_sort_sums_in_batch_order(rng):
    """float32 addition is not associative: the sum must be that of the order of the batch."""
    gradients = (10.0 ** rng.integers(-6, 6, (COUNT, WIDTH)) * rng.normal(size=(COUNT, WIDTH))).astype(np.float32)
    merged = by_sort(jnp.full(COUNT, 7, jnp.int32), jnp.asarray(gradients), ROWS)
    total = np.zeros(WIDTH, np.float32)
    for row in gradients:
        total += row
    np.testing.assert_array_equal(np.asarray(merged.gradients)[0], total)


def test_away_from_cpu_no_two_terms_meet_in_a_scatter(rng):
    """Of what is scattered to one place without an order all values are equal."""
    shapes = jax.ShapeDtypeStruct((COUNT,), jnp.int32), jax.ShapeDtypeStruct((COUNT, WIDTH), jnp.float32)
    lowered = by_sort.trace(*shapes, ROWS, scatter=False).lower(lowering_platforms=("cuda",)).as_text()
    scatters = re.findall(r'"stablehlo.scatter".*?\}\) :', lowered, re.DOTALL)
    assert len(scatters) == 2
    assert not any("stablehlo.add" in body for body in scatters)


def test_by_slot_has_no_sort():
    shapes = jax.ShapeDtypeStruct((COUNT,), jnp.int32), jax.ShapeDtypeStruct((COUNT, WIDTH), jnp.float32)
    slot = by_slot.lower(*shapes, jax.ShapeDtypeStruct((ROWS,), jnp.int32)).as_text()
    assert "stablehlo.sort" not in slot
    assert "stablehlo.sort" in by_sort.lower(*shapes, ROWS).as_text()
