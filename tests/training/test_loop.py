"""When the loop evaluates, logs, saves and stops."""

import dataclasses
import re
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import (
    STEPS_PER_EPOCH,
    before_step,
    compiled,
    memory_console,
    opened_loop,
    plain_config,
    printed,
    run_loop,
)
from wukong_jax.config.optimizer import ScheduleConfig
from wukong_jax.config.run import PlateauConfig
from wukong_jax.data.store import open_store
from wukong_jax.errors import ConfigError
from wukong_jax.training.display import PlainDisplay
from wukong_jax.training.loop import StoppedBySignal, _all_finite, total_steps

pytestmark = pytest.mark.usefixtures("compile_quickly")


def trained(store_path, folder, **settings):
    config = plain_config(store_path, **settings)
    store = open_store(store_path)
    return run_loop(compiled(config, total_steps(config, store)), store, folder)


def with_made_steps(program, change):
    """The program with steps that compute nothing: `change` gives the fields that differ after one from a state."""

    def train_step(state, batch):
        return state.replace(step=state.step + 1, **change(state))

    return dataclasses.replace(program, train_step=train_step)


def steps_of(progress, split):
    return [point["step"] for point in progress.history if point["split"] == split]


@pytest.mark.parametrize(
    ("settings", "evaluated", "logged"),
    [
        ({}, [4, 8, 12], [3, 6, 9, 12]),
        ({"log_every_steps": 5}, [4, 8, 12], [5, 10, 12]),
        ({"log_every_steps": 100}, [4, 8, 12], [12]),
        ({"eval_every_steps": 5}, [5, 10, 12], [3, 6, 9, 12]),
        ({"eval_every_steps": 100}, [12], [3, 6, 9, 12]),
        ({"max_steps": 7}, [4, 7], [3, 6, 7]),
        ({"max_steps": 100}, [4, 8, 12], [3, 6, 9, 12]),
        ({"progressive": True, "epochs": 1, "eval_every_steps": 3}, [3, 4], [3, 4]),
    ],
)
def test_evaluations_and_points_of_the_curve(tiny_store, tmp_path, settings, evaluated, logged):
    state, progress = trained(tiny_store, tmp_path, **settings)
    assert steps_of(progress, "valid") == evaluated
    assert steps_of(progress, "train") == logged
    assert steps_of(progress, "progressive") == (evaluated if settings.get("progressive") else [])
    assert progress.finished
    assert progress.step == int(state.step) == evaluated[-1]


def test_the_last_point_of_the_curve_is_the_mean_of_the_steps_since_the_one_before(tiny_store, tmp_path):
    config = plain_config(tiny_store, log_every_steps=3, max_steps=5)
    losses = iter([1.0, 2.0, 3.0, 5.0, 7.0])
    made = with_made_steps(compiled(config, 5), lambda state: {"loss_sum": state.loss_sum + next(losses)})
    _, progress = run_loop(made, open_store(tiny_store), tmp_path)
    assert [point["logloss"] for point in progress.history if point["split"] == "train"] == [2.0, 6.0]


def test_rows_in_further_rounds_are_told_at_each_point_and_counted_anew(tiny_store, tmp_path):
    config = plain_config(tiny_store, log_every_steps=2, max_steps=5)
    program, grown = compiled(config, 5), {"a": 2, "b": 1}

    def grow(state):
        return {"exchange": {name: count + grown[name] for name, count in state.exchange.items()}}

    def eval_step(state, metrics, batch):
        return program.eval_step(state.replace(exchange={}), metrics, batch)

    made = dataclasses.replace(with_made_steps(program, grow), eval_step=eval_step)
    console = memory_console()
    with opened_loop(made, open_store(tiny_store), tmp_path) as loop:
        loop.state, loop.display = (
            loop.state.replace(exchange=dict.fromkeys(grown, jnp.int32(0))),
            PlainDisplay(console, 5),
        )
        loop.run()
    points = [point for point in loop.progress.history if point["split"] == "train"]
    assert [point["rows_in_further_rounds"] for point in points] == [6, 6, 3]
    said = re.findall(r"step (\d): (\d+) rows needed further rounds of exchange", printed(console))
    assert said == [("2", "6"), ("4", "6"), ("5", "3")]


@pytest.mark.parametrize(("seed", "shuffle"), [(0, True), (3, True), (0, False)])
def test_the_order_of_the_examples_is_that_of_the_seed_or_of_the_store(tiny_store, tmp_path, seed, shuffle):
    config, store, seen = plain_config(tiny_store), open_store(tiny_store), []
    program = compiled(config, total_steps(config, store))
    train = dataclasses.replace(config.train, seed=seed, epochs=1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, shuffle=shuffle), train=train)

    def train_step(state, batch):
        seen.append(np.asarray(batch.numeric))
        return state.replace(step=state.step + 1)

    run_loop(dataclasses.replace(program, config=config, train_step=train_step), store, tmp_path)
    split, rows = store.split("train"), 16 * STEPS_PER_EPOCH
    order = split.training_rows(0, rows, batch_size=16, seed=seed, epoch=0) if shuffle else np.arange(rows)
    np.testing.assert_array_equal(np.concatenate(seen), split.columns["numeric"][order])


