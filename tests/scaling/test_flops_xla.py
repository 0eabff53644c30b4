"""The FLOPs of every model against XLA's own cost analysis, and against the closed forms.

XLA counts elementwise work, sums and the optimizer as well, so that sizes are chosen where products dominate; the batch
is large, so that the optimizer, once a step, is little for each example, and it is worked off as a whole. Measured, XLA
over ours: forward 1.001 to 1.016; step over 3 x forward 1.002 to 1.015. That no gradient goes to the inputs of the
first lifts does not show: they are small, and embeddings do get one. What differs, and why:

- logistic regression: half of its backward pass is not there, as nothing is learned below its products: 2 x forward.
- factorization machine: it has no products but logistic regression's; its pairs are squares and sums, which our
  convention leaves out. They are counted by hand here.
- FinalMLP with learned contexts: both gates are computed once a batch, but counted for every example, as the paper's
  table 3 does; XLA sees their part divided by the batch.

The quick tests use XLA's analysis of the program as written, the slow ones that of the compiled one. Our CPU kernels
are calls into C++ that it does not see, hence implementation "xla".
"""

import dataclasses
import functools
from typing import Any

import jax
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
    LayerOverride,
    LogisticRegressionConfig,
    WukongConfig,
)
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, NumericFeature, VectorFeature
from wukong_jax.models.registry import OF_SEQUENCES, REGISTRY
from wukong_jax.scaling.closed_form import forward_flops
from wukong_jax.scaling.flops import Cost, describe_cost
from wukong_jax.training.program import build_program
from wukong_jax.training.state import blank_batch, make_inputs

BATCH = 2048
FIELDS = tuple(CategoricalFeature(f"f{i}", 100) for i in range(32))
NUMERIC = (NumericFeature("x"), NumericFeature("y"))
SCHEMA = DatasetSchema(FIELDS, (), NUMERIC, (VectorFeature("v", 64),))
TWO_TASKS = dataclasses.replace(SCHEMA, labels=("click", "buy"))
LONG_VECTOR = DatasetSchema(FIELDS[:2], vectors=(VectorFeature("v", 4096),))
MLP = MLPConfig((512, 512))
NORMED = MLPConfig((512, 512), "identity", batch_norm=True)
LIFT = EmbeddingConfig(dense_mlp=MLPConfig((256,)))
PARTS = EmbeddingConfig(
    (ImportantFeature("f0", 3),), (FeatureGroup(("f1", "f2"), 8, 2, MLPConfig((64,))),), dense_embeddings=2
)
WUKONG = WukongConfig(
    64, 2, 16, 16, "low_rank", 16, MLPConfig((512,)), AttentiveConfig(16, MLPConfig((256,))), MLPConfig((256,)),
    implementation="xla",
)  # fmt: skip
FINALMLP = FinalMLPConfig(64, MLP, MLP, 8, MLPConfig((256,)), ("f0", "f1"), ("f2",))
MODELS: dict[str, Any] = {
    "wukong": WUKONG,
    "wukong by the paper's formulas": dataclasses.replace(WUKONG, implementation="reference", embedding=PARTS),
    "wukong full": dataclasses.replace(WUKONG, fm="full"),
    "wukong attentive": dataclasses.replace(WUKONG, fm="attentive", separate_heads=True),
    "wukong, layers of their own": dataclasses.replace(WUKONG, layers=(LayerOverride(8, 24), LayerOverride(rank=24))),
    "dnn": DNNConfig(64, MLP, LIFT),
    "wide & deep": WideDeepConfig(64, MLP, LIFT),
    "deepfm": DeepFMConfig(64, MLP, LIFT),
    "dlrm": DLRMConfig(64, "dot", MLP, LIFT),
    "dlrm concat": DLRMConfig(64, "concat", MLP),
    "dcnv2": DCNv2Config(64, mlp=MLP),
    "dcnv2 low rank": DCNv2Config(64, "parallel", 3, "low_rank", 128, mlp=MLP),
    "dcnv2 mixture": DCNv2Config(64, "stacked", 2, "mixture", 64, 4, MLP),
    "dcnv2 cross only": DCNv2Config(64, "cross_only", mlp=MLPConfig()),
    "finalmlp": FINALMLP,
    "finalmlp without gates": FinalMLPConfig(64, MLP, MLPConfig((256,)), 8, None),
    "autoint": AutoIntConfig(64, 3, 128, 4),
    "autoint+": AutoIntConfig(64, 2, 128, 4, True, True, dnn=MLP, linear=True),
    "afn": AFNConfig(64, 256, MLP),
    "afn+": AFNConfig(64, 256, MLP, MLP, embedding=LIFT),
    "xdeepfm": XDeepFMConfig(64, (64, 32), MLP),
    "masknet serial": MaskNetConfig(64, "serial", (512, 512), 0.3),
    "masknet parallel": MaskNetConfig(64, "parallel", (512, 256), 1.0, mlp=MLP),
    "finalnet": FinalNetConfig(64, NORMED),
    "finalnet of two blocks": FinalNetConfig(64, NORMED, MLPConfig((512,)), residual="sum"),
}
LEARNED = dataclasses.replace(FINALMLP, context1=(), context2=())
APART = {"lr": LogisticRegressionConfig(), "fm": FactorizationMachineConfig(64), "learned contexts": LEARNED}
CASES = pytest.mark.parametrize("name", MODELS)


