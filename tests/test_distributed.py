"""How a process of a job takes leave; two real processes are in tests/training/test_shard_processes.py."""

import socket

import jax
import pytest

from wukong_jax import distributed
from wukong_jax.agreement import SharedError
from wukong_jax.config.distributed import DistributedConfig
from wukong_jax.distributed import _check_reachable, leaving_on_errors, run_job
from wukong_jax.errors import CheckpointError, ConfigError, TrainingError

LOST = "INTERNAL: Error dispatching computation: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:37507"


class Left(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def job(monkeypatch):
    """This process as number 1 of 2; its end is noted instead."""
    left = []

    def leave(code):
        left.append(code)
        raise Left

    monkeypatch.setattr(distributed, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "process_index", lambda: 1)
    monkeypatch.setattr(distributed.os, "_exit", leave)
    return left


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CheckpointError("disk full"), 2, "error: process 1 of 2: disk full"),
        (KeyboardInterrupt(), 130, "process 1 of 2 was interrupted; start all processes again"),
        (
            jax.errors.JaxRuntimeError(LOST),
            1,
            "another process is gone or cannot be reached (INTERNAL: Gloo all-reduce",
        ),
        (TimeoutError("Timed out while waiting for barrier"), 1, "another process is gone"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), 1, "ended by the error above; start all"),
        (ValueError("a peer of the connection"), 1, "ended by the error above"),
    ],
)
def test_an_error_of_one_process_ends_it_at_once_and_says_how_to_go_on(job, capsys, error, code, words):
    with pytest.raises(Left), leaving_on_errors(SharedError):
        raising(error)
    assert job == [code]
    printed = capsys.readouterr().err
    assert words in printed
    assert ("Traceback" in printed) == ("above" in words)


def test_a_lost_process_is_seen_behind_another_error(job, capsys):
    wrapped = RuntimeError("the write failed")
    wrapped.__cause__ = jax.errors.JaxRuntimeError("UNAVAILABLE: socket closed")
    with pytest.raises(Left), leaving_on_errors():
        raising(wrapped)
    assert "another process is gone" in capsys.readouterr().err


def test_what_all_processes_raise_together_passes(job):
    for error in (SharedError("all"), TrainingError("diverged")):
        with pytest.raises(type(error)), leaving_on_errors(SharedError, TrainingError):
            raising(error)
    assert job == []


def test_a_single_process_is_left_alone():
    with pytest.raises(CheckpointError), leaving_on_errors(SharedError):
        raising(CheckpointError("disk full"))
    assert run_job(DistributedConfig(), lambda: 7) == 7
    with pytest.raises(ConfigError):
        run_job(DistributedConfig(), lambda: raising(ConfigError("bad")))


def test_a_port_in_use_and_an_address_without_a_listener_are_refused():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on port {port}"):
            _check_reachable(DistributedConfig(f"localhost:{port}", 2, 0))
        _check_reachable(DistributedConfig(f"localhost:{port}", 2, 1))
    with pytest.raises(ConfigError, match=r"cannot be reached within 1 s .*process 0 was started there"):
        _check_reachable(DistributedConfig(f"localhost:{port}", 2, 1, initialization_timeout=1))
    _check_reachable(DistributedConfig(f"localhost:{port}", 2, 0))
