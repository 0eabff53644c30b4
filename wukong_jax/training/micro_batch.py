"""A batch worked off in equal parts inside one jitted step: less memory, and arrays that stay in the CPU's caches."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.errors import ConfigError
from wukong_jax.models.embedding_layer import count_embeddings

# By trials on two processors: one layer's embeddings X, float32, fill about the second-level caches.
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


def check_lookup_ahead(config: RunConfig, part: int) -> None:
    """Raise `ConfigError` where rows are to be looked up ahead and there is no part before: `part` is the batch."""
    if config.mesh.lookup_ahead and part == config.train.batch_size:
        raise ConfigError(
            f"mesh.lookup_ahead: received True, but a batch is worked off whole with train.micro_batch="
            f"{config.train.micro_batch!r}; set that to a divisor of the batch of {part}, its half for example"
        )


def evaluation_part(config: RunConfig, platform: str, rows: int) -> int:
    """Like `micro_batch_size` for a batch of evaluation, whose rows do not depend on each other."""
    if config.train.micro_batch != "auto" or platform != "cpu" or config.mesh.devices > 1:
        return rows
    return _largest_divisor(rows, _examples_in_cache(config))


def split(batch: Batch, parts: int) -> Batch:
    """[batch, ...] as [parts, batch / parts, ...]; part i has the examples i, i + parts, i + 2 parts, ...

    So a batch whose rows are spread over devices stays spread in every part.
    """
    return Batch(*(split_array(array, parts) for array in batch))


def split_array(array: jax.Array, parts: int) -> jax.Array:
    """`split` for one array [batch, ...]."""
    return array.reshape(array.shape[0] // parts, parts, *array.shape[1:]).swapaxes(0, 1)


def joined(parts: jax.Array) -> jax.Array:
    """Inverse of `split` for one array [parts, batch / parts, ...]."""
    return parts.swapaxes(0, 1).reshape(parts.shape[0] * parts.shape[1], *parts.shape[2:])


def scan_parts(
    work_off: Callable[[Any, Batch, Any, jax.Array], tuple[Any, Any]],
    sums: Any,
    parts: Batch,
    look_up: Callable[[jax.Array], Any] | dict[str, jax.Array],
    *,
    ahead: bool,
) -> tuple[Any, Any]:
    """Fold `work_off(sums, part, its rows, its number)` over the parts of a batch: the sums, and what it gave, stacked.

    The rows are `look_up(ids)`, or given, in parts. With `ahead` those of the next part are looked up beside the work
    on this one. Neither waits for the other, and the tables are the same in either order.
    """
    numbered = (parts, jnp.arange(parts.ids.shape[0]))
    if isinstance(look_up, dict):
        return jax.lax.scan(lambda sums, item: work_off(sums, item[0], item[2], item[1]), sums, (*numbered, look_up))

    def look_up_now(sums: Any, item: tuple[Batch, jax.Array]) -> tuple[Any, Any]:
        part, number = item
        return work_off(sums, part, look_up(part.ids), number)

    def look_up_next(carry: tuple[Any, Any], item: tuple[Batch, jax.Array, jax.Array]) -> tuple[tuple[Any, Any], Any]:
        (sums, rows), (part, number, next_ids) = carry, item
        next_rows = look_up(next_ids)
        sums, found = work_off(sums, part, rows, number)
        return (sums, next_rows), found

    count = parts.ids.shape[0]
    if not ahead:
        return jax.lax.scan(look_up_now, sums, numbered)
    all_but_last, last = (jax.tree.map(lambda x, at=at: x[at], numbered) for at in (slice(count - 1), count - 1))
    (sums, rows), found = jax.lax.scan(look_up_next, (sums, look_up(parts.ids[0])), (*all_but_last, parts.ids[1:]))
    sums, of_last = work_off(sums, last[0], rows, last[1])
    return sums, jax.tree.map(lambda several, one: jnp.concatenate([several, one[None]]), found, of_last)


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
