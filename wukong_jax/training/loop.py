"""The training loop: steps, evaluations, checkpoints, and a clean stop at any step."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from wukong_jax.agreement import process_count, process_index
from wukong_jax.config.codec import to_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.pipeline import part_on_mesh, put, steps_per_epoch, to_device, training_batches
from wukong_jax.data.store import Store
from wukong_jax.errors import TrainingError
from wukong_jax.evaluation.metrics import compute_metrics, init_metrics
from wukong_jax.training.checkpoint import Checkpoints
from wukong_jax.training.diagnostics import SPLIT as DIAGNOSTICS
from wukong_jax.training.diagnostics import summary, to_host
from wukong_jax.training.display import Display
from wukong_jax.training.events import EventLog
from wukong_jax.training.objective import EvalStep
from wukong_jax.training.program import Program
from wukong_jax.training.progress import Progress
from wukong_jax.training.relayout import layout_json
from wukong_jax.training.spikes import SpikeDetector, detector_after
from wukong_jax.training.state import TrainState
from wukong_jax.training.stopping import Stop, StoppedBySignal, caught_signals

VALIDATION, TEST = "valid", "test"
FALLING = ("logloss", "loss")
"""Scores that are better when lower."""
SHOWN = ("auc", "logloss", "hr", "ndcg", "loss")
"""Scores in the messages of an evaluation."""

# One bad value in any part of the state makes every later step worthless.
_all_finite = jax.jit(
    lambda tree: jnp.stack(
        [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    ).all()
)


def has_validation(store: Store) -> bool:
    """Whether there is a validation split with rows; without one the last checkpoint counts as the best."""
    return VALIDATION in store.splits and store.splits[VALIDATION].rows > 0


def monitored(metrics: dict[str, Any], monitor: str) -> float:
    """The score that chooses, higher is better: the mean of the metric over the labels, of a loss its negative."""
    values = [metrics[name] for name in metrics if name.partition("/")[0] == monitor]
    return sum(values) / len(values) * (-1 if monitor in FALLING else 1)


def total_steps(config: RunConfig, store: Store) -> int:
    """Steps of the whole run."""
    steps = config.epochs * steps_per_epoch(store.split("train"), config.train.batch_size)
    return min(steps, config.train.max_steps or steps)


def evaluation_of(program: Program, state: TrainState) -> EvalStep:
    """The evaluation step of a state, which takes this process's part of each batch."""
    if process_count() == 1:
        step = functools.partial(program.eval_step, state)
        return (lambda metrics, batch: jax.block_until_ready(step(metrics, batch))) if program.one_at_a_time else step
    everywhere = NamedSharding(program.mesh, PartitionSpec())

    def evaluate(metrics: Any, batch: Batch) -> tuple[Any, jax.Array]:
        # the first metrics are this process's own; put where the later ones are, they cost no second compilation
        metrics = jax.tree.map(lambda leaf: leaf if not leaf.is_fully_addressable else put(leaf, everywhere), metrics)
        return program.eval_step(state, metrics, part_on_mesh(batch, program.batch_shardings.ids))

    return evaluate


