import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import FactorizationMachineConfig, LogisticRegressionConfig, WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature
from wukong_jax.evaluation.metrics import compute_metrics, init_metrics
from wukong_jax.ops.cpu.build import available
from wukong_jax.training.program import Program, build_program
from wukong_jax.training.state import TrainState, blank_batch

SCHEMA = DatasetSchema(
    (CategoricalFeature("a", 40), CategoricalFeature("b", 6)),
    (MultiHotFeature("m", 8, 3, "mean"),),
    (NumericFeature("x"),),
)
WUKONG = WukongConfig(width=4, num_layers=1, num_fmb=2, num_lcb=2, rank=2, fmb_mlp=MLPConfig(), head=MLPConfig((8,)))
DROPPING = dataclasses.replace(WUKONG, use_fmb=False, head=MLPConfig((8,), dropout=0.5, batch_norm=True))
LINEAR, MACHINE = LogisticRegressionConfig(), FactorizationMachineConfig(4)
ADAGRAD = TableRule(learning_rate=0.1)
DENSE_SGD = TableRule(update="dense", name="sgd", learning_rate=0.3)
ROWS, STEPS = 64, 5


@functools.cache
def program(model, rule: TableRule = ADAGRAD, deduplicate: str = "auto", *, progressive: bool = False) -> Program:
    """Compiled once for all tests of the module. SGD comes with a warm-up."""
    optimizer = OptimizerConfig(learning_rate=0.02)
    if rule.name == "sgd":
        optimizer = OptimizerConfig("sgd", 0.1, ScheduleConfig(warmup_steps=3))
    config = RunConfig(
        "t", SCHEMA, DataConfig(store="s"), model, optimizer, TablesConfig((rule,), deduplicate),
        TrainConfig(batch_size=ROWS, progressive=progressive)
    )  # fmt: skip
    return build_program(config, 100)


def start(program: Program, seed: int = 0) -> TrainState:
    """A state with random parameters, made without compiling an initialiser."""
    rng = np.random.default_rng(seed)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if name.startswith(".opt_state"):
            return jnp.zeros(leaf.shape, leaf.dtype)
        if name.startswith(".tables") or name.endswith("kernel']") or name.endswith("projection']"):
            return jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)
        if name.endswith(("weight']", "numeric']")):
            return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
        if "sum_of_squares" in name:
            return jnp.full(leaf.shape, 0.1, leaf.dtype)
        one = name.endswith(("scale']", "var']")) or name == ".learning_rate_scale"
        return (jnp.ones if one else jnp.zeros)(leaf.shape, leaf.dtype)

    state = jax.tree_util.tree_map_with_path(fill, jax.eval_shape(program.init))
    return state.replace(
        progressive=tuple(init_metrics() for _ in state.progressive), rng=jnp.asarray([0, seed], jnp.uint32)
    )


