"""Norms, ratios and activations beside the training step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_contract import MODELS
from tests.tiny import (
    assert_same_state,
    before_step,
    compiled,
    opened_loop,
    plain_config,
    printed,
    run_loop,
    send_sigterm,
    tiny_config,
    without_times,
)
from tests.training.test_step import (
    DENSE_SGD,
    ROWS,
    SCHEMA,
    TABLE_BYTES,
    WIDE_MACHINE,
    WUKONG,
    batch,
    of_many_rows,
    program,
    start,
)
from wukong_jax.config.optimizer import TableRule
from wukong_jax.data.store import open_store
from wukong_jax.training.diagnostics import summary, to_host
from wukong_jax.training.loop import StoppedBySignal, total_steps
from wukong_jax.training.program import build_program
from wukong_jax.training.state import blank_batch

pytestmark = pytest.mark.usefixtures("compile_quickly")

RULES = {
    "row-sparse sgd": TableRule(name="sgd", learning_rate=0.3),
    "row-sparse adagrad with L2": TableRule(name="adagrad", learning_rate=0.1, l2=0.5),
    "lazy adam": TableRule(name="adam", learning_rate=0.1),
    "dense adam": TableRule(update="dense", name="adam", learning_rate=0.1),
}
WARM_UP = 1 / 3
"""Of the programs with SGD, in the first step."""


def norm(*arrays):
    return np.sqrt(sum(np.square(np.asarray(array, np.float64)).sum() for array in arrays))


def touched(name):
    """Rows of a table that the batch reads."""
    ids = batch().ids[:, SCHEMA.id_slices()[name]]
    return np.unique(ids[ids >= 0])


def before_and_after(prog, state):
    """Every component's arrays before and after the training step: all of it, or the touched rows of a table."""
    old = jax.tree.map(np.array, (state.params, state.tables))
    new = jax.tree.map(np.array, prog.train_step(state, batch()))
    parts = {}
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(old[0]), jax.tree.leaves(new.params), strict=True
    ):
        names = [key.key for key in path][:-1]
        parts.setdefault("/".join(names[:2]), []).append((before, after))
    for name in ("a", "b", "m"):
        stack, offset, rows = prog.plan.table_rows(name)
        kept = touched(name) if stack.rule.update == "row_sparse" else np.arange(rows)
        parts[f"table/{name}"] = [tuple(table[stack.name][offset + kept] for table in (old[1], new.tables))]
    return {name: tuple(zip(*pairs, strict=True)) for name, pairs in parts.items()}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_update_ratios_are_those_of_the_training_step(rule):
    prog = program(WUKONG, rule)
    state = start(prog).replace(learning_rate_scale=jnp.float32(0.5))  # as after a plateau
    figures = to_host(prog.diagnose(state, batch()))
    parts = before_and_after(prog, state)
    assert {name.partition("/")[2] for name in figures if name.startswith("update_ratio")} == set(parts)
    for name, (old, new) in parts.items():
        expected = norm(*(b - a for a, b in zip(old, new, strict=True))) / norm(*old)
        assert expected > 0, name
        assert figures[f"update_ratio/{name}"] == pytest.approx(expected, rel=1e-3), name


@pytest.mark.parametrize("rule", [RULES["row-sparse sgd"], DENSE_SGD], ids=["row-sparse", "dense"])
def test_gradient_norms_are_the_steps_of_plain_descent(rule):
    """With SGD a step is the gradient times a known rate."""
    prog = program(WUKONG, rule)
    state = start(prog)
    figures = to_host(prog.diagnose(state, batch()))
    squares = 0.0
    for name, (old, new) in before_and_after(prog, state).items():
        is_table = name.startswith("table/")
        rate = (rule.learning_rate if is_table else prog.config.optimizer.learning_rate) * WARM_UP
        expected = norm(*(b - a for a, b in zip(old, new, strict=True))) / rate
        assert figures[f"gradient_norm/{name}"] == pytest.approx(expected, rel=2e-3), name
        squares += expected**2 if rule.update == "dense" or not is_table else 0.0
    assert figures["gradient_norm"] == pytest.approx(np.sqrt(squares), rel=2e-3), "without row-sparse tables"


def test_activations_are_those_of_a_prediction():
    prog = program(WUKONG)
    state = start(prog)
    figures = to_host(prog.diagnose(state, batch()))
    _, logits = prog.eval_step(state, (), batch()._replace(labels=np.zeros((ROWS, 0), np.float32)))
    assert figures["activation_max/logits"] == pytest.approx(np.abs(logits).max(), rel=1e-5)
    assert figures["activation_rms/logits"] == pytest.approx(norm(logits) / np.sqrt(ROWS), rel=1e-5)
    assert figures["activation_rms/layer_0"] == pytest.approx(1, rel=1e-2), "behind LayerNorm"
    assert 1 < figures["activation_max/layer_0"] <= np.sqrt(WUKONG.width)
    assert {"embedding_layer", "layer_0/fmb/mlp", "head/hidden_0"} <= {name.partition("/")[2] for name in figures}


