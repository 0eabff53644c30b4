"""SIGTERM and SIGINT in the training loop: noted when they come, obeyed after a step, the same one in all processes."""

import contextlib
import signal
import time
from collections.abc import Iterator

from wukong_jax.agreement import exchange, process_count
from wukong_jax.signals import signals_to

ASK_SECONDS = 1.0
"""About how often the processes of a job ask each other whether a signal has arrived."""
GROWTH = 4
"""By how much the steps until the next question may grow at a time: the first ones are no measure of a step's time."""


class StoppedBySignal(Exception):
    """SIGTERM or SIGINT arrived; the run was saved and can be resumed."""

    def __init__(self, number: int, step: int) -> None:
        """Remember which signal, and after which step."""
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number, self.step = number, step


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Inside the block, SIGTERM and SIGINT are noted in the list; a second one acts as usual."""
    caught: list[int] = []
    with signals_to(caught.append, once=True):
        yield caught


class Stop:
    """Decides after which step a caught signal stops the run: at once in a single process, else in all by agreement.

    The processes ask each other about every `ASK_SECONDS`, after a number of steps that process 0 finds from the time
    of the last ones, so that a step without a question costs nothing.
    """

    def __init__(self, caught: list[int], step: int) -> None:
        """Start after `step`, watching the list of caught signals."""
        self._caught, self._asked, self._steps, self._when = caught, step, 1, time.monotonic()

    def after(self, step: int, *, ask: bool) -> int | None:
        """The number of the signal that stops the run after this step; `ask` as well at a step that takes longer.

        All processes must call it with the same arguments.
        """
        if process_count() == 1:
            return self._caught[0] if self._caught else None
        if not ask and step < self._asked + self._steps:
            return None
        found = exchange(lambda: [self._caught[:1], self._steps_ahead(step)])
        self._asked, self._steps, self._when = step, found[0][1], time.monotonic()
        return next((number for signals, _ in found for number in signals), None)

    def _steps_ahead(self, step: int) -> int:
        seconds_per_step = (time.monotonic() - self._when) / max(step - self._asked, 1)
        return max(1, min(int(ASK_SECONDS / max(seconds_per_step, 1e-9)), GROWTH * self._steps))