@dataclasses.dataclass
class Loop:
    """One run in progress; `run` goes on from `state` and `progress`, wherever they stand."""

    program: Program
    store: Store
    checkpoints: Checkpoints
    display: Display
    events: EventLog
    state: TrainState
    progress: Progress
    steps: int
    on_evaluation: Callable[[Progress], None] | None = None
    """Called after each evaluation, once what it led to is saved; what it raises ends the run there."""

    def run(self) -> None:
        """Train to the end; raises `StoppedBySignal` after saving, `TrainingError` if the loss is not finite."""
        config = self.program.config.train
        batches = iter(self._batches())
        if self.progress.data_position is not None:
            batches.set_state(self.progress.data_position)
        elif self.state.ahead:
            self.state = self.program.look_up_first(self.state, next(batches))
        every = config.eval_every_steps or steps_per_epoch(self.store.split("train"), config.batch_size)
        started, already = time.monotonic(), self.progress.wall_seconds
        clock, spikes = _Clock(), detector_after(self.progress.history, config.log_every_steps)
        with caught_signals() as caught:
            stop = Stop(caught, self.progress.step)
            while not self.progress.finished:
                batch = clock.wait_for(batches)
                if config.diagnostics_every_steps and (self.progress.step + 1) % config.diagnostics_every_steps == 0:
                    self._diagnose(batch, clock)
                self.state = self.program.train_step(self.state, batch)
                if self.program.one_at_a_time:
                    jax.block_until_ready(self.state)
                self.progress.step += 1
                clock.stepped(self.state)
                step, last = self.progress.step, self.progress.step == self.steps
                if step % config.log_every_steps == 0 or last:
                    self._log(clock, spikes)
                score, evaluated = None, step % every == 0 or last
                if evaluated:
                    jax.block_until_ready(self.state)
                    clock.pause()
                    score = self._validate()
                self.progress.finished |= last
                saving = self.progress.finished or score is not None or step % config.checkpoint_every_steps == 0
                stopped_by = stop.after(step, ask=evaluated or saving)
                if stopped_by is not None or saving:
                    jax.block_until_ready(self.state)
                    clock.pause()
                    self._check_finite()
                    self._account(clock)
                    self.progress.data_position = batches.get_state()
                    self.progress.wall_seconds = already + time.monotonic() - started
                    self.checkpoints.save(self.state, self._checkpoint_json(), self.progress.best_step)
                if stopped_by is not None and not self.progress.finished:
                    self.checkpoints.wait()
                    raise StoppedBySignal(stopped_by, step)
                if evaluated and self.on_evaluation is not None:
                    self.on_evaluation(self.progress)

    def _batches(self) -> Any:
        config = self.program.config
        batches = training_batches(
            self.store.split("train"),
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            epochs=config.train.epochs + config.train.semi_synchronous,  # its last step looks one more batch up
            shuffle=config.data.shuffle,
            process_index=process_index(),
            process_count=process_count(),
        )
        return to_device(batches, self.program.batch_shardings.ids)

    def _diagnose(self, batch: Batch, clock: "_Clock") -> None:
        """Look at what the coming step does; the state is only read."""
        jax.block_until_ready(self.state)
        clock.pause()
        figures, step = to_host(self.program.diagnose(self.state, batch)), self.progress.step + 1
        self.progress.record(DIAGNOSTICS, step, figures)
        self.events.write(DIAGNOSTICS, step, figures)
        self.display.message(f"step {step}: {summary(figures)}")
        clock.go_on()

    def _log(self, clock: "_Clock", spikes: SpikeDetector) -> None:
        """A point of the training curve; waits for the step, so that the figures are true."""
        config = self.program.config.train
        since = self.progress.step % config.log_every_steps or config.log_every_steps
        loss = float(self.state.loss_sum) / since
        if not math.isfinite(loss):
            raise _diverged(f"the loss is {loss}", self.progress.step)
        examples_per_second, waiting = clock.lap(config.batch_size)
        self.display.update(self.progress.step, loss, examples_per_second, waiting)
        self._record("train", {self.program.objective.loss_name: loss} | self._further_rounds())
        spike = spikes.see(self.progress.step, loss) if since == config.log_every_steps else None
        if spike is not None:
            self.display.message(
                f"step {self.progress.step}: loss spike since step {spike.step}, loss {spike.loss:.4f} where "
                f"{spike.typical:.4f} is typical"
            )
        self._set(loss_sum=np.zeros(()), exchange=dict.fromkeys(self.state.exchange, np.zeros(())))

    def _further_rounds(self) -> dict[str, float]:
        """Rows since the last point of the curve for which one round of exchange had no room; empty on one device."""
        if not self.state.exchange:
            return {}
        rows = sum(int(count) for count in self.state.exchange.values())
        if rows:
            self.display.message(
                f"step {self.progress.step}: {rows} rows needed further rounds of exchange; "
                f"--mesh.exchange-capacity above {self.program.config.mesh.exchange_capacity} gives them room"
            )
        return {"rows_in_further_rounds": float(rows)}

    def _validate(self) -> float | None:
        """Evaluate, react to the score; the score if it is the best so far, else None."""
        config = self.program.config.train
        if self.state.progressive:
            metrics = _by_task(self.program.config.schema.labels, [compute_metrics(m) for m in self.state.progressive])
            self._record("progressive", metrics)
            self.display.message(f"step {self.progress.step}: progressive {_shown(metrics)}")
            self._set(progressive=tuple(init_metrics() for _ in self.state.progressive))
        if not has_validation(self.store):
            if self.program.config.sequences is not None:  # nothing is chosen by it, but it is what others print
                self._watch(TEST)
            return None
        metrics = self._evaluate(VALIDATION)
        score = monitored(metrics, config.monitor)
        if not math.isfinite(score):
            raise _diverged(f"validation {config.monitor} is {score}", self.progress.step)
        best = self.progress.see_score(score, config.plateau)
        self._set(learning_rate_scale=np.array(self.progress.learning_rate_scale))
        self.display.message(f"step {self.progress.step}: validation {_shown(metrics)}{'  (best)' if best else ''}")
        return score if best else None

    def _set(self, **values: Any) -> None:
        """Give fields of the state new values, on the devices where the old ones are."""
        for name, value in values.items():
            placed = jax.tree.map(lambda old, new: put(new, old.sharding, old.dtype), getattr(self.state, name), value)
            self.state = dataclasses.replace(self.state, **{name: placed})

    def _watch(self, split: str) -> None:
        """Evaluate a split for the record only."""
        self.display.message(f"step {self.progress.step}: {split} {_shown(self._evaluate(split))}")

    def _evaluate(self, split: str) -> dict[str, float]:
        rows, size = self.store.split(split), self.program.config.train.eval_batch_size
        metrics = self.program.objective.evaluate(evaluation_of(self.program, self.state), rows, size)
        self._record(split, metrics)
        return metrics

    def _record(self, split: str, metrics: dict[str, float]) -> None:
        self.progress.record(split, self.progress.step, metrics)
        self.events.write(split, self.progress.step, metrics)

    def _check_finite(self) -> None:
        """Raise `TrainingError` rather than save what no run can go on from."""
        learned = (self.state.params, self.state.batch_stats, self.state.opt_state, self.state.tables, self.state.slots)
        if not bool(_all_finite((learned, self.state.loss_sum))):
            raise _diverged("a parameter is NaN or infinite", self.progress.step)

    def _account(self, clock: "_Clock") -> None:
        seconds, steps = clock.take()
        self.progress.train_seconds += seconds
        self.progress.timed_examples += steps * self.program.config.train.batch_size

    def _checkpoint_json(self) -> dict[str, Any]:
        return {
            "progress": self.progress.to_json(),
            "config": to_plain(self.program.config),
            "schema_hash": self.program.config.schema.hash(),
            "layout": layout_json(self.program.plan),
            "store_digest": self.store.digest,
            "encoding_digest": self.store.encoding_digest,
        }


