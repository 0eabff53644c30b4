import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.cli import main
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.mesh import MeshConfig
from wukong_jax.config.models import (
    FactorizationMachineConfig,
    LayerOverride,
    LogisticRegressionConfig,
    WukongConfig,
)
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature
from wukong_jax.embeddings.table_ops import ONE_DEVICE
from wukong_jax.errors import ConfigError
from wukong_jax.evaluation.metrics import compute_metrics, init_metrics
from wukong_jax.training import micro_batch
from wukong_jax.training.micro_batch import evaluation_part, joined, micro_batch_size, split
from wukong_jax.training.program import Program, build_program
from wukong_jax.training.state import TrainState, blank_batch, make_inputs
from wukong_jax.training.step import make_eval_step

pytestmark = pytest.mark.usefixtures("compile_quickly")

ROWS, PARTS = 48, 4
TABLES = "sgd adagrad rowwise_adagrad adam dense".split()
SCHEMA = DatasetSchema(
    tuple(CategoricalFeature(name, 12) for name in TABLES),
    (MultiHotFeature("several", 8, 3, "mean"),),
    (NumericFeature("x"),),
    (VectorFeature("v", 2),),
    labels=("click", "buy"),
)
# One table for each optimizer, one updated densely; the multi-hot table falls under the last rule.
RULES = (
    *(TableRule(f"^{name}", name=name, learning_rate=0.1) for name in TABLES[:-1]),
    TableRule("^dense", update="dense", name="adagrad", learning_rate=0.1),
    TableRule(".*", name="rowwise_adagrad", learning_rate=0.1),
)
WUKONG = WukongConfig(width=4, num_layers=1, num_fmb=2, num_lcb=2, rank=2, fmb_mlp=MLPConfig((4,)), head=MLPConfig())
BATCH_NORM = dataclasses.replace(WUKONG, head=MLPConfig((4,), batch_norm=True))
DROPOUT = dataclasses.replace(WUKONG, use_fmb=False, head=MLPConfig((16,), dropout=0.5))
MODELS = {"wukong": WUKONG, "FM": FactorizationMachineConfig(3), "logistic regression": LogisticRegressionConfig()}


def run_config(model=WUKONG, **train) -> RunConfig:
    settings = {"batch_size": ROWS, "task_weights": (1.0, 0.3), "progressive": True} | train
    tables = TablesConfig(RULES if isinstance(model, WukongConfig) else RULES[-2:])
    return RunConfig(
        "t", SCHEMA, DataConfig(store="s"), model, OptimizerConfig("sgd", 0.3), tables, TrainConfig(**settings)
    )  # fmt: skip


@functools.cache
def program(model, micro_batch: int | None) -> Program:
    """Compiled once for all tests of the module."""
    return build_program(run_config(model, micro_batch=micro_batch), 10)


@functools.cache
def start(model) -> TrainState:
    """A state with random parameters, of which `copied` makes one to be donated."""
    rng = np.random.default_rng(5)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if name.startswith((".params", ".tables")):
            return jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype)
        one = "sum_of_squares" in name or name.startswith((".opt_state", ".batch_stats")) or "scale" in name
        return (jnp.ones if one and leaf.dtype == jnp.float32 else jnp.zeros)(leaf.shape, leaf.dtype)

    state = jax.tree_util.tree_map_with_path(fill, jax.eval_shape(program(model, None).init))
    return state.replace(progressive=tuple(init_metrics() for _ in state.progressive))


def copied(model) -> TrainState:
    return jax.tree.map(jnp.copy, start(model))


def batch(seed: int = 0) -> Batch:
    """Ids that repeat within and across parts, and a part in which no row counts."""
    rng = np.random.default_rng([3, seed])
    ids = np.concatenate([rng.integers(0, 12, (ROWS, 5)), rng.integers(-1, 8, (ROWS, 3))], axis=1).astype(np.int32)
    weights = rng.choice([0, 0.5, 1, 2], ROWS)
    weights[3::PARTS] = 0
    floats = [rng.normal(size=(ROWS, 1)), rng.normal(size=(ROWS, 2)), rng.integers(0, 2, (ROWS, 2)), weights]
    return Batch(ids, *(array.astype(np.float32) for array in floats))


