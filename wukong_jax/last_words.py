"""A message that is printed when a process ends unexpectedly, even if it is killed or aborts outside of Python.

JAX's runtime ends a process by abort() when another process of its job is gone, and no Python code runs then. A small
child process therefore holds the message, and prints it when its pipe is closed before the message was taken back.
"""

import contextlib
import subprocess
import sys

WATCHER = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
last = sys.stdin.buffer.read().split(b"\\0")[-2:-1]
if last and last[0]:
    sys.stderr.buffer.write(last[0] + b"\\n")
"""


class LastWords:
    """Prints the latest of its messages to the standard error when this process ends, however it ends."""

    def __init__(self) -> None:
        """Start the child that prints; there is no message yet."""
        command = [sys.executable, "-I", "-S", "-c", WATCHER]
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def set(self, message: str) -> None:
        """Replace the message; an empty one takes it back."""
        assert self._watcher.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody ended the child
            self._watcher.stdin.write(message.encode() + b"\0")
            self._watcher.stdin.flush()

    def close(self) -> None:
        """End the child, which prints the message if there is one."""
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()
