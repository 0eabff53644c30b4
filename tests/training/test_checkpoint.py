"""Checkpoints: what is kept, what is refused, and what survives damage."""

import dataclasses
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import assert_same_state, compiled, plain_config, table_rule, tiny_config
from wukong_jax.config.models import FactorizationMachineConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.errors import CheckpointError
from wukong_jax.training.checkpoint import Checkpoints, DamagedCheckpoint, compare_trees

pytestmark = pytest.mark.usefixtures("compile_quickly")

# large enough that Orbax gives arrays files of their own, and incompressible ones
SCHEMA = DatasetSchema(categorical=(CategoricalFeature("user", 20_000), CategoricalFeature("item", 50)))


@pytest.fixture(scope="module")
def program():
    config = dataclasses.replace(plain_config(pathlib.Path("none"), SCHEMA), model=FactorizationMachineConfig(width=4))
    return compiled(config, 10)


@pytest.fixture(scope="module")
def state(program):
    return program.init()


def at(state, step):
    return state.replace(step=jnp.asarray(step, jnp.int32), loss_sum=jnp.asarray(float(step), jnp.float32))


def save_steps(folder, state, steps, keep_last=1):
    """Save steps, given as {step: best step at that time, or None}."""
    with Checkpoints(folder, keep_last) as checkpoints:
        for step, best in steps.items():
            checkpoints.save(at(state, step), {"step": step}, best)


class Warnings(list):
    def __call__(self, text):
        self.append(text)


def test_round_trip(tmp_path, program, state):
    progress = {"a": [0.1, 1e-300, 2**60], "b": {"c": None}, "d": "ü"}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, progress)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [0]
        found = checkpoints.restore(0, program.abstract_state())
    assert_same_state(found.state, state)
    assert found.progress == progress
    for leaf, sharding in zip(jax.tree.leaves(found.state), jax.tree.leaves(program.state_shardings), strict=True):
        assert leaf.sharding == sharding


@pytest.mark.parametrize(
    ("keep_last", "steps", "kept"),
    [
        (1, {1: None, 2: None, 3: None}, [3]),
        (2, {1: None, 2: None, 3: None}, [2, 3]),
        (1, {1: 1, 2: 1, 3: 1}, [1, 3]),
        (1, {1: 1, 2: 2, 3: 2, 4: 2}, [2, 4]),
        (2, {1: 1, 2: 1, 3: 1, 4: 1}, [1, 3, 4]),
        (1, {1: 1, 2: 2}, [2]),
        (3, {1: 1, 2: 1}, [1, 2]),
    ],
)
def test_the_best_and_the_latest_are_kept(tmp_path, state, keep_last, steps, kept):
    save_steps(tmp_path / "c", state, steps, keep_last)
    with Checkpoints(tmp_path / "c", keep_last) as checkpoints:
        assert checkpoints.steps() == kept


def test_the_best_is_still_known_after_opening_again(tmp_path, state):
    save_steps(tmp_path / "c", state, {1: 1, 2: 1})
    save_steps(tmp_path / "c", state, {3: 1, 4: 1})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [1, 4]


def test_later_steps_do_not_tear_a_save_under_way(tmp_path, program, state, monkeypatch):
    """The arrays are donated and overwritten while they are written; the commit waits until that has happened."""
    overwritten = threading.Event()
    commit = Checkpoints._add_checksums
    monkeypatch.setattr(Checkpoints, "_add_checksums", lambda self: (overwritten.wait(60), commit(self))[1])
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), tree), donate_argnums=0)
    sharding = jax.tree.leaves(program.state_shardings)[0]
    table = jax.device_put(jax.random.normal(jax.random.key(0), (4_000_000, 1)), sharding)  # some 0.1 s of writing
    state = jax.tree.map(jnp.copy, state.replace(tables={"big": table}))
    abstract = program.abstract_state()
    abstract = abstract.replace(tables={"big": jax.ShapeDtypeStruct(table.shape, table.dtype, sharding=sharding)})
    expected = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
    jax.block_until_ready(overwrite(jax.tree.map(jnp.copy, state)))  # compiled before the save begins
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, {})
        for _ in range(3):
            state = jax.block_until_ready(overwrite(state))
        assert not (tmp_path / "c" / "0").exists()
        overwritten.set()
        checkpoints.wait()
        found = checkpoints.restore(0, abstract).state
    assert_same_state(found, expected)


def content_files(folder):
    """The files that a restore reads, and the checksums; Orbax' own notes about the commit decide nothing."""
    notes = ("_CHECKPOINT_METADATA", "commit_success.txt")
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in notes)