@pytest.mark.parametrize("parts", [1, 3, 12])
def test_split_and_joined_are_inverse_for_every_field(rng, parts):
    widths = (5, 0, 2, 1)
    fields = [rng.normal(size=(12, width)) for width in widths] + [rng.normal(size=12)]
    whole = Batch(*(jnp.asarray(field, jnp.float32) for field in fields))
    cut = split(whole, parts)
    for field, part in zip(whole, cut, strict=True):
        assert part.shape == (parts, 12 // parts, *field.shape[1:])
        np.testing.assert_array_equal(part[0], field[::parts])
        np.testing.assert_array_equal(joined(part), field)


def sized(batch_size: int = 4096, platform: str = "cpu", model=WUKONG, schema=SCHEMA, mesh: int = 1, **train) -> int:
    """`micro_batch_size` of a batch, of a config whose own batch_size is another: the loop may pass any."""
    config = dataclasses.replace(run_config(model, batch_size=mesh, **train), mesh=MeshConfig(mesh))
    return micro_batch_size(dataclasses.replace(config, schema=schema), platform, batch_size)


@pytest.fixture
def small_caches(monkeypatch):
    """X of 100 examples of 8 embeddings of width 4 fits."""
    monkeypatch.setattr(micro_batch, "CPU_BYTES", 100 * 8 * 4 * 4)
    monkeypatch.setattr(micro_batch, "CPU_EXAMPLES", 512)


@pytest.mark.parametrize(
    ("batch_size", "found"),
    [(4096, 64), (50, 50), (100, 100), (200, 100), (96 * 5, 96), (97 * 97, 97)],
)
def test_auto_is_the_largest_divisor_that_fits_the_caches(small_caches, batch_size, found):
    assert sized(batch_size) == found


def test_auto_counts_the_layer_with_the_most_embeddings(small_caches):
    overridden = dataclasses.replace(
        WUKONG, num_layers=2, layers=(LayerOverride(num_fmb=1), LayerOverride(num_fmb=5, num_lcb=4))
    )
    assert sized(700 * 8, model=overridden) == 80  # 88 examples of 9 embeddings fit
    assert sized(700 * 8) == 100


@pytest.mark.parametrize(
    "settings",
    [
        {"platform": "gpu"},
        {"platform": "tpu"},
        {"mesh": 2},
        {"model": BATCH_NORM},
        {"model": MODELS["FM"]},
        {"model": MODELS["logistic regression"]},
        {"micro_batch": None},
        {"micro_batch": None, "model": BATCH_NORM},
        {"micro_batch": 4096, "model": BATCH_NORM},
    ],
    ids=str,
)
def test_the_batch_stays_whole(small_caches, settings):
    assert sized(4096, **settings) == 4096


@pytest.mark.parametrize("batch_size", [1009, 4093])
def test_auto_never_cuts_a_batch_into_crumbs(small_caches, batch_size):
    """A prime batch has no divisor but 1 and itself: example by example it would be slower than at once."""
    assert sized(batch_size) == batch_size


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_divisor_is_taken_as_it_is(model, platform):
    assert sized(4096, platform, model, micro_batch=8) == 8
    assert sized(4096, platform, model, micro_batch=4096) == 4096


def test_what_does_not_divide_the_batch_is_refused():
    with pytest.raises(ConfigError) as error:
        sized(4096, micro_batch=100)
    assert str(error.value).startswith("train.micro_batch: received 100, expected a divisor of the batch of 4096")
    with pytest.raises(ConfigError, match=r"train\.micro_batch: received 7"):
        build_program(run_config(micro_batch=7), 1)


@pytest.mark.parametrize("size", [None, ROWS])
def test_rows_are_not_looked_up_ahead_of_the_only_part(size: int | None):
    config = dataclasses.replace(run_config(micro_batch=size), mesh=MeshConfig(lookup_ahead=True))
    with pytest.raises(
        ConfigError, match=rf"mesh\.lookup_ahead: .*micro_batch={size}.* divisor of the batch of {ROWS}"
    ):
        build_program(config, 10)


def test_a_plan_without_parts_to_look_up_ahead_is_refused_as_the_run_is(request, monkeypatch, capsys):
    monkeypatch.chdir(request.config.rootpath)
    plan = ["describe", "--config", "configs/criteo_kaggle.py", "--mesh", "4x2", "--mesh.lookup-ahead"]
    assert main(plan) == 2
    assert "mesh.lookup_ahead: received True" in capsys.readouterr().err
    assert main([*plan, "--train.micro-batch", "1024"]) == 0


@pytest.mark.parametrize("place", ["head", "fmb_mlp", "layers"])
def test_batch_norm_in_parts_is_refused(place):
    mlp = MLPConfig((4,), batch_norm=True)
    model = dataclasses.replace(WUKONG, **{place: (LayerOverride(fmb_mlp=mlp),) if place == "layers" else mlp})
    with pytest.raises(ConfigError) as error:
        sized(4096, model=model, micro_batch=64)
    for words in ("train.micro_batch: received 64", "BatchNorm", "set it to None", "mlp.batch_norm to False"):
        assert words in str(error.value)


def test_evaluation_is_cut_by_auto_on_cpu_even_with_batch_norm(small_caches):
    assert evaluation_part(run_config(BATCH_NORM), "cpu", 400) == 100
    assert evaluation_part(run_config(BATCH_NORM), "gpu", 400) == 400
    assert evaluation_part(run_config(micro_batch=None), "cpu", 400) == 400
    assert evaluation_part(run_config(micro_batch=16), "cpu", 400) == 400


SLOW = ("FM", "logistic regression")
EVERY_MODEL = [
    pytest.param(model, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, model in MODELS.items()
]


@pytest.mark.parametrize("model", EVERY_MODEL)
def test_a_step_in_parts_equals_the_step_at_once(model):
    """Two steps; every parameter, table and slot moves, and to the same place. Weight 0 in one part and elsewhere."""
    states = []
    for size in (None, ROWS // PARTS):
        state = copied(model)
        for seed in (0, 1):
            state = program(model, size).train_step(state, batch(seed))
        states.append(state.replace(scratch={}))
    whole, parts = states
    for name in ("params", "tables", "slots", "opt_state", "loss_sum", "step"):
        before, *both = (getattr(state, name) for state in (start(model), whole, parts))
        leaves = [jax.tree_util.tree_leaves_with_path(tree) for tree in (before, *both)]
        for (path, old), (_, one), (_, other) in zip(*leaves, strict=True):
            where = name + jax.tree_util.keystr(path)
            assert not np.array_equal(old, one), where
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6, err_msg=where)
    for one, other in zip(whole.progressive, parts.progressive, strict=True):
        assert compute_metrics(one) == pytest.approx(compute_metrics(other), rel=1e-6)
        assert compute_metrics(one)["examples"] == sum(np.count_nonzero(batch(seed).weights) for seed in (0, 1))


def test_the_steps_loss_is_the_weighted_sum_of_both_tasks():
    prog, state, one = program(WUKONG, None), copied(WUKONG), batch()
    inputs = make_inputs(prog.plan, jax.tree.map(jnp.asarray, one), state.tables)
    logits = prog.model.apply({"params": state.params}, inputs, train=False)
    z, w = np.asarray(logits, np.float64), one.weights.astype(np.float64)
    wanted = w @ ((np.logaddexp(0, z) - one.labels * z) @ [1.0, 0.3]) / w.sum()
    assert float(prog.train_step(state, one).loss_sum) == pytest.approx(wanted, rel=1e-5)


def test_the_steps_in_parts_loop():
    """That the comparison above compares two programs."""
    texts = [
        program(WUKONG, size).train_step.lower(jax.eval_shape(program(WUKONG, size).init), batch()).as_text()
        for size in (None, ROWS // PARTS)
    ]
    whole, parts = (text.count("stablehlo.while") for text in texts)
    assert parts == whole + 1


def test_each_part_draws_its_own_dropout_mask():
    """All rows are equal, and one part at a time counts: its loss tells its mask."""
    prog, one = program(DROPOUT, ROWS // PARTS), batch()
    same = Batch(*(np.repeat(array[:1], ROWS, axis=0) for array in one))

    def loss(part: int, step: int = 0) -> float:
        weights = np.where(np.arange(ROWS) % PARTS == part, 1, 0).astype(np.float32)
        state = copied(DROPOUT).replace(step=jnp.int32(step))
        return float(prog.train_step(state, same._replace(weights=weights)).loss_sum)

    losses = [loss(part) for part in range(PARTS)] + [loss(0, step=1)]
    assert len(set(losses)) == PARTS + 1
    assert losses == [loss(part) for part in range(PARTS)] + [loss(0, step=1)], "the same again"


def test_evaluation_in_parts_equals_evaluation_at_once():
    prog, state = program(BATCH_NORM, None), start(BATCH_NORM)
    metrics = tuple(init_metrics() for _ in SCHEMA.labels)
    (whole, logits), (parts, in_parts) = (
        jax.jit(make_eval_step(prog.model, prog.objective, lambda rows, size=size: size, ONE_DEVICE))(
            state, metrics, batch()
        )
        for size in (ROWS, ROWS // PARTS)
    )
    np.testing.assert_allclose(in_parts, logits, rtol=1e-5, atol=1e-6)
    assert np.unique(np.asarray(logits)).size > 0.9 * logits.size, "an order of rows that is wrong shows"
    for one, other in zip(whole, parts, strict=True):
        assert compute_metrics(one) == pytest.approx(compute_metrics(other), rel=1e-6)


def test_the_program_evaluates_in_parts(small_caches):
    prog = build_program(run_config(BATCH_NORM, micro_batch="auto"), 1)
    metrics, state = tuple(init_metrics() for _ in SCHEMA.labels), jax.eval_shape(prog.init)
    whole, parts = (
        prog.eval_step.lower(state, metrics, blank_batch(prog.config, rows)).as_text().count("stablehlo.while")
        for rows in (100, 400)
    )
    assert parts == whole + 1
