"""What the registry promises of every model: a new one is one row here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.baselines import (
    AFNConfig,
    AutoIntConfig,
    DCNv2Config,
    DeepFMConfig,
    DLRMConfig,
    DNNConfig,
    FinalMLPConfig,
    FinalNetConfig,
    MaskNetConfig,
    WideDeepConfig,
    XDeepFMConfig,
)
from wukong_jax.config.layers import EmbeddingConfig, FeatureGroup, ImportantFeature, MLPConfig
from wukong_jax.config.models import (
    AttentiveConfig,
    FactorizationMachineConfig,
    LogisticRegressionConfig,
    WukongConfig,
)
from wukong_jax.config.optimizer import TableRule
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.errors import ConfigError
from wukong_jax.models.registry import OF_SEQUENCES, REGISTRY, table_specs

WUKONG = WukongConfig(
    width=4, num_layers=1, num_fmb=2, num_lcb=2, rank=2, fmb_mlp=MLPConfig((8,), "tanh"), head=MLPConfig()
)
TANH, NORMED = MLPConfig((8,), "tanh"), MLPConfig((6,), "tanh", batch_norm=True)
SEVERAL = EmbeddingConfig(dense_embeddings=2)  # attention between embeddings needs two, from any features
LINEAR = MLPConfig((6,), "identity", batch_norm=True)  # AFN's exponentials saturate a tanh
MODELS = {
    "wukong": WUKONG,
    "wukong attentive": dataclasses.replace(WUKONG, fm="attentive", separate_heads=True),
    "logistic regression": LogisticRegressionConfig(),
    "factorization machine": FactorizationMachineConfig(3),
    "dnn": DNNConfig(4, NORMED),
    "wide & deep": WideDeepConfig(4, NORMED),
    "deepfm": DeepFMConfig(4, NORMED),
    "dlrm": DLRMConfig(4, "dot", TANH),
    "dlrm concat": DLRMConfig(4, "concat", NORMED),
    "dcnv2": DCNv2Config(4, "stacked", 2, mlp=TANH),
    "dcnv2 parallel": DCNv2Config(4, "parallel", 2, "low_rank", 3, mlp=NORMED),
    "dcnv2 cross only": DCNv2Config(4, "cross_only", 2, "mixture", 3, 2, MLPConfig()),
    "finalmlp": FinalMLPConfig(4, NORMED, TANH, 2, TANH),
    "finalmlp without gates": FinalMLPConfig(4, TANH, NORMED, 2, None),
    "autoint": AutoIntConfig(4, 2, 6, 2, embedding=SEVERAL),
    "autoint+": AutoIntConfig(4, 2, 4, 2, scale=True, layer_norm=True, dnn=NORMED, linear=True, embedding=SEVERAL),
    "afn": AFNConfig(4, 5, LINEAR),
    "afn+": AFNConfig(4, 5, LINEAR, NORMED),
    "afn+ with shared tables": AFNConfig(4, 5, LINEAR, TANH, shared_tables=True),
    "xdeepfm": XDeepFMConfig(4, (3, 2), NORMED),
    "xdeepfm, cin only": XDeepFMConfig(4, (3, 2), None, linear=False),
    "masknet serial": MaskNetConfig(4, "serial", (16, 16)),
    "masknet parallel": MaskNetConfig(4, "parallel", (16, 16), 2.0, embedding_norm=False, mlp=NORMED),
    "finalnet": FinalNetConfig(4, MLPConfig((6,), "identity", batch_norm=True)),
    "finalnet of two blocks": FinalNetConfig(4, TANH, NORMED, gates=False, residual="sum"),
}
CATEGORICAL = (CategoricalFeature("a", 9), CategoricalFeature("b", 5))
MULTI_HOT = (MultiHotFeature("m", 7, 3, "mean"),)
NUMERIC, VECTORS = (NumericFeature("x"), NumericFeature("y")), (VectorFeature("v", 3),)
DROP = MLPConfig((8,), "tanh", dropout=0.5)
DROPPING = {
    "numeric features": dataclasses.replace(WUKONG, embedding=EmbeddingConfig(dense_mlp=DROP)),
    "feature group": dataclasses.replace(
        WUKONG, embedding=EmbeddingConfig(groups=(FeatureGroup(("a", "b"), 2, mlp=DROP),))
    ),
    "attentive projection": dataclasses.replace(WUKONG, fm="attentive", attentive=AttentiveConfig(mlp=DROP)),
    "dcnv2": DCNv2Config(4, "stacked", 2, mlp=DROP),
    "finalmlp's gates": FinalMLPConfig(4, TANH, TANH, 2, DROP, ("a",), ("b",)),
    "finalnet": FinalNetConfig(4, DROP),
}
SCHEMAS = {
    "everything": DatasetSchema(CATEGORICAL, MULTI_HOT, NUMERIC, VECTORS),
    "two tasks": DatasetSchema(CATEGORICAL, MULTI_HOT, NUMERIC, VECTORS, labels=("click", "buy")),
    "no numeric features": DatasetSchema(CATEGORICAL),
    "only numeric features": DatasetSchema(numeric=NUMERIC),
}


def test_the_table_holds_every_model_of_labels():
    assert {type(config) for config in MODELS.values()} == set(REGISTRY) - set(OF_SEQUENCES)


# two tasks have all the features of "everything", and one task the others
@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(schema, id=name, marks=[pytest.mark.slow] * (name == "everything"))
        for name, schema in SCHEMAS.items()
    ],
)
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_logits_and_gradients(config, schema, set_up):
    setup = set_up(config, schema)
    inputs, tasks = setup.inputs, len(schema.labels)

    def total(params, rows, weights, train):
        variables = setup.variables | {"params": params}
        with_rows = inputs.replace(rows=rows)
        logits, changed = setup.model.apply(variables, with_rows, train=train, mutable=["batch_stats"])
        return (logits * weights).sum(), (logits, changed.get("batch_stats", {}))

    gradient = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True), static_argnums=3)
    # another weight for each task, so that no task can hide behind another
    weights = jnp.arange(1.0, 1 + 6 * tasks).reshape(6, tasks)
    # by the running statistics: those of the batch take out whatever a bias in front of a BatchNorm adds
    arguments = setup.variables["params"], dict(inputs.rows), weights
    (of_params, of_rows), (logits, unchanged) = gradient(*arguments, False)
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
    _, (logits, changed) = total(*arguments, True)
    assert np.isfinite(logits).all()
    before = setup.variables.get("batch_stats", {})
    jax.tree.map(np.testing.assert_array_equal, unchanged, before)
    assert jax.tree.structure(changed) == jax.tree.structure(before)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(changed), strict=True):
        assert np.all(old != new), "training leaves a running statistic as it was"


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_jit_changes_nothing_and_one_batch_row_does_not_see_another(config, set_up):
    setup = set_up(config, SCHEMAS["everything"])
    together = np.asarray(setup.logits(train=False))
    jitted = jax.jit(lambda variables, inputs: setup.model.apply(variables, inputs, train=False))
    np.testing.assert_allclose(jitted(setup.variables, setup.inputs), together, rtol=1e-5, atol=1e-6)
    setup.batch = jax.tree.map(lambda x: x[::-1], setup.batch)
    np.testing.assert_allclose(jitted(setup.variables, setup.inputs), together[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", DROPPING.values(), ids=DROPPING.keys())
def test_dropout_acts_wherever_there_is_an_mlp(config, set_up):
    setup = set_up(config, SCHEMAS["everything"])
    logits = jax.jit(lambda key, train: setup.logits(train=train, rngs={"dropout": key}), static_argnums=1)
    one, again, other = (np.asarray(logits(jax.random.key(seed), True)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


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
