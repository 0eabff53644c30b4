"""Calls on Ray: in processes of this machine, or on the nodes of a cluster. Ray is imported when it is used."""

import importlib
import os
import pathlib
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl

import wukong_jax
from wukong_jax.errors import ConfigError, DataError, UserError

RETRIES = 3
CONNECT_SECONDS = 10.0
OBJECT_STORE_BYTES = 128 << 20  # arguments and results are small, all else goes through files
T = TypeVar("T")
R = TypeVar("R")


class _Failed(NamedTuple):
    """The user's mistake, found by a worker; Ray would wrap an exception in its own."""

    error: UserError


class _Place(NamedTuple):
    """The driver's working folder, and the versions of packages that its workers must have too."""

    folder: str
    versions: dict[str, str]


class RayEngine:
    """Used as a context manager that connects to Ray, or starts it on this machine where no address is given.

    A call whose process dies is made again, up to `RETRIES` times. Raises `ConfigError` without Ray, or where it cannot
    be reached.
    """

    def __init__(self, address: str | None = None, workers: int | None = None):
        if workers is not None and workers < 1:
            raise ConfigError(f"--workers: received {workers}, expected at least 1")
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigError(
                f'--engine ray: Ray is not installed ({error}); `pip install -e ".[ray]"` or `pip install ray`'
            ) from error
        self._address, self._workers = address, workers

    @property
    def workers(self) -> int:
        """Calls that run at a time: as many as asked for, or as Ray has processors."""
        return self._workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def __enter__(self) -> "RayEngine":
        """Connect or start."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else a started Ray reports to its makers
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's own default to come; else it warns
        # A call counts as one processor; Polars would start as many threads as the machine has.
        environment: dict[str, Any] = {"env_vars": {"POLARS_MAX_THREADS": "1"}}
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": environment}
        if self._address is None:
            options |= {"address": "local", "num_cpus": self._workers, "include_dashboard": False}
            options |= {"object_store_memory": OBJECT_STORE_BYTES}
        else:
            _check_reachable(self._address)
            options |= {"address": self._address}
            environment["py_modules"] = [str(pathlib.Path(wukong_jax.__file__).parent)]  # the nodes run this very code
        try:
            self._ray.init(**options)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            where = "Ray cannot be started here" if self._address is None else f"--ray-address {self._address}"
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConfigError(
                f"{where}: {reason}; check the address, or leave it out for this machine alone"
            ) from error
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Disconnect; a Ray started here ends."""
        self._ray.shutdown()

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Results in the order of `items`; the `UserError` raised is that of the first item that has one.

        Items are started in their order, so that the first error is known when those before it are done. Calls that
        still run then are left alone: Ray 2.60 may abort the driver when one is cancelled.
        """
        call = self._ray.remote(max_retries=RETRIES, num_cpus=1)(_call)
        here = _Place(str(pathlib.Path.cwd()), _versions())
        running: dict[Any, int] = {}
        results: dict[int, R | _Failed] = {}
        started, limit, failed = 0, self.workers, False
        for i in range(len(items)):
            while i not in results:
                while started < len(items) and len(running) < limit and not failed:
                    running[call.remote(function, items[started], here)] = started
                    started += 1
                done, _ = self._ray.wait(list(running), num_returns=1)
                result = self._result(done[0])
                failed |= isinstance(result, _Failed)
                results[running.pop(done[0])] = result
            result = results.pop(i)
            if isinstance(result, _Failed):
                raise result.error
            yield result

    def _result(self, reference: Any) -> Any:
        crashes = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except (crashes.WorkerCrashedError, crashes.OutOfMemoryError, crashes.NodeDiedError) as error:
            return _Failed(
                DataError(
                    f"a worker of Ray died {RETRIES + 1} times over one shard ({type(error).__name__}); most often "
                    "memory is short: give fewer --workers, or nodes with more of it"
                )
            )
        except crashes.RayError as error:
            if isinstance(error, crashes.RayTaskError) and not isinstance(error, crashes.RaySystemError):
                raise  # a mistake of this package, with its place
            first = next((line for line in str(error).splitlines() if "rror: " in line), type(error).__name__)
            return _Failed(
                DataError(f"Ray could not run a shard ({first}); every node needs the packages of requirements.txt")
            )


def _check_reachable(address: str) -> None:
    """Raise `ConfigError` where nothing answers at an address HOST:PORT, for which Ray would wait many minutes."""
    place = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    try:
        if place is not None:
            socket.create_connection((place[1], int(place[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray-address {address}: nothing answers there ({error}); start Ray there (ray start --head), "
            "or mend the address"
        ) from error


def _versions() -> dict[str, str]:
    """Versions that decide the bytes of a store."""
    return {"numpy": np.__version__, "polars": pl.__version__}


def _call(function: Callable[[Any], Any], item: Any, driver: _Place) -> Any:
    """Call in the driver's working folder, so that relative paths mean, and errors say, the same."""
    node = socket.gethostname()
    if _versions() != driver.versions:
        return _Failed(ConfigError(f"{node} has {_versions()}, expected {driver.versions} as here; install the same"))
    try:
        if str(pathlib.Path.cwd()) != driver.folder:
            os.chdir(driver.folder)
    except OSError as error:
        reason = f"{driver.folder} cannot be entered on {node}: {error.strerror}"
        return _Failed(DataError(f"{reason}; run prepare from a folder that every node sees under this path"))
    try:
        return function(item)
    except UserError as error:
        return _Failed(error)
