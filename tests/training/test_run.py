"""One run from config to record: resuming, refusing, failing, and what lies in the run folder."""

import dataclasses
import gc
import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from tests.tiny import (
    SCHEMA,
    STEPS_PER_EPOCH,
    before_step,
    compiled,
    memory_console,
    plain_config,
    printed,
    send_sigterm,
    tiny_config,
    write_store,
)
from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.data.schema import CategoricalFeature
from wukong_jax.data.store import open_store
from wukong_jax.errors import BusyError, CheckpointError, ConfigError, DataError, TrainingError
from wukong_jax.evaluation.evaluator import evaluate_split
from wukong_jax.training import run
from wukong_jax.training.checkpoint import Checkpoints
from wukong_jax.training.loop import StoppedBySignal
from wukong_jax.training.run import (
    CHECKPOINTS,
    CONFIG_FILE,
    CURVES_FILE,
    RECORD_FILE,
    load_best,
    load_config,
    train,
)

pytestmark = pytest.mark.usefixtures("compile_quickly")

STEPS = 3 * STEPS_PER_EPOCH
TIMES = ("wall_seconds", "examples_per_second", "checkpoint")


@pytest.fixture(autouse=True)
def _compiled_once(compiled_once):
    """All runs here share their compiled programs."""


@pytest.fixture
def config(tiny_store):
    return plain_config(tiny_store)


@pytest.fixture
def interrupt(monkeypatch):
    """Make the next runs act just before a step: `interrupt(7, act)`."""

    def at(step, act):
        monkeypatch.setattr(run, "build_program", lambda config, steps: before_step(compiled(config, steps), step, act))

    return at


def crash():
    raise RuntimeError("power cut")


def listing(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def comparable(record):
    return {name: value for name, value in record.items() if name not in TIMES}


def test_a_run_folder_holds_config_record_curves_and_checkpoints(config, tmp_path):
    console = memory_console()
    record = train(config, tmp_path / "run", console)
    assert load_config(tmp_path / "run") == config
    assert json.loads((tmp_path / "run" / RECORD_FILE).read_text()) == json.loads(json.dumps(record))
    assert (tmp_path / "run" / CURVES_FILE).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert record["checkpoint"] == str(tmp_path / "run" / CHECKPOINTS / str(record["best_step"]))
    assert not list((tmp_path / "run").rglob("*.partial"))
    assert "step 12: validation logloss" in printed(console)


def test_results_are_those_of_the_best_checkpoint(config, tmp_path):
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, monitor="logloss", epochs=4))
    record = train(config, tmp_path / "run", memory_console())
    valid = {point["step"]: point["logloss"] for point in record["history"] if point["split"] == "valid"}
    assert record["best_step"] == min(valid, key=valid.get)
    assert record["results"]["valid"]["logloss"] == valid[record["best_step"]]
    program, best = load_best(tmp_path / "run", pytest.fail)
    assert best.step == record["best_step"]
    split = open_store(config.data.store).split("test")
    again = evaluate_split(lambda m, b: program.eval_step(best.state, m, b), split, 16, exact=True)
    assert again == record["results"]["test"]


def test_a_finished_run_is_not_trained_again(config, tmp_path, interrupt):
    first = train(config, tmp_path / "run", memory_console())
    before = listing(tmp_path / "run")
    interrupt(1, lambda: pytest.fail("trained again"))
    console = memory_console()
    assert train(config, tmp_path / "run", console) == json.loads(json.dumps(first))
    assert "holds the finished run; nothing to train (--fresh --force" in printed(console)
    assert listing(tmp_path / "run") == before


def test_a_crashed_run_goes_on_and_ends_like_an_undisturbed_one(config, tmp_path, interrupt):
    expected = train(config, tmp_path / "expected", memory_console())
    for step in (7, 11):
        interrupt(step, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, tmp_path / "run", memory_console())
    interrupt(0, crash)
    console = memory_console()
    assert comparable(train(config, tmp_path / "run", console)) == comparable(expected)
    assert "resuming after step 10" in printed(console)


def test_the_best_checkpoint_survives_a_resume(tiny_store, tmp_path, interrupt):
    """The best is early; later checkpoints, before and after a stop, must not push it out."""
    config = plain_config(tiny_store, checkpoint_every_steps=1, keep_last=1, epochs=6, monitor="logloss")
    config = dataclasses.replace(config, tables=TablesConfig((TableRule(learning_rate=2.0, name="sgd"),)))
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=2.0))
    expected = train(config, tmp_path / "expected", memory_console())
    assert expected["best_step"] < 12, "choose other settings: the best must come before the stops"
    for step in (14, 18):
        interrupt(step, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, tmp_path / "run", memory_console())
    interrupt(0, crash)
    assert comparable(train(config, tmp_path / "run", memory_console())) == comparable(expected)


