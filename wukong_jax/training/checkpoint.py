"""Checkpoints by Orbax: everything that decides what comes next, written asynchronously, whole or not at all.

A checkpoint holds the state (without its work space), and as JSON the loop's progress, the position in the data, the
config, where the tables lie, and the store's digest. The best one by validation score and the latest ones are kept.
Several processes share the folder, and call every method together: each writes and reads its part of the state, process
0 decides the rest.
"""

import contextlib
import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from wukong_jax.agreement import lead
from wukong_jax.errors import CheckpointError
from wukong_jax.training.checksums import find_damage, write_checksums
from wukong_jax.training.optim import parameter_path
from wukong_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint read back."""

    step: int
    state: TrainState
    progress: dict[str, Any]


@runtime_checkable  # so that annotations can be checked in tests
class Layout(Protocol):
    """How the tables of a saved state lie, where they are to lie otherwise."""

    def shapes(self) -> TrainState:
        """The saved state's shapes and dtypes."""

    def readable(self) -> TrainState:
        """Shapes and shardings to read into: those of `shapes`, or longer ones whose ends are filled up."""

    def convert(self, state: TrainState) -> TrainState:
        """The state as it is to lie, of one that was read into `readable`."""


SavedAs = Callable[[dict[str, Any]], Layout | None]
"""The JSON part of a checkpoint to the layout of its state; None where that is the one expected."""
NOT_STORED = ("exchange", "scratch")
"""Fields of a state that start anew: a count since the last point of the curve, and work space."""


