"""Checkpoints by Orbax: everything that decides what comes next, written asynchronously, whole or not at all.

A checkpoint holds the state (without its work space), and as JSON the loop's progress, the position in the data, the
config and the store's digest. The best one by validation score and the latest ones are kept.
"""

import contextlib
import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from wukong_jax.errors import CheckpointError
from wukong_jax.training.optim import parameter_path
from wukong_jax.training.state import TrainState

SCORE = "score"


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint read back."""

    step: int
    state: TrainState
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run folder; used as a context manager, which waits for the last write."""

    def __init__(self, folder: pathlib.Path, keep_last: int = 1) -> None:
        """Open or create the folder. `keep_last` latest checkpoints are kept besides the best."""
        self.folder = folder.absolute()
        self._damaged = self.folder.with_name(self.folder.name + ".damaged")
        best = policies.BestN(get_metric_fn=lambda metrics: metrics[SCORE], n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep_last), best]),
            cleanup_tmp_directories=True,
        )
        with _quiet():
            handlers = {"state": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        """The open checkpoints."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for the write under way, then close."""
        self.wait()
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, progress: dict[str, Any], best_score: float | None = None) -> None:
        """Write state and progress in the background; `best_score` (higher is better) marks a new best.

        The arrays are copied first: the next step overwrites the donated ones in place while the write goes on.
        Raises `CheckpointError` if this write, or the one before, cannot be completed (a full or read-only disk).
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        saved = jax.tree.map(jnp.copy, without_scratch(state))
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(saved), progress=ocp.args.JsonSave(progress))
        metrics = None if best_score is None else {SCORE: best_score}
        with self._write_errors(), _quiet():
            self._manager.save(step, args=arguments, metrics=metrics)

    def wait(self) -> None:
        """Block until everything saved is on disk; raises `CheckpointError` if it could not be written."""
        with self._write_errors(), _quiet():
            self._manager.wait_until_finished()

    def progress(self, step: int) -> dict[str, Any]:
        """The JSON part of one checkpoint."""
        with _quiet():
            return self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]

    def restore(self, step: int, expected: TrainState) -> Restored:
        """Read one checkpoint into the shapes and shardings of `expected`; raises `CheckpointError` if they differ.

        Tree, shapes and dtypes are compared first: Orbax would restore a part of a tree without a word.
        """
        with _quiet():
            found = self._manager.item_metadata(step)["state"].tree
            differences = compare_trees(found, without_scratch(expected))
            if differences:
                lines = "\n  ".join(differences[:20])
                raise CheckpointError(
                    f"checkpoint {self.folder / str(step)} does not fit this model:\n  {lines}\n"
                    "train into another folder with --run-dir, or start anew with --fresh --force"
                )
            arguments = ocp.args.Composite(
                state=ocp.args.StandardRestore(without_scratch(expected)), progress=ocp.args.JsonRestore()
            )
            item = self._manager.restore(step, args=arguments)
        scratch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding), expected.scratch)
        return Restored(step, item["state"].replace(scratch=scratch), item["progress"])

    def restore_latest(self, expected: TrainState, warn: Any) -> Restored | None:
        """The latest whole checkpoint, or None; a damaged one is put aside, and `warn` is told so."""
        for step in reversed(self.steps()):
            try:
                return self.restore(step, expected)
            except CheckpointError:
                raise
            except Exception as error:  # what a damaged file raises differs by file: json, msgpack, tensorstore, OSError
                self._put_aside(step)
                reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
                warn(f"checkpoint {step} is damaged ({reason}); put aside in {self._damaged}, going back to the one before")
        return None

    def _put_aside(self, step: int) -> None:
        self._damaged.mkdir(exist_ok=True)
        target = self._damaged / str(step)
        shutil.rmtree(target, ignore_errors=True)
        (self.folder / str(step)).rename(target)
        with _quiet():
            self._manager.reload()

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


def without_scratch(state: TrainState) -> TrainState:
    """The state as it is stored."""
    return state.replace(scratch={})


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
def _quiet() -> Iterator[None]:
    """Keep Orbax's own log lines off the progress display."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