@pytest.mark.parametrize(
    ("damaged", "message", "best_step"),
    [
        ([10], "resuming after step 8", 8),
        ([8], "the best checkpoint, of step 8, is not there any more; using that of step 12", 12),
        ([8, 10], "going back to the one before", 8),
    ],
    ids=["latest", "best", "all"],
)
def test_a_run_with_damaged_checkpoints_says_so_and_completes(config, tmp_path, interrupt, damaged, message, best_step):
    expected = train(config, tmp_path / "expected", memory_console())
    interrupt(11, crash)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, tmp_path / "run", memory_console())
    folder = tmp_path / "run" / CHECKPOINTS
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.steps() == [8, 10]
        assert checkpoints.progress(10)["progress"]["best_step"] == 8
    for step in damaged:
        shutil.rmtree(folder / str(step) / "state" / "d")
    interrupt(0, crash)
    console = memory_console()
    record = train(config, tmp_path / "run", console)
    assert f"checkpoint {folder / str(damaged[-1])} is damaged" in printed(console)
    assert message in printed(console)
    assert record["history"] == expected["history"]
    assert record["best_step"] == best_step
    assert (record["results"] == expected["results"]) == (best_step == 8)


def test_a_best_checkpoint_damaged_before_the_last_evaluation(config, tmp_path, interrupt, monkeypatch):
    """All steps are done; only the evaluation of the best checkpoint is left, and it cannot be read."""
    real = run.evaluate_all
    monkeypatch.setattr(run, "evaluate_all", lambda *arguments: crash())
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, tmp_path / "run", memory_console())
    monkeypatch.setattr(run, "evaluate_all", real)
    _, best = load_best(tmp_path / "run", pytest.fail)
    (tmp_path / "run" / CHECKPOINTS / str(best.step) / "progress" / "metadata").write_text("{")
    console = memory_console()
    record = train(config, tmp_path / "run", console)
    assert f"checkpoint {tmp_path / 'run' / CHECKPOINTS / str(best.step)} is damaged" in printed(console)
    assert record["best_step"] == int(record["checkpoint"].rpartition("/")[2])


def test_a_stop_by_a_signal_during_the_last_evaluation_loses_nothing(config, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    expected = train(config, tmp_path / "expected", memory_console())
    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_all", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run", memory_console())
    assert not (tmp_path / "run" / RECORD_FILE).exists()
    assert comparable(train(config, tmp_path / "run", memory_console())) == comparable(expected)


def unfinished(config, folder, interrupt):
    interrupt(7, crash)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, folder, memory_console())
    interrupt(0, crash)
    return listing(folder)


def test_another_config_is_refused_with_a_readable_difference(config, tmp_path, interrupt):
    before = unfinished(config, tmp_path / "run", interrupt)
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=8, seed=3))
    with pytest.raises(ConfigError) as caught:
        train(other, tmp_path / "run", memory_console())
    message = str(caught.value)
    assert "train.batch_size: 16 -> 8" in message
    assert "train.seed: 0 -> 3" in message
    assert "--run-dir" in message
    assert "--fresh --force" in message
    assert listing(tmp_path / "run") == before


def test_another_model_or_schema_is_refused(config, tmp_path, interrupt):
    before = unfinished(config, tmp_path / "run", interrupt)
    with pytest.raises(ConfigError, match=r'model.type: "LogisticRegressionConfig" -> "WukongConfig"'):
        train(tiny_config(config.data.store), tmp_path / "run", memory_console())
    schema = dataclasses.replace(SCHEMA, categorical=(CategoricalFeature("user", 9), CategoricalFeature("item", 22)))
    with pytest.raises(ConfigError, match=r"schema.categorical\[1\].vocabulary_size: 21 -> 22"):
        train(dataclasses.replace(config, schema=schema), tmp_path / "run", memory_console())
    assert listing(tmp_path / "run") == before


def test_a_checkpoint_of_another_config_is_refused_even_if_the_config_file_is_gone(config, tmp_path, interrupt):
    unfinished(config, tmp_path / "run", interrupt)
    (tmp_path / "run" / CONFIG_FILE).unlink()
    before = listing(tmp_path / "run")
    other = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=0.02))
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate: 0.01 -> 0.02"):
        train(other, tmp_path / "run", memory_console())
    assert listing(tmp_path / "run") == before