def test_progressive_validation_scores_every_example_once_before_it_is_learned_from(tiny_store, tmp_path):
    _, progress = trained(tiny_store, tmp_path, progressive=True, epochs=1, eval_every_steps=3)
    points = [point for point in progress.history if point["split"] == "progressive"]
    assert [point["examples"] for point in points] == [48, 16], "since the evaluation before"
    assert points[0]["logloss"] == pytest.approx(progress.history[0]["logloss"], rel=1e-5), (
        "the loss of the same forward pass"
    )


def test_an_early_stop_ends_the_run_between_the_epochs(tiny_store, tmp_path):
    plateau = PlateauConfig(factor=0.5, patience=1, stop_after=2)
    _, progress = trained(
        tiny_store, tmp_path, epochs=30, eval_every_steps=1, plateau=plateau, checkpoint_every_steps=50
    )
    scores = [point["auc"] for point in progress.history if point["split"] == "valid"]
    assert progress.finished
    assert progress.step < 30 * STEPS_PER_EPOCH
    assert max(scores) == scores[-3] == progress.best_score, "two evaluations after the best"
    assert progress.step == progress.best_step + 2
    assert progress.learning_rate_scale < 1


def test_the_plateau_slows_every_update(tiny_store, tmp_path):
    """After the rate fell to almost nothing, neither dense parameters nor tables move."""
    plateau = PlateauConfig(factor=1e-9, patience=1, min_scale=1e-9, stop_after=50)
    config = plain_config(tiny_store, epochs=4, eval_every_steps=1, plateau=plateau)
    store = open_store(tiny_store)
    program = compiled(config, total_steps(config, store))
    _, progress = run_loop(program, store, tmp_path)
    assert progress.learning_rate_scale == 1e-9
    losses = [point["logloss"] for point in progress.history if point["split"] == "valid"]
    assert len(set(losses[-5:])) == 1
    assert losses[0] != losses[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_acts_as_usual(tiny_store, tmp_path, number):
    arrived = []
    before = signal.signal(number, lambda *_: arrived.append("usual"))
    try:
        config = plain_config(tiny_store)
        store = open_store(tiny_store)

        def twice():
            signal.raise_signal(number)
            assert arrived == [], "the first one is kept for the end of the step"
            signal.raise_signal(number)

        program = before_step(compiled(config, total_steps(config, store)), 2, twice)
        with opened_loop(program, store, tmp_path) as loop, pytest.raises(StoppedBySignal) as stopped:
            loop.run()
        assert arrived == ["usual"]
        assert (stopped.value.number, stopped.value.step) == (number, 2)
        signal.raise_signal(number)
        assert arrived == ["usual", "usual"], "after the run the handler is the one from before"
    finally:
        signal.signal(number, before)


def test_a_signal_in_the_last_step_lets_the_run_end(tiny_store, tmp_path):
    config = plain_config(tiny_store)
    store = open_store(tiny_store)
    program = compiled(config, total_steps(config, store))
    _, progress = run_loop(before_step(program, 12, lambda: signal.raise_signal(signal.SIGTERM)), store, tmp_path)
    assert progress.finished


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (2, 2), (9, 3)])
def test_a_cosine_ends_the_run_where_it_comes_to_zero(tiny_store, epochs, expected):
    config = plain_config(tiny_store, epochs=3)
    schedule = ScheduleConfig("cosine", epochs=epochs)
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, schedule=schedule))
    assert config.epochs == expected
    assert total_steps(config, open_store(tiny_store)) == expected * STEPS_PER_EPOCH


def test_a_batch_larger_than_the_data_is_refused(tiny_store):
    config = plain_config(tiny_store, batch_size=71)
    with pytest.raises(ConfigError, match=r"batch_size: received 71, but split 'train' has only 70 rows.* at most 70"):
        total_steps(config, open_store(tiny_store))


def test_time_and_examples_are_counted_over_all_parts(tiny_store, tmp_path):
    config = plain_config(tiny_store, log_every_steps=1)
    store = open_store(tiny_store)
    program = compiled(config, total_steps(config, store))
    first = before_step(program, 7, lambda: signal.raise_signal(signal.SIGTERM))
    with opened_loop(first, store, tmp_path) as loop, pytest.raises(StoppedBySignal):
        loop.run()
    part = dataclasses.replace(loop.progress)
    _, progress = run_loop(program, store, tmp_path)
    assert 0 < part.train_seconds < progress.train_seconds
    assert 0 < part.wall_seconds < progress.wall_seconds
    assert progress.train_seconds < progress.wall_seconds
    assert part.timed_examples < progress.timed_examples <= 12 * 16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (float("nan"), False), (float("inf"), False)])
def test_what_is_not_finite_is_seen_in_every_float_type(dtype, value, finite):
    tree = {"a": jnp.zeros(3), "b": jnp.array([0.0, value], dtype), "c": jnp.arange(2)}
    assert bool(_all_finite(tree)) is finite