def batch(seed: int = 0) -> Batch:
    """Few ids, each hit many times, and a label that follows from two of them; rows 30.. of table `a` untouched."""
    rng = np.random.default_rng([7, seed])
    one_hot = np.stack([rng.integers(0, 30, ROWS) // rng.integers(1, 9, ROWS), rng.integers(0, 6, ROWS)], axis=1)
    ids = np.concatenate([one_hot, rng.integers(-1, 8, (ROWS, 3))], axis=1).astype(np.int32)
    labels = ((one_hot[:, 0] + one_hot[:, 1]) % 2)[:, None].astype(np.float32)
    numeric = rng.normal(size=(ROWS, 1)).astype(np.float32)
    return Batch(ids, numeric, np.zeros((ROWS, 0), np.float32), labels, np.ones(ROWS, np.float32))


def run(program: Program, state: TrainState, batches: list[Batch]) -> TrainState:
    for one in batches:
        state = program.train_step(state, one)
    return state


def host(tree):
    return jax.tree.map(np.array, tree)


def assert_equal(a, b) -> None:
    for (path, one), two in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, two, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("model", [WUKONG, LINEAR, MACHINE], ids=["wukong", "logistic regression", "FM"])
def test_the_loss_falls(model):
    prog = program(model)
    state, losses = start(prog), [0.0]
    for _ in range(60):
        state = prog.train_step(state, batch())
        losses.append(float(state.loss_sum))
    steps = np.diff(losses)
    assert steps[-1] < 0.9 * steps[0]
    assert int(state.step) == 60


@pytest.mark.parametrize("deduplicate", ["slot", "sort"])
def test_row_sparse_sgd_equals_dense_sgd(deduplicate):
    sparse, dense = (
        program(LINEAR, dataclasses.replace(DENSE_SGD, update="row_sparse"), deduplicate),
        program(LINEAR, DENSE_SGD),
    )
    assert [stack.tables for stack in sparse.plan.stacks] == [stack.tables for stack in dense.plan.stacks]
    batches, before = [batch(seed) for seed in range(STEPS)], host(start(sparse).tables)
    results = [
        run(prog, start(prog).replace(learning_rate_scale=jnp.float32(0.5)), batches) for prog in (sparse, dense)
    ]
    for one, two in zip(results[0].tables.values(), results[1].tables.values(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6)
    for one, two in zip(jax.tree.leaves(results[0].params), jax.tree.leaves(results[1].params), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6)
    assert bool(results[0].scratch) == (deduplicate == "slot")
    stack, first, _ = sparse.plan.table_rows("a:weight")
    found = np.asarray(results[0].tables[stack.name])
    np.testing.assert_array_equal(found[first + 30 : first + 40], before[stack.name][first + 30 : first + 40])
    assert np.abs(found[first : first + 3] - before[stack.name][first : first + 3]).min() > 1e-4


@pytest.mark.parametrize(
    "model",
    [pytest.param(DROPPING, id="dropout and BatchNorm"), pytest.param(LINEAR, id="without", marks=pytest.mark.slow)],
)
def test_progressive_metrics_are_those_of_the_state_before_the_step(model):
    prog = program(model, progressive=True)
    state = run(prog, start(prog), [batch(1), batch(2)])  # running statistics that differ from the start
    state = state.replace(progressive=(init_metrics(),))
    before, _ = prog.eval_step(jax.tree.map(jnp.copy, state), (init_metrics(),), batch(3))
    after = prog.train_step(state, batch(3))
    found, wanted = compute_metrics(after.progressive[0]), compute_metrics(before[0])
    assert found == pytest.approx(wanted, rel=1e-6)
    assert found["examples"] == ROWS
    learned, _ = prog.eval_step(after, (init_metrics(),), batch(3))
    assert compute_metrics(learned[0])["logloss"] != pytest.approx(found["logloss"], rel=1e-4)


def test_rows_of_weight_0_change_nothing():
    prog = program(MACHINE)
    one, weights = batch(), np.ones(ROWS, np.float32)
    weights[40:] = 0
    one = one._replace(weights=weights)
    ids, numeric, labels = one.ids.copy(), one.numeric.copy(), one.labels.copy()
    ids[40:, 0], numeric[40:], labels[40:] = 35, 9.0, 1 - labels[40:]
    other = one._replace(ids=ids, numeric=numeric, labels=labels)
    before = host(start(prog).tables)
    a, b = (run(prog, start(prog), [each] * 3) for each in (one, other))
    assert_equal(
        host([a.tables, a.params, a.slots, a.opt_state, a.loss_sum]),
        host([b.tables, b.params, b.slots, b.opt_state, b.loss_sum]),
    )
    stack, first, _ = prog.plan.table_rows("a")
    np.testing.assert_array_equal(np.asarray(b.tables[stack.name])[first + 35], before[stack.name][first + 35])


def test_two_runs_of_one_seed_are_bit_identical():
    prog = program(DROPPING, progressive=True)
    first, second = (host(run(prog, prog.init(), [batch(1), batch(2)])) for _ in range(2))
    assert_equal(first, second)
    other = prog.init()
    other = host(run(prog, other.replace(rng=other.rng + 1), [batch(1), batch(2)]))
    assert not np.array_equal(first.params["head"]["hidden_0"]["kernel"], other.params["head"]["hidden_0"]["kernel"])
    assert not np.array_equal(first.batch_stats["head"]["batch_norm_0"]["mean"], np.zeros(8))


def test_a_cosine_ends_at_the_last_step_for_dense_parameters_and_both_kinds_of_tables():
    """The rate of the step after it is 0."""
    config = program(LINEAR).config
    tables = TablesConfig((TableRule("^a", update="dense", name="sgd"), TableRule(name="sgd")))
    optimizer = OptimizerConfig("sgd", 0.1, ScheduleConfig("cosine"))
    prog = build_program(dataclasses.replace(config, optimizer=optimizer, tables=tables), 3)
    assert prog.plan.dense
    assert prog.plan.row_sparse
    state, seen = start(prog), []
    for seed in range(4):
        state = prog.train_step(state, batch(seed))
        seen.append(host([state.params, state.tables]))
    for before, after in zip(jax.tree.leaves(seen[1]), jax.tree.leaves(seen[2]), strict=True):
        assert not np.array_equal(before, after)
    assert_equal(seen[2], seen[3])


def test_another_seed_gives_other_parameters_tables_and_dropout():
    config = program(LINEAR).config
    two = [build_program(dataclasses.replace(config, train=TrainConfig(seed=seed)), 1).init() for seed in (0, 1)]
    drawn = [[*state.tables.values(), state.params["linear"]["numeric"]["kernel"], state.rng] for state in two]
    for one, other in zip(*drawn, strict=True):
        assert not np.array_equal(one, other)


MANY = 10_000_000  # nothing is allocated: the programs are only compiled
TABLE_BYTES = 4 * MANY * 16
WIDE_MACHINE, WIDE_WUKONG = FactorizationMachineConfig(16), dataclasses.replace(WUKONG, width=16)


def of_many_rows(
    model, rule: str, deduplicate: str = "auto", *, semi_synchronous: bool = False, progressive: bool = False
) -> Program:
    """A program with a table of many rows, 16 wide. A batch is worked off in 4 parts."""
    schema = DatasetSchema((CategoricalFeature("a", MANY), CategoricalFeature("b", 10)))
    tables = TablesConfig((TableRule(name=rule),), deduplicate)
    train = TrainConfig(
        batch_size=ROWS, micro_batch=ROWS // 4, semi_synchronous=semi_synchronous, progressive=progressive
    )
    return build_program(RunConfig("t", schema, DataConfig(store="s"), model, tables=tables, train=train), 10)


@pytest.mark.parametrize(
    ("model", "rule", "slots", "deduplicate", "semi_synchronous"),
    [
        (WIDE_MACHINE, "rowwise_adagrad", 0, "auto", False),
        (WIDE_MACHINE, "rowwise_adagrad", 0, "sort", False),
        (WIDE_MACHINE, "rowwise_adagrad", 0, "sort", True),
        (WIDE_WUKONG, "rowwise_adagrad", 0, "auto", False),
        (WIDE_WUKONG, "rowwise_adagrad", 0, "auto", True),
        (WIDE_WUKONG, "adagrad", 1, "auto", False),
        (WIDE_WUKONG, "adam", 2, "auto", False),
        (WIDE_WUKONG, "sgd", 0, "auto", False),
    ],
    ids=lambda value: type(value).__name__ if dataclasses.is_dataclass(value) else str(value),
)
def test_a_step_neither_sorts_nor_copies_a_table(model, rule, slots, deduplicate, semi_synchronous):
    """All that is made on the way is as small as the batch; the table is updated where it lies."""
    prog = of_many_rows(model, rule, deduplicate, semi_synchronous=semi_synchronous)
    state = prog.abstract_state()
    compiled = prog.train_step.lower(state, jax.eval_shape(lambda: blank_batch(prog.config, ROWS))).compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert bool(re.search(r"\bsort\(", text)) == (deduplicate == "sort")
    assert re.search(r"\bwhile\(", text), "over the parts"
    assert memory.temp_size_in_bytes < TABLE_BYTES / 1000
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert state_bytes > (1 + slots) * TABLE_BYTES
    assert memory.alias_size_in_bytes > state_bytes - 1000, "the whole state is donated"


@pytest.mark.parametrize(("implementation", "seen"), [("xla_cpu", "opt-barrier"), ("auto", "wukong_fm_forward")])
def test_the_compiled_step_keeps_what_makes_it_fast_on_cpu(implementation, seen):
    """The barriers that a compiler option preserves; the C++ kernels where they can be built."""
    if implementation == "auto" and not available():
        pytest.skip("no C++ compiler here: auto is xla_cpu")
    prog = of_many_rows(dataclasses.replace(WIDE_WUKONG, implementation=implementation), "rowwise_adagrad")
    batch = jax.eval_shape(lambda: blank_batch(prog.config, ROWS))
    assert seen in prog.train_step.lower(prog.abstract_state(), batch).compile().as_text()


@pytest.mark.parametrize("head", [MLPConfig((8,)), MLPConfig((8,), dropout=0.5)], ids=["one pass", "two passes"])
def test_scores_before_learning_copy_no_table(head):
    prog = of_many_rows(dataclasses.replace(WIDE_WUKONG, head=head), "rowwise_adagrad", progressive=True)
    batch = jax.eval_shape(lambda: blank_batch(prog.config, ROWS))
    compiled = prog.train_step.lower(prog.abstract_state(), batch).compile()
    assert f"f32[{MANY}," not in "".join(re.findall(r"= (\S+) copy\(", compiled.as_text()))
    assert compiled.memory_analysis().temp_size_in_bytes < TABLE_BYTES / 10


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "adam"])
def test_a_table_is_initialised_where_it_lies(rule):
    memory = of_many_rows(WIDE_MACHINE, rule).init.lower().compile().memory_analysis()
    assert memory.output_size_in_bytes > (3 if rule == "adam" else 1) * TABLE_BYTES
    assert memory.temp_size_in_bytes < TABLE_BYTES / 10