def test_settings_that_decide_nothing_may_change(config, tmp_path, interrupt):
    expected = train(config, tmp_path / "expected", memory_console())
    unfinished(config, tmp_path / "run", interrupt)
    changed = dataclasses.replace(
        config, train=dataclasses.replace(config.train, checkpoint_every_steps=2, keep_last=4)
    )
    record = train(changed, tmp_path / "run", memory_console())
    assert record["history"] == expected["history"]
    assert record["results"] == expected["results"]


def test_other_data_of_the_same_schema_is_refused(config, tmp_path, interrupt):
    other_store = write_store(tmp_path / "other", seed=1).path
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, store=str(other_store)))
    before = unfinished(config, tmp_path / "run", interrupt)
    with pytest.raises(CheckpointError, match=r"trained on other data than store .*other now holds"):
        train(other, tmp_path / "run", memory_console())
    assert listing(tmp_path / "run") == before
    train(config, tmp_path / "run", memory_console())
    with pytest.raises(CheckpointError, match="trained on other data"):
        train(other, tmp_path / "run", memory_console())


def test_a_finished_run_is_found_when_its_store_is_gone(tmp_path):
    store = write_store(tmp_path / "store").path
    config = plain_config(store)
    record = train(config, tmp_path / "run", memory_console())
    shutil.rmtree(store)
    assert comparable(train(config, tmp_path / "run", memory_console())) == json.loads(json.dumps(comparable(record)))


def test_fresh_needs_force_and_deletes_only_the_run(config, tmp_path, interrupt):
    before = unfinished(config, tmp_path / "run", interrupt)
    with pytest.raises(ConfigError, match="holds a run; add --force"):
        train(config, tmp_path / "run", memory_console(), fresh=True)
    assert listing(tmp_path / "run") == before
    (tmp_path / "run" / "notes.txt").write_text("mine")
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=5))
    console = memory_console()
    record = train(other, tmp_path / "run", console, fresh=True, force=True)
    assert record["seed"] == 5
    assert "resuming" not in printed(console)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_fresh_in_a_new_folder_just_trains(config, tmp_path):
    (tmp_path / "run").mkdir()
    assert train(config, tmp_path / "run", memory_console(), fresh=True)["steps"] == STEPS


@pytest.mark.parametrize("fault", ["no store", "batch too large"])
def test_fresh_deletes_nothing_when_the_new_run_cannot_start(config, tmp_path, interrupt, fault):
    before = unfinished(config, tmp_path / "run", interrupt)
    if fault == "no store":
        other = dataclasses.replace(config, data=dataclasses.replace(config.data, store=str(tmp_path / "nowhere")))
    else:
        other = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=71))
    with pytest.raises((DataError, ConfigError), match=r"no such folder|has only 70 rows"):
        train(other, tmp_path / "run", memory_console(), fresh=True, force=True)
    assert listing(tmp_path / "run") == before


def test_two_processes_do_not_train_into_one_folder(config, tmp_path):
    with run.only_process(tmp_path / "run"), pytest.raises(BusyError, match="another process is training this run"):
        train(config, tmp_path / "run", memory_console())
    assert train(config, tmp_path / "run", memory_console())["steps"] > 0


def test_a_folder_that_cannot_be_written_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run folder .*file/run cannot be written .*--run-dir"):
        train(config, tmp_path / "file" / "run", memory_console())


def test_a_damaged_config_file_is_named(config, tmp_path, interrupt):
    unfinished(config, tmp_path / "run", interrupt)
    (tmp_path / "run" / CONFIG_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"config.json is damaged .*--fresh --force"):
        train(config, tmp_path / "run", memory_console())


def test_a_disk_that_fills_up_leaves_a_run_that_can_go_on(config, tmp_path, monkeypatch):
    expected = train(config, tmp_path / "expected", memory_console())
    real = Checkpoints._add_checksums
    saved = []

    def full(self):
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        saved.append(1)
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_add_checksums", full)
        with pytest.raises(CheckpointError, match=r"could not be written .*No space left"):
            train(config, tmp_path / "run", memory_console())
    console = memory_console()
    assert comparable(train(config, tmp_path / "run", console)) == comparable(expected)
    assert "resuming after step 5" in printed(console)