def run_config(model: Any, schema: DatasetSchema = SCHEMA) -> RunConfig:
    return RunConfig("t", schema, DataConfig(store="s"), model, train=TrainConfig(batch_size=BATCH, micro_batch=None))


@functools.cache
def counted(model: Any, schema: DatasetSchema = SCHEMA) -> Cost:
    return describe_cost(run_config(model, schema))


@functools.cache
def lowered(model: Any, schema: DatasetSchema = SCHEMA) -> tuple[Any, Any]:
    """The forward pass and the real training step, lowered for abstract arguments."""
    config = run_config(model, schema)
    program = build_program(config, 100)
    state, batch = program.abstract_state(), jax.eval_shape(lambda: blank_batch(config, BATCH))
    variables = {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})

    def forward(variables, tables, batch):
        return program.model.apply(variables, make_inputs(program.plan, batch, tables), train=False)

    return jax.jit(forward).lower(variables, state.tables, batch), program.train_step.lower(state, batch)


def by_xla(stage: Any) -> float:
    """FLOPs per example."""
    return stage.cost_analysis()["flops"] / BATCH


def forward_of(model: Any, schema: DatasetSchema = SCHEMA) -> int:
    return sum(counted(model, schema).forward_flops.values())


def test_the_table_holds_every_model():
    assert {type(model) for model in (*MODELS.values(), *APART.values())} == set(REGISTRY) - set(OF_SEQUENCES)


@pytest.mark.parametrize("schema", [SCHEMA, TWO_TASKS], ids=["one task", "two tasks"])
@pytest.mark.parametrize("model", (MODELS | APART).values(), ids=(MODELS | APART).keys())
def test_the_closed_form_is_the_traced_count(model, schema):
    assert forward_flops(model, schema) == forward_of(model, schema)


@CASES
def test_forward_within_2_percent(name):
    assert by_xla(lowered(MODELS[name])[0]) == pytest.approx(forward_of(MODELS[name]), rel=0.02)


@CASES
def test_the_training_step_within_10_percent_of_3_x_forward(name):
    found = counted(MODELS[name]).training_flops
    assert found == 3 * forward_of(MODELS[name])
    assert by_xla(lowered(MODELS[name])[1]) == pytest.approx(found, rel=0.1)


@pytest.mark.slow
@CASES
def test_the_same_of_the_compiled_programs(name):
    """Forward 1.001 to 1.011, but AutoInt+ 1.026 instead of 1.016 as written; step 1.003 to 1.017.

    AutoInt+ alone has softmax and LayerNorm, whose elementwise chains the compiler computes again for each reader.
    """
    forward, step = (by_xla(stage.compile()) for stage in lowered(MODELS[name]))
    assert forward == pytest.approx(forward_of(MODELS[name]), rel=0.03 if name == "autoint+" else 0.02)
    assert step == pytest.approx(3 * forward_of(MODELS[name]), rel=0.1)


def test_logistic_regression_of_a_long_vector():
    forward, step = map(by_xla, lowered(APART["lr"], LONG_VECTOR))
    assert forward == pytest.approx(forward_of(APART["lr"], LONG_VECTOR), rel=0.02)
    assert step == pytest.approx(2 * forward_of(APART["lr"], LONG_VECTOR), rel=0.1)


def test_the_factorization_machine_with_its_elementwise_work_counted_by_hand():
    """v_i x_i of the values; sum, square, sum of squares over all; the difference, its half, the sum over d."""
    values, d = 2 + 64, 64
    rows = values + len(FIELDS)
    elementwise = d * (values + rows + 1 + rows + rows + 1 + 1 + 1)
    forward, step = map(by_xla, lowered(APART["fm"]))
    assert forward == pytest.approx(forward_of(APART["fm"]) + elementwise, rel=0.02)
    assert step == pytest.approx(3 * forward, rel=0.1)


def test_finalmlp_gates_of_learned_contexts_are_computed_once_a_batch():
    found = counted(LEARNED)
    gates = found.forward_flops["gate1"] + found.forward_flops["gate2"]
    seen = sum(found.forward_flops.values()) - gates * (1 - 1 / BATCH)
    assert gates > 0.25 * sum(found.forward_flops.values())
    forward, step = map(by_xla, lowered(LEARNED))
    assert forward == pytest.approx(seen, rel=0.02)
    assert step == pytest.approx(3 * seen, rel=0.1)
