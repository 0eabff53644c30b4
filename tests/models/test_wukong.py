import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.models import wukong_oracle as oracle
from tests.models.conftest import filled
from wukong_jax.config.layers import EmbeddingConfig, FeatureGroup, ImportantFeature, MLPConfig
from wukong_jax.config.models import AttentiveConfig, LayerOverride, WukongConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.models.embedding_layer import EmbeddingLayer, count_embeddings
from wukong_jax.models.wukong import FactorizationMachineBlock, LinearCompressBlock, WukongLayer

# 4 plain embeddings, one of them pooled by sum; a layer of 2 + 2 keeps n, so that the residual is the identity
PLAIN = DatasetSchema(tuple(CategoricalFeature(name, 9) for name in "abc"), (MultiHotFeature("m", 7, 3),))
FULL = DatasetSchema(
    tuple(CategoricalFeature(name, 9) for name in "abcd"),
    (MultiHotFeature("mean", 7, 3, "mean"), MultiHotFeature("sum", 5, 2)),
    (NumericFeature("x"), NumericFeature("y")),
    (VectorFeature("v", 3), VectorFeature("w", 2)),
    labels=("click", "buy"),
)
SMALL = WukongConfig(
    width=4, num_layers=2, num_fmb=2, num_lcb=2, rank=2, fmb_mlp=MLPConfig((5,)), head=MLPConfig((6,)),
    attentive=AttentiveConfig(mlp=MLPConfig((5,)))
)  # fmt: skip
KINDS = ["full", "low_rank", "attentive"]
WIDE = {"num_fmb": 3, "num_lcb": 2}
OVERRIDES = (LayerOverride(num_fmb=1, num_lcb=4), LayerOverride(rank=3, fmb_mlp=MLPConfig((3, 4), "tanh")))
CASES = {
    **{f"{kind}, identity": (PLAIN, {"fm": kind}) for kind in KINDS},
    **{f"{kind}, projected": (PLAIN, {"fm": kind, **WIDE}) for kind in KINDS},
    **{f"no {part}": (PLAIN, {part: False}) for part in ("use_fmb", "use_lcb", "residual")},
    "no residual where n changes": (PLAIN, {"residual": False, **WIDE}),
    "per-layer settings": (PLAIN, {"layers": OVERRIDES}),
    "per-layer settings, attentive": (PLAIN, {"layers": OVERRIDES, "fm": "attentive"}),
    "compressed": (PLAIN, {"fm": "attentive", "attentive": AttentiveConfig(3, MLPConfig((4,), "silu"))}),
    "no hidden layers": (PLAIN, {"fmb_mlp": MLPConfig(), "head": MLPConfig()}),
    "all features, two tasks": (FULL, {}),
    "separate heads": (FULL, {"separate_heads": True}),
    "BatchNorm in evaluation": (FULL, {"head": MLPConfig((6, 4), "sigmoid", 0.5, True), "separate_heads": True}),
    "whole embedding layer": (
        FULL,
        {
            "embedding": EmbeddingConfig(
                important=(ImportantFeature("mean", 2), ImportantFeature("b", 3)),
                groups=(FeatureGroup(("c", "sum"), 3, 2, MLPConfig((4,))), FeatureGroup(("a",), 2)),
                dense_mlp=MLPConfig((5,), "tanh"),
                dense_embeddings=2,
                vector_embeddings=2,
            )
        },
    ),
}


@pytest.mark.parametrize(("schema", "settings"), CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(schema, settings, set_up):
    config = dataclasses.replace(SMALL, **settings)
    setup = set_up(config, schema)
    statistics = jax.tree.map(lambda x: np.asarray(x, np.float64), setup.variables.get("batch_stats", {}))
    wanted = oracle.wukong(
        setup.params, setup.tables, jax.tree.map(np.asarray, setup.batch), config, schema, statistics
    )
    found = setup.logits(train=False)
    assert found.shape == (6, len(schema.labels))
    assert np.std(wanted) > 0.01
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    if "lcb" in setup.params["layer_0"]:
        assert setup.params["layer_0"]["lcb"]["weight"].shape[0] == count_embeddings(schema, config.embedding)
    projected = {name: "residual" in setup.params[name] for name in setup.params if name.startswith("layer_")}
    sizes = [4 if schema is PLAIN else None, *[config.layer(i).num_fmb + config.layer(i).num_lcb for i in range(2)]]
    if sizes[0]:
        if config.fm == "low_rank" and config.use_fmb:
            ranks = [setup.params[f"layer_{i}"]["fmb"]["projection"].shape[1] for i in range(2)]
            assert ranks == [config.layer(i).rank for i in range(2)]
        assert projected == {f"layer_{i}": config.residual and sizes[i] != sizes[i + 1] for i in range(2)}


@pytest.mark.parametrize("fm", KINDS)
@pytest.mark.parametrize("num_lcb", [1, 3], ids=["identity", "projected"])
def test_layer_gradients_equal_finite_differences(fm, num_lcb, rng):
    with jax.enable_x64(True):
        layer = WukongLayer(
            2, num_lcb, 2, MLPConfig((3,), "tanh"), fm, AttentiveConfig(mlp=MLPConfig((3,), "silu")),
            dtype=jnp.float64, param_dtype=jnp.float64
        )  # fmt: skip
        x = jnp.asarray(rng.normal(size=(2, 3, 4)))
        shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))
        check_grads(jax.jit(layer.apply), (filled(shapes, rng), x), order=1, modes=["rev"], eps=1e-6, rtol=1e-7)