class _Clock:
    """Time in training steps, without compilation, evaluation and checkpoints; and the part spent waiting for input."""

    def __init__(self) -> None:
        self._running: float | None = None
        self._seconds = self._lap_seconds = self._lap_waited = 0.0
        self._steps = self._lap_steps = 0
        self._first = True

    def wait_for(self, batches: Iterator[Any]) -> Any:
        now = time.monotonic()
        self.go_on()
        batch = next(batches)
        self._lap_waited += time.monotonic() - now
        self._lap_steps += 1
        return batch

    def stepped(self, state: TrainState) -> None:
        """After each step: the first one holds the compilation, so its time is dropped."""
        if self._first:
            jax.block_until_ready(state)
            self._running, self._lap_steps, self._lap_waited, self._first = None, 0, 0.0, False

    def lap(self, batch_size: int) -> tuple[float, float]:
        """Examples/s and waiting share since the last lap."""
        self.pause()
        seconds = max(self._lap_seconds, 1e-9)
        result = self._lap_steps * batch_size / seconds, self._lap_waited / seconds
        self._seconds += self._lap_seconds
        self._steps += self._lap_steps
        self._lap_seconds = self._lap_waited = 0.0
        self._lap_steps = 0
        return result

    def pause(self) -> None:
        if self._running is not None:
            self._lap_seconds += time.monotonic() - self._running
            self._running = None

    def go_on(self) -> None:
        if self._running is None:
            self._running = time.monotonic()

    def take(self) -> tuple[float, int]:
        """Seconds and steps of the finished laps since the last call."""
        result = self._seconds, self._steps
        self._seconds, self._steps = 0.0, 0
        return result


def _diverged(what: str, step: int) -> TrainingError:
    return TrainingError(
        f"{what} at step {step}: training diverged; lower --optimizer.learning-rate or the tables' learning rates, "
        "or set --optimizer.clip-norm. The last checkpoint is untouched"
    )


def _by_task(labels: tuple[str, ...], metrics: list[dict[str, float]]) -> dict[str, float]:
    if len(labels) == 1:
        return metrics[0]
    return {f"{name}/{label}": m[name] for label, m in zip(labels, metrics, strict=True) for name in m}


def _shown(metrics: dict[str, float]) -> str:
    names = (name for name in metrics if name.partition("/")[0].partition("@")[0] in SHOWN)
    return "  ".join(f"{name} {metrics[name]:.5f}" for name in names)
