"""What the registry promises of every model: a new one is one row here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.layers import EmbeddingConfig, FeatureGroup, ImportantFeature, MLPConfig
from wukong_jax.config.models import FactorizationMachineConfig, LogisticRegressionConfig, WukongConfig
from wukong_jax.config.optimizer import TableRule
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.errors import ConfigError
from wukong_jax.models.registry import REGISTRY, table_specs

WUKONG = WukongConfig(
    width=4, num_layers=1, num_fmb=2, num_lcb=2, rank=2, fmb_mlp=MLPConfig((8,), "tanh"), head=MLPConfig()
)
MODELS = {
    "wukong": WUKONG,
    "wukong attentive": dataclasses.replace(WUKONG, fm="attentive", separate_heads=True),
    "logistic regression": LogisticRegressionConfig(),
    "factorization machine": FactorizationMachineConfig(3),
}
CATEGORICAL = (CategoricalFeature("a", 9), CategoricalFeature("b", 5))
MULTI_HOT = (MultiHotFeature("m", 7, 3, "mean"),)
NUMERIC, VECTORS = (NumericFeature("x"), NumericFeature("y")), (VectorFeature("v", 3),)
SCHEMAS = {
    "everything": DatasetSchema(CATEGORICAL, MULTI_HOT, NUMERIC, VECTORS),
    "two tasks": DatasetSchema(CATEGORICAL, MULTI_HOT, NUMERIC, VECTORS, labels=("click", "buy")),
    "no numeric features": DatasetSchema(CATEGORICAL),
    "only numeric features": DatasetSchema(numeric=NUMERIC),
}


def test_the_table_holds_every_model():
    assert {type(config) for config in MODELS.values()} == set(REGISTRY)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_logits_and_gradients(config, schema, set_up):
    setup = set_up(config, schema)
    inputs, tasks = setup.inputs, len(schema.labels)

    def total(params, rows, weights):
        logits = setup.model.apply({"params": params}, inputs.replace(rows=rows), train=True)
        return (logits * weights).sum(), logits

    gradient = jax.grad(total, argnums=(0, 1), has_aux=True)
    # another weight for each task, so that no task can hide behind another
    weights = jnp.arange(1.0, 1 + 6 * tasks).reshape(6, tasks)
    (of_params, of_rows), logits = gradient(setup.variables["params"], dict(inputs.rows), weights)
    assert logits.shape == (6, tasks)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    assert np.std(logits) > 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_params):
        assert np.any(leaf), f"no gradient reaches {jax.tree_util.keystr(path)}"
    for stack in setup.plan.stacks:
        reached = np.any(np.asarray(of_rows[stack.name]) != 0, axis=-1)
        for lookup in stack.lookups:
            used = np.asarray(setup.batch.ids)[:, lookup.columns] >= 0
            part = reached[:, lookup.first_slot : lookup.first_slot + len(lookup.columns)]
            assert part[used].all(), f"no gradient reaches a row of {lookup.table}"
    assert {spec.feature for spec in table_specs(config, schema).lookups} == {f.name for f in schema.id_features}


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_jit_changes_nothing_and_one_batch_row_does_not_see_another(config, set_up):
    setup = set_up(config, SCHEMAS["everything"])
    together = np.asarray(setup.logits(train=False))
    jitted = jax.jit(lambda variables, inputs: setup.model.apply(variables, inputs, train=False))
    np.testing.assert_allclose(jitted(setup.variables, setup.inputs), together, rtol=1e-5, atol=1e-6)
    setup.batch = jax.tree.map(lambda x: x[::-1], setup.batch)
    np.testing.assert_allclose(jitted(setup.variables, setup.inputs), together[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_dense_and_sparse_tables_give_the_same_logits(config, set_up):
    """The update rule decides the stacks, not the numbers."""
    setup = set_up(config, SCHEMAS["two tasks"])
    other = set_up(config, SCHEMAS["two tasks"], TableRule("^(a|m)", update="dense", name="adam"), TableRule())
    assert other.plan.dense
    assert other.plan.row_sparse
    stacks = {
        stack.name: jnp.concatenate([jnp.asarray(setup.tables[spec.name], jnp.float32) for spec in stack.tables])
        for stack in other.plan.stacks
    }
    other.stacks, other.variables, other.batch = stacks, setup.variables, setup.batch
    np.testing.assert_allclose(other.logits(), setup.logits(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "embedding", [EmbeddingConfig((ImportantFeature("z", 2),)), EmbeddingConfig(groups=(FeatureGroup(("a", "x"), 2),))]
)
def test_an_unknown_feature_is_refused(embedding):
    with pytest.raises(
        ConfigError, match=r"unknown feature '[zx]'; the schema's categorical features are \['a', 'b', 'm'\]"
    ):
        table_specs(dataclasses.replace(WUKONG, embedding=embedding), SCHEMAS["everything"])
