import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from wukong_jax.last_words import LastWords

words = LastWords()
words.set("first")
words.set("the last")
print("working", file=sys.stderr, flush=True)
{end}
"""


def stderr_of(end: str) -> list[str]:
    """The lines of a program that ends so."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(end=end)], capture_output=True, text=True, timeout=60)
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os.abort()", "os._exit(0)", "os.kill(os.getpid(), signal.SIGTERM)"]
)
def test_the_last_message_is_printed_however_a_process_ends(end):
    assert stderr_of(end) == ["working", "the last"]


@pytest.mark.parametrize("end", ["words.set('')\nos._exit(1)", "words.set('')\nwords.close()"])
def test_a_message_that_was_taken_back_is_not_printed(end):
    assert stderr_of(end) == ["working"]


def test_closing_prints_and_a_lost_watcher_is_no_error():
    assert stderr_of("words.close()\nprint('after', file=sys.stderr)") == ["working", "the last", "after"]
    assert stderr_of("words._watcher.kill(); words._watcher.wait(); words.set('more')") == ["working"]
