import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature
from wukong_jax.embeddings.initialise import init_stack
from wukong_jax.embeddings.lookup import Inputs, gather_rows, stack_ids
from wukong_jax.embeddings.plan import EmbeddingPlan, plan_embeddings
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs
from wukong_jax.errors import ConfigError

SCHEMA = DatasetSchema(
    (CategoricalFeature("a", 10), CategoricalFeature("b", 20), CategoricalFeature("c", 5)),
    (MultiHotFeature("mean", 6, 3, "mean"), MultiHotFeature("sum", 7, 2)),
)
NAMES = SCHEMA.feature_names
SIZES = {feature.name: feature.vocabulary_size for feature in SCHEMA.id_features}
WIDTH, BATCH = 4, 50


def make_plan(*rules: TableRule, widths: dict[str, int] | None = None) -> EmbeddingPlan:
    tables = tuple(TableSpec(name, SIZES[name], (widths or {}).get(name, WIDTH), 0.1) for name in NAMES)
    return plan_embeddings(SCHEMA, TableSpecs(tables, tuple(FeatureSpec(n, n) for n in NAMES)), TablesConfig(rules))


@pytest.fixture
def ids(rng) -> np.ndarray:
    one_hot = [rng.integers(0, SIZES[name], (BATCH, 1)) for name in "abc"]
    multi_hot = [rng.integers(-1, 6, (BATCH, 3)), rng.integers(-1, 7, (BATCH, 2))]
    ids = np.concatenate(one_hot + multi_hot, axis=1).astype(np.int32)
    ids[0, 3:] = -1  # nothing at all
    ids[1, 3:6] = [2, 2, -1]  # the same twice
    return ids


def look_up(plan: EmbeddingPlan, ids: np.ndarray, rng: np.random.Generator) -> tuple[Inputs, dict[str, np.ndarray]]:
    arrays = {stack.name: rng.normal(size=(stack.rows, stack.width)).astype(np.float32) for stack in plan.stacks}
    tables = {}
    for name in NAMES:
        stack, first, rows = plan.table_rows(name)
        tables[name] = arrays[stack.name][first : first + rows].astype(np.float64)
    ids = jnp.asarray(ids)
    rows = {stack.name: gather_rows(stack, jnp.asarray(arrays[stack.name]), ids) for stack in plan.stacks}
    empty = jnp.zeros((BATCH, 0))
    dense = {stack.name: jnp.asarray(arrays[stack.name]) for stack in plan.dense}
    return Inputs(rows, dense, ids, empty, empty, plan), tables


def pooled(table: np.ndarray, ids: np.ndarray, combiner: str) -> np.ndarray:
    """Example by example."""
    out = np.zeros((len(ids), table.shape[1]))
    for row, places in enumerate(ids):
        used = [table[i] for i in places if i >= 0]
        if used:
            out[row] = np.sum(used, axis=0) / (len(used) if combiner == "mean" else 1)
    return out


PLANS = {
    "one stack": make_plan(TableRule()),
    "two rules": make_plan(TableRule("^(b|sum)$", name="sgd"), TableRule()),
    "dense and sparse": make_plan(TableRule("^(a|mean)$", update="dense", name="adam"), TableRule()),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_embeddings_equal_numpy(plan, ids, rng):
    inputs, tables = look_up(plan, ids, rng)
    wanted = {name: tables[name][ids[:, column]] for column, name in enumerate("abc")}
    wanted["mean"] = pooled(tables["mean"], ids[:, 3:6], "mean")
    wanted["sum"] = pooled(tables["sum"], ids[:, 6:8], "sum")
    assert not wanted["mean"][0].any()
    for name in NAMES:
        np.testing.assert_allclose(inputs.embedding(name, name), wanted[name], rtol=1e-6, atol=1e-6)
    for order in (NAMES, NAMES[::-1], ("b", "c"), ("c", "a"), ("sum",)):
        found = inputs.embeddings([(name, name) for name in order])
        np.testing.assert_allclose(found, np.stack([wanted[name] for name in order], axis=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", ["abc", "ab", "bc", "c"])
def test_the_slice_of_neighbours_equals_the_general_path(order, ids, rng):
    inputs, _ = look_up(PLANS["one stack"], ids, rng)
    sliced = inputs.embeddings([(name, name) for name in order])
    general = jnp.stack([inputs.embedding(name, name) for name in order], axis=1)
    np.testing.assert_array_equal(sliced, general)
    program = str(jax.make_jaxpr(lambda inputs: inputs.embeddings([(name, name) for name in order]))(inputs))
    assert "concatenate" not in program


def test_ids_become_rows_of_the_stack_and_unused_places_lie_past_its_end(ids):
    plan = PLANS["two rules"]
    for stack in plan.stacks:
        found = np.asarray(stack_ids(stack, jnp.asarray(ids)))
        assert found.shape == (BATCH, stack.slots)
        for lookup in stack.lookups:
            local = ids[:, lookup.columns]
            part = found[:, lookup.first_slot : lookup.first_slot + len(lookup.columns)]
            np.testing.assert_array_equal(part, np.where(local < 0, stack.rows, local + lookup.row_offset))
        assert found.dtype == np.int32


def test_only_a_dense_table_can_be_read_whole(ids, rng):
    inputs, tables = look_up(PLANS["dense and sparse"], ids, rng)
    np.testing.assert_array_equal(inputs.table("mean"), tables["mean"].astype(np.float32))
    with pytest.raises(ConfigError, match=r"table 'b' is updated row by row.*TableRule\('\^b\$', update='dense'"):
        inputs.table("b")


def stack_of(*tables: tuple[int, float], width: int):
    names = "abc"[: len(tables)]
    specs = tuple(TableSpec(name, rows, width, stddev) for name, (rows, stddev) in zip(names, tables, strict=True))
    return plan_embeddings(SCHEMA, TableSpecs(specs, tuple(FeatureSpec(n, n) for n in names)), TablesConfig()).stacks[0]


def test_tables_are_normal_with_their_own_stddev_across_chunk_borders():
    width = 2**15  # 32 rows a chunk
    stack = stack_of((70, 0.5), (32, 2.0), (3, 0.01), width=width)
    table = np.asarray(init_stack(stack, jax.random.key(0)), np.float64)
    for start, rows, stddev in [(0, 70, 0.5), (70, 32, 2.0), (102, 3, 0.01)]:
        part = table[start : start + rows] / stddev
        # each row by itself, so that a row left out or drawn twice shows
        assert np.abs(part.mean(axis=1)).max() < 5 / np.sqrt(width)
        assert np.abs(part.std(axis=1) - 1).max() < 5 / np.sqrt(2 * width)
        assert abs((part**4).mean() - 3) < 0.1
    likeness = np.corrcoef(table)
    assert np.abs(likeness - np.eye(len(table))).max() < 6 / np.sqrt(width)


def test_tables_of_different_rules_start_different():
    specs = TableSpecs(tuple(TableSpec(n, 10, WIDTH, 0.1) for n in "ab"), tuple(FeatureSpec(n, n) for n in "ab"))
    plan = plan_embeddings(SCHEMA, specs, TablesConfig((TableRule("^a$", name="sgd"), TableRule("^b$", name="adam"))))
    one, other = (np.asarray(init_stack(stack, jax.random.key(0))) for stack in plan.stacks)
    assert one.shape == other.shape == (10, WIDTH)
    assert (one != other).all()


def test_initialisation_follows_from_the_key():
    stack = stack_of((40, 0.5), (8, 0.5), width=4)
    first, again, other = (np.asarray(init_stack(stack, jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert (first[:8] != first[40:]).all()