def test_every_kind_of_damage_to_every_file_is_noticed(tmp_path, program, state, rng):
    save_steps(tmp_path / "c", state, {1: None})
    with Checkpoints(tmp_path / "c") as checkpoints:
        for path in content_files(tmp_path / "c" / "1"):
            content = path.read_bytes()
            flipped = bytearray(content)
            flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(7))
            for broken in (None, b"", content[: len(content) // 2], content + b"x", bytes(flipped)):
                path.unlink() if broken is None else path.write_bytes(broken)
                with pytest.raises(DamagedCheckpoint, match=r"checkpoint .*/1 is damaged \(.+"):
                    checkpoints.restore(1, program.abstract_state())
                with pytest.raises(DamagedCheckpoint):
                    checkpoints.progress(1)
            path.write_bytes(content)
        assert_same_state(checkpoints.restore(1, program.abstract_state()).state, at(state, 1))


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_is_used(tmp_path, program, state):
    save_steps(tmp_path / "c", state, {1: None, 2: None, 3: None}, keep_last=3)
    content_files(tmp_path / "c" / "3" / "state")[-1].write_bytes(b"")
    content_files(tmp_path / "c" / "2" / "progress")[0].unlink()
    warnings = Warnings()
    with Checkpoints(tmp_path / "c", 3) as checkpoints:
        found = checkpoints.restore_latest(program.abstract_state(), warnings)
        assert (found.step, found.progress) == (1, {"step": 1})
        assert checkpoints.steps() == [1]
        checkpoints.save(at(state, 2), {"again": True})
    assert len(warnings) == 2
    assert all(part in warnings[0] for part in ("checkpoint", "was altered", "going back to the one before"))
    assert "is missing" in warnings[1]
    assert sorted(path.name for path in (tmp_path / "c.damaged").iterdir()) == ["2", "3"]
    with Checkpoints(tmp_path / "c", 3) as checkpoints:
        assert checkpoints.restore_latest(program.abstract_state(), print).progress == {"again": True}


def test_nothing_whole_is_none(tmp_path, program, state):
    save_steps(tmp_path / "c", state, {1: None})
    content_files(tmp_path / "c" / "1" / "state")[0].unlink()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore_latest(program.abstract_state(), Warnings()) is None
        assert checkpoints.restore_best(program.abstract_state(), 1, Warnings()) is None


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_lost_best_checkpoint_is_replaced_by_the_latest_and_said(tmp_path, program, state, how):
    save_steps(tmp_path / "c", state, {1: 1, 2: 1, 3: 1})
    best = 1
    if how == "damaged":
        content_files(tmp_path / "c" / "1" / "state")[0].write_bytes(b"?")
    else:
        best = 7
    warnings = Warnings()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore_best(program.abstract_state(), best, warnings).step == 3
    assert f"of step {best}, is not there any more; using that of step 3" in warnings[-1]


def test_a_write_that_was_cut_off_is_no_checkpoint(tmp_path, program, state):
    save_steps(tmp_path / "c", state, {1: None, 2: None}, keep_last=2)
    (tmp_path / "c" / "2").rename(tmp_path / "c" / "2.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path / "c", 2) as checkpoints:
        assert checkpoints.steps() == [1]
        checkpoints.save(at(state, 2), {})
        checkpoints.wait()
        assert not list((tmp_path / "c").glob("*tmp*")), "what a killed run left is removed"
    with Checkpoints(tmp_path / "c", 2) as checkpoints:
        assert checkpoints.restore_latest(program.abstract_state(), print).step == 2


def test_reading_leaves_a_folder_that_is_written_to_alone(tmp_path, program, state):
    save_steps(tmp_path / "c", state, {1: None, 2: None}, keep_last=2)
    (tmp_path / "c" / "3.orbax-checkpoint-tmp").mkdir()
    content_files(tmp_path / "c" / "2" / "state")[0].write_bytes(b"?")
    before = sorted(path.as_posix() for path in tmp_path.rglob("*"))
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
        assert checkpoints.restore_latest(program.abstract_state(), Warnings()).step == 1
    assert sorted(path.as_posix() for path in tmp_path.rglob("*")) == before


def test_another_model_is_refused_with_the_differences(tmp_path, program, state):
    save_steps(tmp_path / "c", state, {1: None})
    config = program.config
    wider = compiled(dataclasses.replace(config, model=FactorizationMachineConfig(width=8)), 10)
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(CheckpointError) as caught:
        checkpoints.restore_latest(wider.abstract_state(), pytest.fail)
    message = str(caught.value)
    assert "does not fit this model" in message
    assert "tables/width4_row_sparse_adagrad: only in the checkpoint" in message
    assert "tables/width8_row_sparse_adagrad: not in the checkpoint" in message
    assert "--run-dir" in message
    assert "--fresh --force" in message
    assert (tmp_path / "c" / "1").is_dir()


def test_differences_of_shape_and_type_are_named():
    old = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}
    new = {"a": np.zeros((2, 4), np.float32), "b": np.zeros(2, np.int32)}
    assert compare_trees(old, new) == [
        "a: checkpoint has float32[2, 3], this model float32[2, 4]",
        "b: checkpoint has float32[2], this model int32[2]",
    ]
    assert compare_trees(old, old) == []


def test_a_full_disk_is_said_and_leaves_the_earlier_checkpoint(tmp_path, program, state, monkeypatch):
    save_steps(tmp_path / "c", state, {1: 1})

    def full(self):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_add_checksums", full)
        with (
            pytest.raises(CheckpointError, match=r"could not be written .*No space left.*run the same command"),
            Checkpoints(tmp_path / "c") as checkpoints,
        ):
            checkpoints.save(at(state, 2), {}, 2)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [1]
        assert_same_state(checkpoints.restore_latest(program.abstract_state(), print).state, at(state, 1))


def test_all_states_of_a_run_have_a_place(program):
    """A program with everything on: restoring needs every leaf's shape, which `abstract_state` gives without memory."""
    config = dataclasses.replace(
        tiny_config(pathlib.Path("none"), progressive=True), tables=table_rule("row_sparse", "adam")
    )
    abstract = compiled(config, 10).abstract_state()
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding for leaf in jax.tree.leaves(abstract))
    assert set(abstract.scratch) == set(abstract.slots) == set(abstract.tables)
