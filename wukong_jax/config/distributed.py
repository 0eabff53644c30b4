"""How the processes of one job find each other: where they run decides no result, so it is no part of a `RunConfig`."""

import dataclasses

from wukong_jax.config.checks import check_positive
from wukong_jax.errors import ConfigError

AUTO = "auto"
LAST_PORT = 65535


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Several processes that train one run together, on one machine or many."""

    coordinator: str | None = None
    """host:port where process 0 listens, the same for all processes; `auto` under Slurm, Open MPI, Kubernetes or on
    TPU; None for a single process."""
    processes: int | None = None
    """Processes in all, with a coordinator of host:port."""
    process: int | None = None
    """Number of this process, from 0, with a coordinator of host:port."""
    heartbeat_timeout: int = 60
    """Seconds without a sign of life after which a process counts as dead, and the job ends."""
    initialization_timeout: int = 300
    """Seconds that processes wait for each other at the start."""

    def __post_init__(self) -> None:
        """Check that the settings are whole; raises `ConfigError`."""
        for name in ("heartbeat_timeout", "initialization_timeout"):
            check_positive(f"distributed.{name}", getattr(self, name))
        if self.coordinator is None or self.coordinator == AUTO:
            self._check_no_numbers()
        else:
            self._check_address(self.coordinator)
            self._check_numbers()

    @property
    def wanted(self) -> bool:
        """Whether this process is one of a job."""
        return self.coordinator is not None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a coordinator that is no `auto`."""
        assert self.coordinator is not None
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)

    def _check_no_numbers(self) -> None:
        for name in ("processes", "process"):
            value = getattr(self, name)
            if value is None:
                continue
            if self.coordinator == AUTO:
                raise ConfigError(
                    f"distributed.{name}: received {value}, but with --distributed.coordinator auto the launcher says "
                    "so; leave it out, or give the coordinator as host:port"
                )
            raise ConfigError(
                f"distributed.{name}: received {value} without a coordinator; give its address too, for example "
                "--distributed.coordinator localhost:9876"
            )

    def _check_address(self, coordinator: str) -> None:
        host, _, port = coordinator.rpartition(":")
        if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) <= LAST_PORT):
            raise ConfigError(
                f"distributed.coordinator: received {coordinator!r}, expected host:port with a port of 1 to "
                f"{LAST_PORT}, for example node1:9876, or auto"
            )

    def _check_numbers(self) -> None:
        if self.processes is None or self.process is None:
            missing = [f"--distributed.{name}" for name in ("processes", "process") if getattr(self, name) is None]
            raise ConfigError(
                f"distributed.coordinator: received {self.coordinator!r} without {' and '.join(missing)}; give the "
                "number of processes, and to each process its own number from 0"
            )
        check_positive("distributed.processes", self.processes)
        if not 0 <= self.process < self.processes:
            raise ConfigError(
                f"distributed.process: received {self.process}, expected 0 to {self.processes - 1}: there are "
                f"{self.processes} processes, numbered from 0"
            )
