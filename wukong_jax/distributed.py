"""The life of a job of several processes: they find each other, work, and end together or not at all.

What ends one process ends the job, within bounded time and with a message that says how to go on:

- bad input that all processes have seen (`SharedError`): they end together; process 0 prints it.
- an error or an interrupt in one process: it prints it and leaves at once, and the others find it gone.
- a process that is gone: a collective of the others fails at once (gloo notices the closed connection), or JAX's
  coordination service ends them: at once where process 0 is gone, else after `heartbeat_timeout`.
"""

import contextlib
import functools
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax

from wukong_jax.agreement import SharedError, exchange, leads, process_count, process_index, together
from wukong_jax.config.distributed import AUTO, DistributedConfig
from wukong_jax.errors import ConfigError, TrainingError, UserError
from wukong_jax.last_words import LastWords

LOST = re.compile("gloo|nccl|connection|peer|socket|unavailable|deadline|timed out|barrier|heartbeat", re.IGNORECASE)
"""What errors of JAX's runtime say when another process is gone."""
DISPATCHING = "Error dispatching computation: "
"""Stands before such a message once for each step under way."""
GO_ON = "start all processes again with the same command, and the run goes on from its last checkpoint"
LOST_CODE, INTERRUPTED_CODE, USER_CODE = 1, 130, 2

_last_words: LastWords | None = None


def run_job(config: DistributedConfig, work: Callable[[], int]) -> int:
    """Join the job, do this process's part of the work, leave with the others; the exit code is that of `work`.

    Without a coordinator this is a call of `work`. Raises `ConfigError` for a job that cannot be joined; every other
    error of a job ends the process here.
    """
    if not config.wanted:
        return work()
    start(config)
    with leaving_on_errors(SharedError, TrainingError):
        try:
            together(lambda: _check_processes(config))
            code = work()
        except (SharedError, TrainingError) as error:
            if leads():
                print(f"error: {error}", file=sys.stderr)
            code = USER_CODE
        finish()
    return code


def start(config: DistributedConfig) -> None:
    """Join the job before any device is touched; standard output is kept in process 0 only.

    Raises `ConfigError` if the coordinator cannot be reached in time, or if nothing says who the others are.
    """
    global _last_words
    who = "this process" if config.process is None else f"process {config.process} of {config.processes}"
    _last_words = LastWords()
    _last_words.set(
        f"error: {who} did not find all the others within {config.initialization_timeout} s (coordinator "
        f"{config.coordinator}); start all of them with the same coordinator and number of processes, each with its "
        "own number"
    )
    try:
        _initialize(config)
    except BaseException:
        _last_words.set("")
        raise
    if not leads():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _last_words.set(
        f"error: process {process_index()} of {process_count()} ended before the run did: another process is gone "
        f"(its output says more), or this one was killed; {GO_ON}"
    )


def finish() -> None:
    """Wait for the other processes, then take leave of them."""
    exchange(lambda: None)
    jax.distributed.shutdown()
    if _last_words is not None:
        _last_words.set("")
        _last_words.close()


@contextlib.contextmanager
def leaving_on_errors(*shared: type[BaseException]) -> Iterator[None]:
    """Leave the job at once on any error in the block but those of a type that all processes raise together.

    To be put where cleaning up would wait for the other processes. In a single process it does nothing.
    """
    try:
        yield
    except shared:
        raise
    except BaseException as error:
        if process_count() == 1:
            raise
        _leave(error)


def _leave(error: BaseException) -> NoReturn:
    """Say why, and end the process without waiting for anyone: the others may be gone, or wait for this one."""
    who = f"process {process_index()} of {process_count()}"
    if isinstance(error, UserError):
        words, code = f"error: {who}: {error}", USER_CODE
    elif isinstance(error, KeyboardInterrupt):
        words, code = f"{who} was interrupted; {GO_ON}", INTERRUPTED_CODE
    elif _is_lost(error):
        reason = " ".join(str(error).replace(DISPATCHING, "").split())[:200]
        words, code = f"error: {who}: another process is gone or cannot be reached ({reason}); {GO_ON}", LOST_CODE
    else:
        traceback.print_exception(error)
        words, code = f"error: {who} ended by the error above; {GO_ON}", LOST_CODE
    if _last_words is None:
        print(words, file=sys.stderr)
    else:
        _last_words.set(words)  # printed as the process ends, be it here or by JAX's runtime in this moment
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_lost(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that another process cannot be reached."""
    if error is None:
        return False
    of_runtime = isinstance(error, jax.errors.JaxRuntimeError | TimeoutError)
    return (of_runtime and LOST.search(str(error)) is not None) or _is_lost(error.__cause__)


def _initialize(config: DistributedConfig) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from the training loop
    initialize = functools.partial(
        jax.distributed.initialize,
        initialization_timeout=config.initialization_timeout,
        heartbeat_timeout_seconds=config.heartbeat_timeout,
        shutdown_timeout_seconds=config.heartbeat_timeout,
    )
    if config.coordinator == AUTO:
        try:
            initialize()
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"distributed.coordinator: auto found no job to join ({str(error).strip()}); expected a start by "
                "Slurm (srun), Open MPI (mpirun), Kubernetes or on TPU, see docs/distributed.md; else give host:port"
            ) from error
        return
    _check_reachable(config)
    # what was said by hand is not mixed with what a launcher may have left in the environment
    initialize(config.coordinator, config.processes, config.process, cluster_detection_method="deactivate")


def _check_processes(config: DistributedConfig) -> None:
    """Raise `ConfigError` where this process was told of another number of processes than process 0."""
    if config.processes not in (None, process_count()):
        raise ConfigError(
            f"distributed.processes: received {config.processes}, but process 0 was given {process_count()}; start all "
            "of them with the same number"
        )


def _check_reachable(config: DistributedConfig) -> None:
    """Raise `ConfigError` where JAX would abort: process 0 cannot listen, or the others cannot reach it in time."""
    host, port = config.address
    if config.process == 0:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise ConfigError(
                f"distributed.coordinator: process 0 cannot listen on port {port} ({error.strerror or error}); "
                "choose another port, for all processes"
            ) from error
        return
    ends = time.monotonic() + config.initialization_timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > ends:
                raise ConfigError(
                    f"distributed.coordinator: {config.coordinator} cannot be reached within "
                    f"{config.initialization_timeout} s ({error.strerror or error}); check the address, and that "
                    "process 0 was started there"
                ) from error
            time.sleep(0.2)
