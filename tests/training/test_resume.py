"""Stopping after any step and going on gives, bit by bit, the run that was never stopped."""

import dataclasses

import pytest

from tests.tiny import (
    STEPS_PER_EPOCH,
    assert_same_state,
    before_step,
    compiled,
    opened_loop,
    plain_config,
    run_loop,
    send_sigterm,
    table_rule,
    tiny_config,
    without_times,
)
from wukong_jax.config.run import PlateauConfig
from wukong_jax.data.store import open_store
from wukong_jax.training.loop import StoppedBySignal, total_steps

pytestmark = pytest.mark.usefixtures("compile_quickly")

EVERYTHING = {"progressive": True, "plateau": PlateauConfig(factor=0.5, patience=1, stop_after=9, min_delta=0.1)}
# the first step; inside a window of the curve; before, at and after an evaluation and an epoch's end; the last but one
STOPS = (1, 2, STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, 7, 3 * STEPS_PER_EPOCH - 1)


@pytest.fixture(scope="module")
def undisturbed(tiny_store, tmp_path_factory):
    """Final state and progress of each config, trained without a stop once."""
    found = {}

    def get(config):
        if config not in found:
            store = open_store(tiny_store)
            program = compiled(config, total_steps(config, store))
            found[config] = run_loop(program, store, tmp_path_factory.mktemp("undisturbed"))
        return found[config]

    return get


def stopped_and_resumed(config, store_path, folder, stops):
    store = open_store(store_path)
    program = compiled(config, total_steps(config, store))
    for step in stops:
        with (
            opened_loop(before_step(program, step, send_sigterm), store, folder) as loop,
            pytest.raises(StoppedBySignal, match=f"SIGTERM after step {step}$"),
        ):
            loop.run()
        assert loop.progress.step == step
    return run_loop(program, store, folder)


def assert_same_run(actual, expected):
    assert_same_state(actual[0], expected[0])
    assert without_times(actual[1]) == without_times(expected[1])


@pytest.mark.parametrize("step", STOPS)
def test_a_stop_after_a_step_changes_nothing(step, tiny_store, tmp_path, undisturbed):
    config = tiny_config(tiny_store, **EVERYTHING)
    expected = undisturbed(config)
    assert expected[1].learning_rate_scale < 1, "the plateau must have been reached for its state to count"
    assert_same_run(stopped_and_resumed(config, tiny_store, tmp_path, [step]), expected)


def test_stops_after_every_step_change_nothing(tiny_store, tmp_path, undisturbed):
    config = tiny_config(tiny_store, **EVERYTHING)
    stops = range(1, 3 * STEPS_PER_EPOCH)
    assert_same_run(stopped_and_resumed(config, tiny_store, tmp_path, stops), undisturbed(config))


@pytest.mark.parametrize(
    ("update", "name"),
    [
        pytest.param("row_sparse", "sgd", marks=pytest.mark.slow),
        ("row_sparse", "rowwise_adagrad"),
        pytest.param("row_sparse", "adam", marks=pytest.mark.slow),
        ("dense", "adam"),
        pytest.param("dense", "adagrad", marks=pytest.mark.slow),
    ],
)
def test_every_table_optimizer_resumes(update, name, tiny_store, tmp_path, undisturbed):
    config = dataclasses.replace(plain_config(tiny_store, eval_every_steps=5), tables=table_rule(update, name))
    assert_same_run(stopped_and_resumed(config, tiny_store, tmp_path, [2, 6]), undisturbed(config))


def test_steps_after_the_last_checkpoint_of_a_crash_are_trained_again(tiny_store, tmp_path, undisturbed):
    config = tiny_config(tiny_store, **EVERYTHING)
    store = open_store(tiny_store)
    program = compiled(config, total_steps(config, store))

    def crash():
        raise RuntimeError("power cut")

    with (
        opened_loop(before_step(program, 8, crash), store, tmp_path) as loop,
        pytest.raises(RuntimeError, match="power"),
    ):
        loop.run()
    with opened_loop(program, store, tmp_path) as loop:
        assert loop.progress.step == 5, "checkpoints are written every 5 steps, and at best scores"
        loop.run()
        assert_same_run((loop.state, loop.progress), undisturbed(config))


def test_a_finished_run_is_not_trained_further(tiny_store, tmp_path, undisturbed):
    config = tiny_config(tiny_store, **EVERYTHING)
    store = open_store(tiny_store)
    program = compiled(config, total_steps(config, store))
    run_loop(program, store, tmp_path)
    never = before_step(program, 3 * STEPS_PER_EPOCH + 1, lambda: pytest.fail("trained on"))
    assert_same_run(run_loop(never, store, tmp_path), undisturbed(config))


def test_the_comparison_sees_a_difference(tiny_store, undisturbed):
    config = tiny_config(tiny_store, **EVERYTHING)
    state = undisturbed(config)[0]
    start = compiled(config, 3 * STEPS_PER_EPOCH).init()
    for part in ("params", "batch_stats", "opt_state", "tables", "slots"):
        with pytest.raises(AssertionError):
            assert_same_state(state, state.replace(**{part: getattr(start, part)}))