@pytest.mark.parametrize("part", ["params", "tables", "opt_state"])
@pytest.mark.parametrize("step", [2, 6])
def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(tiny_store, tmp_path, monkeypatch, part, step):
    config = plain_config(tiny_store, checkpoint_every_steps=1, log_every_steps=100, eval_every_steps=100)
    program = compiled(config, STEPS)

    def poisoned(state, batch):
        state = program.train_step(state, batch)
        if int(state.step) < step:
            return state
        return state.replace(**{part: jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), getattr(state, part))})

    monkeypatch.setattr(run, "build_program", lambda *_: dataclasses.replace(program, train_step=poisoned))
    with pytest.raises(TrainingError, match=rf"at step {step}: training diverged; lower --optimizer.learning-rate"):
        train(config, tmp_path / "run", memory_console())
    with Checkpoints(tmp_path / "run" / CHECKPOINTS, read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == step - 1


def test_a_loss_that_is_nan_is_named_with_its_step(tiny_store, tmp_path, monkeypatch):
    config = plain_config(tiny_store)
    program = compiled(config, STEPS)

    def poisoned(state, batch):
        state = program.train_step(state, batch)
        return state.replace(loss_sum=state.loss_sum + jnp.nan)

    monkeypatch.setattr(run, "build_program", lambda *_: dataclasses.replace(program, train_step=poisoned))
    with pytest.raises(TrainingError, match=r"the loss is nan at step 3"):
        train(config, tmp_path / "run", memory_console())


def test_without_a_validation_split_the_last_checkpoint_is_the_best(tmp_path):
    store = write_store(tmp_path / "store", rows={"train": 70, "test": 30}).path
    record = train(plain_config(store), tmp_path / "run", memory_console())
    assert (record["best_step"], record["steps"]) == (STEPS, STEPS)
    assert list(record["results"]) == ["test"]
    assert load_best(tmp_path / "run", pytest.fail)[1].step == STEPS


def test_a_store_with_training_rows_only(tmp_path):
    store = write_store(tmp_path / "store", rows={"train": 70}).path
    record = train(plain_config(store), tmp_path / "run", memory_console())
    assert record["results"] == {}
    assert {point["split"] for point in record["history"]} == {"train"}


def test_a_schema_without_a_group_has_no_gauc(tmp_path):
    schema = dataclasses.replace(SCHEMA, group=None)
    store = write_store(tmp_path / "store", schema).path
    record = train(plain_config(store, schema), tmp_path / "run", memory_console())
    assert "gauc" not in record["results"]["test"]
    assert "auc" in record["results"]["test"]


def test_several_labels_are_named_in_every_metric(tmp_path):
    schema = dataclasses.replace(SCHEMA, labels=("click", "buy"))
    store = write_store(tmp_path / "store", schema).path
    config = plain_config(store, schema, progressive=True, task_weights=(1.0, 0.5))
    record = train(config, tmp_path / "run", memory_console())
    for name in ("auc/click", "auc/buy", "logloss/click", "gauc/buy"):
        assert name in record["results"]["test"]
    points = [point for point in record["history"] if point["split"] == "valid"]
    scores = {point["step"]: (point["auc/click"] + point["auc/buy"]) / 2 for point in points}
    assert record["best_step"] == max(scores, key=scores.get)
    assert any(point["split"] == "progressive" and "auc/buy" in point for point in record["history"])


def test_tensorboard_events_are_written_when_asked(tiny_store, tmp_path):
    train(plain_config(tiny_store), tmp_path / "without", memory_console())
    assert not (tmp_path / "without" / "tensorboard").exists()
    train(plain_config(tiny_store, tensorboard=True), tmp_path / "with", memory_console())
    written = b"".join(path.read_bytes() for path in (tmp_path / "with" / "tensorboard").iterdir())
    for tag in (b"auc/valid", b"logloss/valid", b"logloss/train"):
        assert tag in written


def test_a_signal_stops_the_run_with_a_message_and_it_goes_on(config, tmp_path, interrupt):
    expected = train(config, tmp_path / "expected", memory_console())
    interrupt(6, send_sigterm)
    with pytest.raises(StoppedBySignal, match="stopped by SIGTERM after step 6"):
        train(config, tmp_path / "run", memory_console())
    interrupt(0, send_sigterm)
    assert comparable(train(config, tmp_path / "run", memory_console())) == comparable(expected)


def test_the_last_state_makes_room_for_the_best_checkpoint(config, tmp_path, monkeypatch):
    """A table of most of the memory is there once."""
    restore_best, held = Checkpoints.restore_best, []

    def tables(state):
        gc.collect()
        shapes = {leaf.shape for leaf in state.tables.values()}
        return sum(array.shape in shapes for array in jax.live_arrays())

    def counting(self, state, *rest):
        held.append(tables(state))
        return restore_best(self, state, *rest)

    monkeypatch.setattr(Checkpoints, "restore_best", counting)
    before = tables(run.build_program(config, 1).abstract_state())
    train(config, tmp_path / "run", memory_console())
    assert held == [before]