def test_a_batch_in_parts_has_the_figures_of_the_whole():
    whole = program(WUKONG)
    state = start(whole)
    train = dataclasses.replace(whole.config.train, micro_batch=16)
    parts = build_program(dataclasses.replace(whole.config, train=train), 100)
    expected, found = (to_host(prog.diagnose(state, batch())) for prog in (whole, parts))
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "model", {type(model): model for model in MODELS.values()}.values(), ids=lambda m: type(m).__name__
)
def test_every_model_has_figures_for_every_part(model):
    """Traced only."""
    prog = build_program(dataclasses.replace(program(WUKONG).config, model=model), 100)
    state = jax.eval_shape(prog.init)
    figures = jax.eval_shape(prog.diagnose, state, blank_batch(prog.config, ROWS))
    named = lambda kind: {name.partition("/")[2] for name in figures if name.startswith(f"{kind}/")}  # noqa: E731
    tables = {f"table/{spec.name}" for stack in prog.plan.stacks for spec in stack.tables}
    assert named("gradient_norm") == named("update_ratio") >= tables
    modules = {
        "/".join(key.key for key in path[:-1][:2]) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)
    }
    assert named("gradient_norm") - tables == {name or "model" for name in modules}
    assert named("activation_rms") == named("activation_max") >= {"logits"}
    assert all(figure.shape == () and figure.dtype == jnp.float32 for figure in figures.values())


def test_layers_that_are_computed_again_in_the_backward_pass_have_activations_too():
    prog = build_program(
        dataclasses.replace(program(WUKONG).config, model=dataclasses.replace(WUKONG, remat=True, num_layers=2)), 100
    )
    figures = jax.eval_shape(prog.diagnose, jax.eval_shape(prog.init), blank_batch(prog.config, ROWS))
    assert {"activation_rms/layer_0", "activation_rms/layer_1", "activation_rms/layer_1/fmb/mlp"} <= set(figures)


def test_undefined_ratios_are_left_out_and_broken_gradients_are_not():
    figures = {"update_ratio/a": jnp.nan, "update_ratio/b": 2.0, "gradient_norm": jnp.nan, "activation_max/c": jnp.inf}
    found = to_host({name: jnp.asarray(value) for name, value in figures.items()})
    assert set(found) == {"update_ratio/b", "gradient_norm", "activation_max/c"}
    assert summary(found) == "gradient norm nan, largest update ratio 2 (b), largest activation inf (c)"


def test_a_run_with_diagnostics_gives_the_same_parameters(tiny_store, tmp_path):
    store = open_store(tiny_store)
    plain = tiny_config(tiny_store, progressive=True)
    looking = dataclasses.replace(plain, train=dataclasses.replace(plain.train, diagnostics_every_steps=5))
    expected = run_loop(compiled(plain, 12), store, tmp_path / "plain")
    found = run_loop(compiled(looking, 12), store, tmp_path / "looking")
    assert_same_state(found[0], expected[0])
    history = found[1].history
    assert [point for point in history if point["split"] != "diagnostics"] == expected[1].history
    points = [point for point in history if point["split"] == "diagnostics"]
    assert [point["step"] for point in points] == [5, 10]
    assert len(points[0]) > 20


@pytest.mark.slow
def test_a_stop_changes_no_figure(tiny_store, tmp_path):
    config, store = plain_config(tiny_store, diagnostics_every_steps=2), open_store(tiny_store)
    prog = compiled(config, total_steps(config, store))
    _, expected = run_loop(prog, store, tmp_path / "whole")
    for stop in (3, 4):
        with (
            opened_loop(before_step(prog, stop, send_sigterm), store, tmp_path / "stopped") as loop,
            pytest.raises(StoppedBySignal),
        ):
            loop.run()
    assert without_times(run_loop(prog, store, tmp_path / "stopped")[1]) == without_times(expected)


def test_figures_are_shown_and_written(tiny_store, tmp_path):
    config, store = plain_config(tiny_store, diagnostics_every_steps=6), open_store(tiny_store)
    with opened_loop(compiled(config, total_steps(config, store)), store, tmp_path) as loop:
        scalars = []
        loop.events.write = lambda *point: scalars.append(point)
        loop.run()
        shown = printed(loop.display._console)
    kept = [point for point in loop.progress.history if point["split"] == "diagnostics"]
    assert [
        {"split": split, "step": step, **figures} for split, step, figures in scalars if split == "diagnostics"
    ] == kept
    assert [point["step"] for point in kept] == [6, 12]
    for point in kept:
        assert f"step {point['step']}: gradient norm {point['gradient_norm']:.3g}, largest update ratio " in shown


def test_a_loss_spike_is_shown_once_and_kept_for_the_record(tiny_store, tmp_path):
    """The state's own loss is replaced by a made curve."""
    config, store = plain_config(tiny_store, epochs=10, log_every_steps=1), open_store(tiny_store)
    prog = compiled(config, total_steps(config, store))
    curve = np.full(40, 0.5)
    curve[20:25] = [1.0, 2.0, 1.5, 1.2, 1.1]

    def train_step(state, batch):
        loss = jnp.asarray(curve[int(state.step)], jnp.float32)  # read now: the step takes the state over
        return prog.train_step(state, batch).replace(loss_sum=loss)

    made = dataclasses.replace(prog, train_step=train_step)
    stopped = before_step(made, 23, send_sigterm)
    with opened_loop(stopped, store, tmp_path) as loop, pytest.raises(StoppedBySignal):
        loop.run()
    assert "step 22: loss spike since step 21, loss 2.0000 where 0.5000 is typical" in printed(loop.display._console)
    with opened_loop(made, store, tmp_path) as loop:
        loop.run()
        assert "spike" not in printed(loop.display._console)


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "adam"])
def test_a_row_sparse_table_is_not_copied(rule):
    """Compiled only."""
    prog = of_many_rows(WIDE_MACHINE, rule)
    blank = jax.eval_shape(lambda: blank_batch(prog.config, ROWS))
    memory = prog.diagnose.lower(prog.abstract_state(), blank).compile().memory_analysis()
    assert memory.temp_size_in_bytes < TABLE_BYTES / 1000
