"""SIGTERM and SIGINT taken by a function for a while."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def signals_to(note: Callable[[int], None], *, once: bool = False) -> Iterator[None]:
    """Inside the block `note` gets the number of every SIGTERM and SIGINT; with `once` further ones act as usual.

    Outside of the main thread nothing is taken: there, whoever runs us handles signals.
    """
    before: dict[int, Any] = {}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        note(number)
        if once:
            give_back()

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handle) for number in STOPPING}
    try:
        yield
    finally:
        give_back()
