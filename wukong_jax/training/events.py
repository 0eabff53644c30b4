"""TensorBoard events of a run, where they are wanted."""

import pathlib

from wukong_jax.errors import ConfigError


class EventLog:
    """Writes every metric as a TensorBoard scalar `<metric>/<split>`; does nothing without a folder."""

    def __init__(self, folder: pathlib.Path | None, after_step: int = 0) -> None:
        """Open the folder, dropping the points after `after_step`, which come again when a run is resumed.

        Raises `ConfigError` if tensorboardX is not installed.
        """
        self._writer = None
        if folder is None:
            return
        try:
            from tensorboardX import SummaryWriter  # an extra, and slow to import
        except ImportError as error:
            raise ConfigError(
                "train.tensorboard: tensorboardX is not installed; `pip install tensorboardX`, or leave the option out"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=after_step + 1 if after_step else None)

    def write(self, split: str, step: int, metrics: dict[str, float]) -> None:
        """Add a point to each metric's curve."""
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(f"{name}/{split}", value, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
