import dataclasses
import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.layers import EmbeddingConfig, FeatureGroup, MLPConfig
from wukong_jax.config.models import (
    AttentiveConfig,
    FactorizationMachineConfig,
    LogisticRegressionConfig,
    WukongConfig,
)
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.embeddings.plan import plan_embeddings
from wukong_jax.models.registry import build_model, table_specs
from wukong_jax.scaling.flops import Cost, describe_cost, fm_interactions
from wukong_jax.training.state import blank_batch, init_variables, make_inputs

SCHEMA = DatasetSchema(
    tuple(CategoricalFeature(name, 100) for name in "abc"),
    (MultiHotFeature("m", 50, 4),),
    (NumericFeature("x"), NumericFeature("y")),
    (VectorFeature("v", 6),),
)
# n = 3 + 1 + 1 + 1 = 6 embeddings of width 8; a layer gives 2 + 3 = 5
D, N, NF, NL, K, H = 8, 6, 2, 3, 4, 16
WUKONG = WukongConfig(
    D, 2, NF, NL, "low_rank", K, MLPConfig((H,)), AttentiveConfig(2, MLPConfig((10,))), MLPConfig((12,)),
)  # fmt: skip


def run_config(model, schema=SCHEMA, *rules: TableRule, **settings) -> RunConfig:
    return RunConfig(
        "t", schema, DataConfig(store="s"), model, tables=TablesConfig(rules or (TableRule(),)), **settings
    )


def cost(**settings) -> Cost:
    return describe_cost(run_config(dataclasses.replace(WUKONG, **settings)))


def mlp_flops(*widths: int) -> int:
    return sum(2 * a * b for a, b in itertools.pairwise(widths))


def mlp_parameters(*widths: int) -> int:
    return sum((a + 1) * b for a, b in itertools.pairwise(widths))


def fmb(fm: str, n: int) -> tuple[int, int]:
    """FLOPs and parameters of one FMB, counted by hand: interactions, LayerNorm (2 per value), MLP."""
    width = n * n if fm == "full" else n * K
    flops = 2 * n * n * D if fm == "full" else 2 * (2 * n * K * D)  # X^T Y and X (X^T Y): n k d each
    parameters = 0 if fm == "full" else n * K
    if fm == "attentive":
        flops += 2 * n * 2 * D + mlp_flops(2 * D, 10, n * K)
        parameters += n * 2 + 2 * 2 * D + mlp_parameters(2 * D, 10, n * K)
    return flops + mlp_flops(width, H, NF * D), parameters + 2 * width + mlp_parameters(width, H, NF * D)


@pytest.mark.parametrize("fm", ["full", "low_rank", "attentive"])
def test_equals_the_count_by_hand(fm):
    found = cost(fm=fm)
    first, second = fmb(fm, N), fmb(fm, NF + NL)
    assert found.forward_flops == {
        "embedding_layer/dense": 2 * 2 * D,
        "embedding_layer/vector_v": 2 * 6 * D,
        "layer_0/fmb": first[0],
        "layer_0/lcb": 2 * N * NL * D,
        "layer_0/residual": 2 * N * (NF + NL) * D,
        "layer_1/fmb": second[0],
        "layer_1/lcb": 2 * (NF + NL) * NL * D,
        "head": mlp_flops((NF + NL) * D, 12, 1),
    }
    assert found.dense_parameters == {
        "embedding_layer/dense": 3 * D,
        "embedding_layer/vector_v": 7 * D,
        "layer_0/fmb": first[1],
        "layer_0/lcb": N * NL,
        "layer_0/residual": N * (NF + NL),
        "layer_0/norm": 2 * D,
        "layer_1/fmb": second[1],
        "layer_1/lcb": (NF + NL) * NL,
        "layer_1/norm": 2 * D,
        "head": mlp_parameters((NF + NL) * D, 12, 1),
    }
    assert found.inference_flops == sum(found.forward_flops.values())
    assert found.training_flops == 3 * found.inference_flops
    assert found.dense_total == sum(found.dense_parameters.values())
    assert found.sparse_total == 350 * D


def test_low_rank_grows_with_n_and_full_with_n_squared():
    def interactions(fm: str, n: int) -> int:
        schema = DatasetSchema(tuple(CategoricalFeature(f"f{i}", 10) for i in range(n)))
        model = dataclasses.replace(WUKONG, fm=fm, fmb_mlp=MLPConfig(), num_layers=1)
        whole = describe_cost(run_config(model, schema)).forward_flops["layer_0/fmb"]
        return whole - mlp_flops(n * n if fm == "full" else n * K, NF * D)

    assert interactions("full", 40) == 2 * 40 * 40 * D == 4 * interactions("full", 20)
    assert interactions("low_rank", 40) == 2 * 2 * 40 * K * D == 2 * interactions("low_rank", 20)


def test_the_interactions_are_those_of_the_traced_models():
    without_mlp = dataclasses.replace(WUKONG, fmb_mlp=MLPConfig())
    found = fm_interactions(without_mlp, SCHEMA)
    assert [(layer.layer, layer.embeddings, layer.rank) for layer in found] == [(0, N, K), (1, NF + NL, K)]
    for layer in found:
        for fm, flops, values in (("low_rank", layer.low_rank_flops, K), ("full", layer.full_flops, layer.embeddings)):
            traced = cost(fm=fm, fmb_mlp=MLPConfig()).forward_flops[f"layer_{layer.layer}/fmb"]
            assert flops == traced - mlp_flops(layer.embeddings * values, NF * D)