class _KeepBest(policies.PreservationPolicy):
    """Keeps the step that it is told; Orbax' own ranking would read the scores of all checkpoints, damaged ones too."""

    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether each checkpoint is kept."""
        return [info.step == self.step for info in checkpoints]


class DamagedCheckpoint(Exception):
    """A file of a checkpoint is missing or was altered."""


class Checkpoints:
    """The checkpoints of one run folder; used as a context manager, which waits for the last write."""

    def __init__(self, folder: pathlib.Path, keep_last: int = 1, *, read_only: bool = False) -> None:
        """Open or create the folder. `keep_last` latest checkpoints are kept besides the best.

        With `read_only` nothing in the folder is touched, so that a run that is still training can be looked at.
        """
        self.folder = folder.absolute()
        self._read_only = read_only
        self._damaged = self.folder.with_name(self.folder.name + ".damaged")
        self._best = _KeepBest()
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(_without_log())  # until closed: Orbax also logs from threads of its own
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep_last), self._best]),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._add_checksums),
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        """The open checkpoints."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for the write under way, then close."""
        try:
            self.wait()
        finally:
            self._manager.close()
            self._quiet.close()

    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, in order."""
        found: list[int] = lead(lambda: sorted(self._manager.all_steps()))
        return found

    def save(self, state: TrainState, progress: dict[str, Any], best_step: int | None = None) -> None:
        """Write state and progress in the background; the checkpoint of `best_step` is kept besides the latest ones.

        When this returns the arrays have been copied to the host, so the next step may overwrite the donated ones.
        Raises `CheckpointError` if this write, or the one before, cannot be completed (a full or read-only disk).
        """
        step = int(state.step)
        if step in self.steps():
            return
        saved = ocp.args.StandardSave(stored_part(state))
        arguments = ocp.args.Composite(state=saved, progress=ocp.args.JsonSave(progress))
        self._best.step = best_step
        with self._write_errors():
            self._manager.save(step, args=arguments)

    def wait(self) -> None:
        """Block until everything saved is on disk; raises `CheckpointError` if it could not be written."""
        with self._write_errors():
            self._manager.wait_until_finished()

    def progress(self, step: int) -> dict[str, Any]:
        """The JSON part of one checkpoint; raises `DamagedCheckpoint`."""
        self._check_files(step)
        return self._progress(step)

    def _progress(self, step: int) -> dict[str, Any]:
        found: dict[str, Any] = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))[
            "progress"
        ]
        return found

    def restore(self, step: int, expected: TrainState, saved_layout: SavedAs | None = None) -> Restored:
        """Read one checkpoint into the shapes and shardings of `expected`; raises `CheckpointError` if they differ.

        Tree, shapes and dtypes are compared first: Orbax would restore a part of a tree without a word. Where
        `saved_layout` knows that the state was laid out otherwise, it is brought into the layout expected. Raises
        `DamagedCheckpoint` if a file is missing or was altered.
        """
        self._check_files(step)
        layout = None if saved_layout is None else saved_layout(self._progress(step))
        lead(lambda: self._check_fits(step, expected if layout is None else layout.shapes()))
        into = stored_part(expected if layout is None else layout.readable())
        # Orbax fills up arrays whose rows the devices do not divide, only if told not to be strict
        state = ocp.args.StandardRestore(into, strict=layout is None)
        item = self._manager.restore(step, args=ocp.args.Composite(state=state, progress=ocp.args.JsonRestore()))
        blank = {name: _zeros(getattr(expected, name)) for name in NOT_STORED}
        found = TrainState(**item["state"], **blank)
        return Restored(step, found if layout is None else layout.convert(found), item["progress"])

    def restore_latest(
        self, expected: TrainState, warn: Callable[[str], None], saved_layout: SavedAs | None = None
    ) -> Restored | None:
        """The latest whole checkpoint, or None; a damaged one is put aside, and `warn` is told so."""
        for step in reversed(self.steps()):
            try:
                return self.restore(step, expected, saved_layout)
            except DamagedCheckpoint as damage:
                warn(f"{damage}; {self._put_aside(step)}going back to the one before")
        return None

    def restore_best(
        self,
        expected: TrainState,
        best_step: int | None,
        warn: Callable[[str], None],
        saved_layout: SavedAs | None = None,
    ) -> Restored | None:
        """The checkpoint of `best_step`; where it is missing or damaged the latest whole one, and `warn` is told so."""
        if best_step is None:
            return self.restore_latest(expected, warn, saved_layout)
        if best_step in self.steps():
            try:
                return self.restore(best_step, expected, saved_layout)
            except DamagedCheckpoint as damage:
                warn(f"{damage}; {self._put_aside(best_step)}it was the best one")
        latest = self.restore_latest(expected, warn, saved_layout)
        if latest is not None:
            warn(f"the best checkpoint, of step {best_step}, is not there any more; using that of step {latest.step}")
        return latest

    def _add_checksums(self) -> None:
        """Called by Orbax when everything is written, before it gives the folder its final name."""
        for folder in self.folder.glob("*.orbax-checkpoint-tmp*"):
            write_checksums(folder)

    def _check_fits(self, step: int, expected: TrainState) -> None:
        found = self._manager.item_metadata(step)["state"].tree
        differences = compare_trees(found, stored_part(expected))
        if differences:
            lines = "\n  ".join(differences[:20])
            raise CheckpointError(
                f"checkpoint {self.folder / str(step)} does not fit this model:\n  {lines}\n"
                "train into another folder with --run-dir, or start anew with --fresh --force"
            )

    def _check_files(self, step: int) -> None:
        damage = lead(lambda: find_damage(self.folder / str(step)))
        if damage:
            raise DamagedCheckpoint(f"checkpoint {self.folder / str(step)} is damaged ({damage})")

    def _put_aside(self, step: int) -> str:
        """Move a damaged checkpoint out of the way; says where to."""
        if self._read_only:
            return ""

        def move() -> None:
            self._damaged.mkdir(exist_ok=True)
            target = self._damaged / str(step)
            shutil.rmtree(target, ignore_errors=True)
            (self.folder / str(step)).rename(target)

        lead(move)
        self._manager.reload()
        return f"put aside in {self._damaged}, "

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise CheckpointError(
                f"checkpoint in {self.folder} could not be written ({reason}); "
                "free space or choose a writable folder with --run-dir, then run the same command: it resumes"
            ) from error


def stored_part(state: TrainState) -> dict[str, Any]:
    """The fields of a state that are stored, by name."""
    left_out = NOT_STORED if state.ahead else (*NOT_STORED, "ahead")  # as in checkpoints from before there was one
    names = (field.name for field in dataclasses.fields(state))
    return {name: getattr(state, name) for name in names if name not in left_out}


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding), tree)


def compare_trees(found: Any, expected: Any) -> list[str]:
    """Lines for every leaf that is missing, new, or of another shape or dtype."""
    old = {parameter_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found)}
    new = {parameter_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    lines = [f"{name}: only in the checkpoint" for name in old if name not in new]
    lines += [f"{name}: not in the checkpoint" for name in new if name not in old]
    for name in old.keys() & new.keys():
        before, after = (tuple(old[name].shape), str(old[name].dtype)), (tuple(new[name].shape), str(new[name].dtype))
        if before != after:
            lines.append(f"{name}: checkpoint has {before[1]}{list(before[0])}, this model {after[1]}{list(after[0])}")
    return sorted(lines)


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Keep Orbax's own log lines off the display; its errors are raised, and told by us."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
