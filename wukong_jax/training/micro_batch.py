"""A batch worked off in equal parts inside one jitted step: less memory, and arrays that stay in the CPU's caches."""

import dataclasses
from typing import Any

import jax

from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.errors import ConfigError
from wukong_jax.models.embedding_layer import count_embeddings

# Measured best on CPU (docs/performance.md): one layer's embeddings X, float32, fill about the second-level caches.
CPU_BYTES, CPU_EXAMPLES = 8 * 2**20, 1024


def micro_batch_size(config: RunConfig, platform: str, batch_size: int) -> int:
    """Examples worked off at a time, a divisor of the batch; the batch itself where it is not cut.

    `auto` cuts on CPU only, and only Wukong without BatchNorm, whose statistics are those of the whole batch.
    Raises `ConfigError` for a size that does not divide the batch or meets BatchNorm.
    """
    asked = config.train.micro_batch
    if asked is None:
        return batch_size
    if asked == "auto":
        one_by_one = platform != "cpu" or config.mesh.devices > 1 or has_setting(config.model, "batch_norm")
        return batch_size if one_by_one else _largest_divisor(batch_size, _examples_in_cache(config))
    if batch_size % asked:
        raise ConfigError(
            f"train.micro_batch: received {asked}, expected a divisor of the batch of {batch_size}, auto or None"
        )
    if asked % config.mesh.devices:
        raise ConfigError(
            f"train.micro_batch: received {asked}, expected a multiple of the {config.mesh.devices} devices of the mesh"
        )
    if asked < batch_size and has_setting(config.model, "batch_norm"):
        raise ConfigError(
            f"train.micro_batch: received {asked}, but BatchNorm needs the statistics of the whole batch; "
            "set it to None, or mlp.batch_norm to False"
        )
    return asked


def evaluation_part(config: RunConfig, platform: str, rows: int) -> int:
    """Like `micro_batch_size` for a batch of evaluation, whose rows do not depend on each other."""
    if config.train.micro_batch != "auto" or platform != "cpu" or config.mesh.devices > 1:
        return rows
    return _largest_divisor(rows, _examples_in_cache(config))


def split(batch: Batch, parts: int) -> Batch:
    """[batch, ...] as [parts, batch / parts, ...]; part i has the examples i, i + parts, i + 2 parts, ...

    So a batch whose rows are spread over devices stays spread in every part.
    """
    rows = batch.ids.shape[0] // parts
    return Batch(*(array.reshape(rows, parts, *array.shape[1:]).swapaxes(0, 1) for array in batch))


def joined(parts: jax.Array) -> jax.Array:
    """Inverse of `split` for one array [parts, batch / parts, ...]."""
    return parts.swapaxes(0, 1).reshape(parts.shape[0] * parts.shape[1], *parts.shape[2:])


def has_setting(config: Any, *names: str) -> bool:
    """Whether any part of a model config has one of these settings on: `dropout`, `batch_norm`."""
    if isinstance(config, tuple):
        return any(has_setting(item, *names) for item in config)
    if not dataclasses.is_dataclass(config):
        return False
    own = any(getattr(config, name, False) for name in names)
    return own or any(has_setting(getattr(config, field.name), *names) for field in dataclasses.fields(config))


def _examples_in_cache(config: RunConfig) -> int:
    if not isinstance(config.model, WukongConfig):
        return 2**31  # nothing is gained by cutting
    model = config.model
    layers = [model.layer(index) for index in range(model.num_layers)]
    inputs = count_embeddings(config.batch_schema, model.embedding)
    n = max([inputs, *(layer.num_fmb + layer.num_lcb for layer in layers)])
    return min(max(64, CPU_BYTES // (4 * n * model.width)), CPU_EXAMPLES)


def _largest_divisor(size: int, limit: int) -> int:
    """At most `limit`; all of `size` where that would leave crumbs, as with a prime number."""
    found = next(size // parts for parts in range(1, size + 1) if size % parts == 0 and size // parts <= limit)
    return found if found >= limit // 8 else size