def test_ablations_cost_nothing():
    assert "layer_0/fmb" not in cost(use_fmb=False).forward_flops
    assert "layer_0/lcb" not in cost(use_lcb=False).dense_parameters
    assert "layer_0/residual" not in cost(residual=False).forward_flops


def test_rematerialisation_does_not_change_the_forward_count():
    assert cost(remat=True).forward_flops == cost().forward_flops
    assert cost(remat=True).dense_parameters == cost().dense_parameters


def test_baselines():
    linear = describe_cost(run_config(LogisticRegressionConfig()))
    assert (linear.forward_flops, linear.dense_total, linear.sparse_total) == ({"linear": 2 * 8}, 1 + 8, 350)
    machine = describe_cost(run_config(FactorizationMachineConfig(5)))
    assert machine.dense_total == 9 + 8 * 5
    assert machine.sparse_total == 350 * 6


@pytest.mark.parametrize("fm", ["full", "low_rank", "attentive"])
def test_within_2_percent_of_xla_where_matrix_products_dominate(fm):
    schema = DatasetSchema(tuple(CategoricalFeature(f"f{i}", 10) for i in range(32)), numeric=SCHEMA.numeric)
    model = WukongConfig(
        64, 2, 16, 16, fm, 16, MLPConfig((512,)), AttentiveConfig(16, MLPConfig((256,))), MLPConfig((256,))
    )
    model = dataclasses.replace(model, implementation="xla_cpu")  # XLA does not look into the CPU kernels
    config, batch_size = run_config(model, schema), 64
    module, plan = build_model(model, schema), plan_embeddings(schema, table_specs(model, schema), config.tables)
    variables = jax.eval_shape(lambda: init_variables(module, plan, config, jax.random.key(0)))
    tables = {stack.name: jax.ShapeDtypeStruct((stack.rows, stack.width), jnp.float32) for stack in plan.stacks}
    batch = jax.eval_shape(lambda: blank_batch(config, batch_size))

    def forward(variables, tables, batch):
        return module.apply(variables, make_inputs(plan, batch, tables), train=False)

    by_xla = jax.jit(forward).lower(variables, tables, batch).cost_analysis()["flops"] / batch_size
    assert sum(describe_cost(config).forward_flops.values()) == pytest.approx(by_xla, rel=0.02)


@pytest.mark.parametrize(
    ("rule", "slots"),
    [
        (TableRule(), 4 * 200_000_100 * 2),  # a sum of squares per row, and the work space of the de-duplication
        (TableRule(name="adam"), 4 * 200_000_100 * (2 * 64 + 1)),
        (TableRule(update="dense", name="adam"), 4 * 200_000_100 * 64 * 3),  # two moments and the gradient
    ],
)
def test_200_million_rows_are_described_without_being_allocated(rule, slots):
    schema = DatasetSchema((CategoricalFeature("a", 200_000_000), CategoricalFeature("b", 100)))
    tracemalloc.start()
    before = sum(array.nbytes for array in jax.live_arrays())
    found = describe_cost(run_config(WukongConfig(width=64), schema, rule))
    after, (_, peak) = sum(array.nbytes for array in jax.live_arrays()), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.table_bytes == 4 * 200_000_100 * 64
    assert found.slot_bytes == slots
    assert [(spec.rows, update) for spec, update in found.tables] == [
        (rows, f"{rule.update} {rule.name}") for rows in (200_000_000, 100)
    ]
    assert after - before < 2**20
    assert peak < 2**27


def test_memory_of_the_dense_side():
    found = cost()
    assert found.dense_bytes == 4 * found.dense_total * 4  # parameter, gradient, two moments of Adam
    sgd = describe_cost(run_config(WUKONG, optimizer=OptimizerConfig(name="sgd")))
    assert sgd.dense_bytes == 4 * found.dense_total * 2
    assert found.activation_bytes > 4 * (N * D + 2 * (NF + NL) * D)
    cast = describe_cost(run_config(dataclasses.replace(WUKONG, dtype="bfloat16")))
    assert cast.activation_bytes < 1.2 * found.activation_bytes, "weights cast to bfloat16 are there once"
    half = describe_cost(run_config(dataclasses.replace(WUKONG, param_dtype="bfloat16")))
    assert half.dense_bytes == 2 * found.dense_total * 4


def test_groups_and_narrow_tables_are_counted():
    embedding = EmbeddingConfig(groups=(FeatureGroup(("a", "b"), 2, mlp=MLPConfig((5,))),))
    found = cost(embedding=embedding)
    assert found.forward_flops["embedding_layer/group_0"] == mlp_flops(4, 5, D)
    assert found.dense_parameters["embedding_layer/group_0"] == mlp_parameters(4, 5, D)
    assert found.sparse_total == 2 * 100 * 2 + 150 * D
    assert np.all([spec.width == (2 if spec.name in "ab" else D) for spec, _ in found.tables])