@pytest.mark.slow
def test_embedding_layer_gradients_equal_finite_differences(set_up, rng):
    setup = set_up(dataclasses.replace(SMALL, **CASES["whole embedding layer"][1]), FULL)
    with jax.enable_x64(True):
        config = dataclasses.replace(setup.config.model.embedding, dense_mlp=MLPConfig((5,), "tanh"), groups=())
        layer = EmbeddingLayer(FULL, config, 4, jnp.float64, jnp.float64)
        variables = jax.tree.map(lambda x: x.astype(jnp.float64), setup.variables["params"]["embedding_layer"])
        kept = {"params": {name: value for name, value in variables.items() if not name.startswith("group")}}
        plan = set_up(dataclasses.replace(SMALL, embedding=config), FULL).plan
        slots = {stack.name: (6, stack.slots, stack.width) for stack in plan.stacks}
        rows = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in slots.items()}

        @jax.jit
        def apply(params, rows, numeric):
            return layer.apply(params, setup.inputs.replace(rows=rows, numeric=numeric, plan=plan))

        numeric = jnp.asarray(rng.normal(size=(6, 2)))
        check_grads(apply, (kept, rows, numeric), order=1, modes=["rev"], eps=1e-6, rtol=1e-7)


def test_remat_gives_the_same_values_and_gradients(set_up):
    setup = set_up(dataclasses.replace(SMALL, fmb_mlp=MLPConfig((5,), dropout=0.5)), PLAIN)
    results, programs = [], []
    for remat in (False, True):
        other = dataclasses.replace(setup.model, config=dataclasses.replace(setup.config.model, remat=remat))

        def total(params, rows, other=other):
            inputs = setup.inputs.replace(rows=rows)
            return other.apply({"params": params}, inputs, train=True, rngs={"dropout": jax.random.key(1)}).sum()

        arguments = setup.variables["params"], dict(setup.inputs.rows)
        results.append(jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(*arguments))
        programs.append(str(jax.make_jaxpr(jax.grad(total))(*arguments)))
    assert ["checkpoint" in program or "remat" in program for program in programs] == [False, True]
    for plain, again in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fm", KINDS)
def test_bfloat16_is_close_to_float32_and_gives_float32_logits(fm, set_up):
    config = dataclasses.replace(SMALL, fm=fm, width=8, rank=4)
    setup = set_up(config, PLAIN, rows=64)
    exact = np.asarray(setup.logits())
    half = dataclasses.replace(config, dtype="bfloat16")
    layer = dataclasses.replace(setup.model.embedding_layer, dtype=jnp.bfloat16, parent=None)
    model = dataclasses.replace(setup.model, config=half, embedding_layer=layer)
    found = model.apply(setup.variables, setup.inputs)
    assert found.dtype == jnp.float32
    assert not np.array_equal(found, found.astype(jnp.bfloat16)), "the last product was rounded: logits would tie"
    assert not np.array_equal(found, exact)
    assert np.sqrt(np.mean((np.asarray(found) - exact) ** 2)) < 0.05 * np.std(exact)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), setup.inputs))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}


def test_dropout_acts_in_training_only(set_up):
    for field in ("fmb_mlp", "head"):
        setup = set_up(dataclasses.replace(SMALL, **{field: MLPConfig((32,), dropout=0.5)}), PLAIN)
        one, two = (setup.logits(train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1))
        assert not np.array_equal(one, two)
        np.testing.assert_array_equal(one, setup.logits(train=True, rngs={"dropout": jax.random.key(0)}))
        without = dataclasses.replace(SMALL, **{field: MLPConfig((32,))})
        plain = dataclasses.replace(setup.model, config=without).apply(setup.variables, setup.inputs, train=True)
        np.testing.assert_array_equal(setup.logits(train=False), plain)
        np.testing.assert_array_equal(setup.logits(), plain)


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
def test_blocks_work_alone_on_arrays(dtype, rng):
    """As in a notebook: init and apply on [B, n, d]; the numbers are those of the oracle's parts."""
    x = jnp.asarray(rng.normal(size=(3, 5, 4)), jnp.float32)
    blocks = {
        FactorizationMachineBlock(2, MLPConfig((3,)), "full", dtype=dtype): 2,
        FactorizationMachineBlock(2, fm="attentive", rank=3, dtype=dtype): 2,
        LinearCompressBlock(3, dtype=dtype): 3,
        WukongLayer(2, 3, dtype=dtype): 5,
    }
    for block, n in blocks.items():
        shapes = jax.eval_shape(lambda block=block: block.init(jax.random.key(0), x.astype(dtype)))
        out = block.apply(filled(shapes, rng), x.astype(dtype))
        assert out.shape == (3, n, 4)
        assert out.dtype == dtype
        assert np.isfinite(np.asarray(out, np.float32)).all()


def test_the_linear_compress_block_is_a_matrix_product_without_bias(rng):
    x = rng.normal(size=(2, 5, 4)).astype(np.float32)
    weight = rng.normal(size=(5, 3)).astype(np.float32)
    found = LinearCompressBlock(3).apply({"params": {"weight": weight}}, jnp.asarray(x))
    np.testing.assert_allclose(found, np.stack([weight.T @ example for example in x]), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(LinearCompressBlock(3).apply({"params": {"weight": weight}}, jnp.zeros((2, 5, 4))), 0)
