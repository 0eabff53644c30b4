"""One run of a sweep, or the timing of steps, in a process of its own: `python -m wukong_jax.scaling.sweep_worker`.

The task is a line of JSON on standard input. The command keeps that pipe open; when it closes it, or dies in whatever
way, the worker saves and ends. Signals are left to the command: a terminal or a cluster's scheduler sends them to all
processes at once, and a second one would cut off the saving that the first began.
"""

import _thread
import json
import os
import pathlib
import shutil
import signal
import sys
import threading
from typing import Any

from wukong_jax.process import prepare_process

LEFT_TO_THE_COMMAND = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TAKEN = 75
"""Exit code when another process is training the run."""
STOPPED = 128 + signal.SIGTERM


def main() -> int:
    """Do the task; exit code 0 when the run has a record or diverged, `TAKEN`, `STOPPED`, or 2 for bad input."""
    signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_COMMAND)
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        line = pipe.readline()
    if not line:  # the command died before it gave the task
        return STOPPED
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    task: dict[str, Any] = json.loads(line)
    if task["cores"] is not None:
        os.sched_setaffinity(0, task["cores"])  # before jax starts its threads, one a core
    prepare_process()
    if task["kind"] == "time":
        from wukong_jax.scaling.sweep_timing import print_timings

        print_timings(task["configs"], task["seconds"])
        return 0
    return _train(task)


def _end_with_the_command() -> None:
    """Wait until the pipe is closed; then stop as by a signal."""
    while os.read(0, 1024):
        pass
    if callable(signal.getsignal(signal.SIGTERM)):  # the training loop's: it saves after the step
        _thread.interrupt_main(signal.SIGTERM)
    else:
        os._exit(STOPPED)


def _train(task: dict[str, Any]) -> int:
    import jax
    import rich.console

    from wukong_jax.config.codec import from_plain
    from wukong_jax.errors import BusyError, TrainingError, UserError
    from wukong_jax.scaling.sweep import Point
    from wukong_jax.scaling.sweep_records import save_failure, save_run
    from wukong_jax.training.loop import StoppedBySignal
    from wukong_jax.training.run import CHECKPOINTS, train

    point = from_plain(Point, task["point"])
    folder, records = pathlib.Path(task["folder"]), pathlib.Path(task["records"])
    try:
        record = train(point.config, folder, rich.console.Console(file=sys.stdout))
        save_run(records, point, record)
        if not task["keep"]:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    except StoppedBySignal as stopped:
        print(f"{stopped}; saved")
        return STOPPED
    except TrainingError as error:
        save_failure(records, point, str(error))
        print(f"error: {error}")
    except BusyError as error:
        print(error)
        return TAKEN
    except (UserError, jax.errors.JaxRuntimeError) as error:  # the last one: out of memory
        print(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
