"""An iterator run ahead in a thread of its own, so that reading overlaps with what is done with the items."""

import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def prefetched(items: Iterator[T], depth: int = 1) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them ahead; an error is raised where it would have been."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:
            put((None, error))
            return
        put(None)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            item, error = entry
            if error is not None:
                raise error
            yield item
    finally:
        stop.set()
        thread.join()
