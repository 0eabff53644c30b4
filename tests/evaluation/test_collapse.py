"""Information abundance of embedding tables."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import SCHEMA, tiny_config, write_store
from wukong_jax.data.pipeline import training_batches
from wukong_jax.embeddings.plan import plan_embeddings
from wukong_jax.evaluation import collapse
from wukong_jax.evaluation.collapse import (
    information_abundance,
    rows_seen,
    table_abundance,
    trained_abundance,
    trained_ids,
)
from wukong_jax.models.registry import table_specs


def by_svd(matrix):
    values = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    return values.sum() / values[0]


def of(matrix):
    return information_abundance(matrix.T.astype(np.float64) @ matrix.astype(np.float64))


@pytest.mark.parametrize("width", [1, 2, 16, 64, 256])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_orthogonal_columns_of_one_length_give_the_width(rng, width, scale):
    matrix, _ = np.linalg.qr(rng.normal(size=(300, width)))
    assert of(scale * matrix) == pytest.approx(width, rel=1e-6)


def test_rank_one_gives_one_and_random_rows_nearly_the_width(rng):
    line = rng.normal(size=(500, 1)) @ rng.normal(size=(1, 32))
    assert of(line) == pytest.approx(1, abs=3e-6), "the bound of the docstring at d = 32"
    assert 31 < of(rng.normal(size=(200_000, 32))) < 32


def test_a_table_of_zeros_has_none():
    assert of(np.zeros((5, 3))) is None


@pytest.mark.parametrize("width", [4, 32, 128])
def test_equal_to_the_singular_values_within_the_stated_bound(rng, width):
    """Singular values over sixteen decades, the smallest far below what the squares can hold."""
    rotate = [np.linalg.qr(rng.normal(size=(side, width)))[0] for side in (1000, width)]
    matrix = rotate[0] * np.logspace(0, -16, width) @ rotate[1].T
    assert of(matrix) == pytest.approx(by_svd(matrix), abs=width * np.sqrt(width * 2.3e-16))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("collapse") / "store")


@pytest.fixture
def plan(store):
    config = tiny_config(store.path)
    return plan_embeddings(SCHEMA, table_specs(config.model, SCHEMA), config.tables)


def random_tables(plan, rng):
    return {stack.name: rng.normal(size=(stack.rows, stack.width)).astype(np.float32) for stack in plan.stacks}


def on_device(tables):
    return {name: jnp.asarray(table) for name, table in tables.items()}


@pytest.mark.parametrize("chunk", [1, 4, 20, 36, 10**6], ids=lambda chunk: f"{chunk} numbers")
def test_every_table_is_measured_over_its_own_rows_whatever_the_chunks(plan, rng, monkeypatch, chunk):
    monkeypatch.setattr(collapse, "CHUNK", chunk)
    tables = random_tables(plan, rng)
    seen = {stack.name: rng.random(stack.rows) < 0.7 for stack in plan.stacks}
    found = table_abundance(plan, on_device(tables), seen)
    assert set(found) == {"user", "item", "tags"}
    for name, one in found.items():
        stack, offset, rows = plan.table_rows(name)
        kept = tables[stack.name][offset : offset + rows][seen[stack.name][offset : offset + rows]]
        assert one == {
            "information_abundance": pytest.approx(by_svd(kept), abs=1e-6),
            "rows": len(kept),
            "width": stack.width,
        }


def test_rows_that_no_example_read_do_not_count(plan, rng):
    """The trained rows of `item` lie on a line, the others anywhere."""
    tables = random_tables(plan, rng)
    stack, offset, _ = plan.table_rows("item")
    tables[stack.name][offset + 3 : offset + 9] = np.outer(rng.normal(size=6), rng.normal(size=stack.width))
    ids = np.full((6, SCHEMA.id_columns), -1, np.int32)
    ids[:, SCHEMA.id_slices()["item"]] = np.arange(3, 9)[:, None]
    found = table_abundance(plan, on_device(tables), rows_seen(plan, [ids[:2], ids[1:]]))
    assert found["item"]["information_abundance"] == pytest.approx(1, abs=1e-3), "to the rounding of float32"
    assert found["item"]["rows"] == 6
    assert found["user"] == {"information_abundance": None, "rows": 0, "width": stack.width}


def test_the_columns_of_a_feature_mark_rows_of_its_own_table(plan, store):
    ids = np.asarray(store.split("train").columns["ids"])
    seen = rows_seen(plan, [ids])
    for feature in SCHEMA.id_features:
        stack, offset, rows = plan.table_rows(feature.name)
        read = ids[:, SCHEMA.id_slices()[feature.name]]
        assert np.array_equal(np.flatnonzero(seen[stack.name][offset : offset + rows]), np.unique(read[read >= 0]))


@pytest.mark.parametrize(("seed", "shuffle"), [(0, True), (3, True), (0, False)])
@pytest.mark.parametrize("step", [1, 3])
def test_the_examples_of_a_part_of_an_epoch_are_those_that_the_loop_reads(store, step, seed, shuffle):
    split, train = store.split("train"), tiny_config(store.path, seed=seed).train
    batches = iter(training_batches(split, batch_size=16, seed=seed, epochs=1, shuffle=shuffle, threads=0))
    expected = [next(batches).ids for _ in range(step)]
    found = list(trained_ids(split, train, shuffle, step))
    assert len(found) == step
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("step", [4, 5])
def test_from_an_epoch_on_all_examples_count(store, monkeypatch, step):
    monkeypatch.setattr(collapse, "CHUNK_ROWS", 33)
    split = store.split("train")
    found = list(trained_ids(split, tiny_config(store.path).train, True, step))
    assert [len(part) for part in found] == [33, 33, 4]
    assert np.array_equal(np.concatenate(found), split.columns["ids"])


def test_a_model_without_tables_has_nothing_to_report(plan, store):
    nothing = dataclasses.replace(plan, stacks=())
    assert trained_abundance(nothing, {}, store.split("train"), tiny_config(store.path).train, True, 3) == {}
