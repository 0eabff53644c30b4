"""What the backbones share: stacked parameters, a scan over blocks, the input, norms."""

import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from wukong_jax.errors import ConfigError
from wukong_jax.ops.dropout import dropout
from wukong_jax.ops.layer_norm import SUMS_SCOPE

Parameters = Mapping[str, jax.Array]
Block = Callable[[Parameters, jax.Array, jax.Array | None], jax.Array]
Shapes = Mapping[str, tuple[nn.initializers.Initializer, tuple[int, ...]]]

# So few blocks are compiled without a loop, which stores what the backward pass needs: 46 against 68 ms of CPU time
# (SASRec, two blocks, 16 sequences of 200). A loop of eight gains nothing from two blocks a turn.
UNROLLED = 2


class StackedBlocks(nn.Module):
    """The parameters of all blocks, each array [layers, ...]; every block is initialised as if it were alone."""

    num_layers: int
    shapes: Shapes

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        """Parameters by name."""
        return {
            name: self.param(name, _each_layer(init), (self.num_layers, *shape))
            for name, (init, shape) in self.shapes.items()
        }


def _each_layer(init: nn.initializers.Initializer) -> Callable[[jax.Array, tuple[int, ...]], jax.Array]:
    def stacked(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.vmap(lambda key: init(key, shape[1:], jnp.float32))(jax.random.split(key, shape[0]))

    return stacked


def scan_blocks(
    block: Block,
    stacked: Parameters,
    x: Float[Array, "batch length width"],
    key: PRNGKeyArray | None,
    *,
    remat: bool,
) -> Float[Array, "batch length width"]:
    """Every block after another, x <- block(parameters of layer l, x, key of layer l), compiled once at any depth.

    `remat` keeps each block's input alone for the backward pass and computes the rest again.
    """
    layers = next(iter(stacked.values())).shape[0]
    keys = None if key is None else jax.random.split(key, layers)

    def step(x: jax.Array, layer: tuple[Parameters, jax.Array | None]) -> tuple[jax.Array, None]:
        return block(layer[0], x, layer[1]), None

    if remat:
        return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), x, (stacked, keys))[0]
    return jax.lax.scan(step, x, (stacked, keys), unroll=layers <= UNROLLED)[0]


def embed_input(
    x: Float[Array, "batch length width"],
    valid: Bool[Array, "batch length"],
    positions: Float[Array, "max_length width"] | None,
    segments: Int[Array, "batch length"] | None,
    rate: float,
    key: PRNGKeyArray | None,
) -> Float[Array, "batch length width"]:
    """dropout(sqrt(d) x_i + p_i), 0 at padding; i counts from the start of each segment."""
    x = x * math.sqrt(x.shape[-1])
    if positions is not None:
        x = x + (positions[: x.shape[1]] if segments is None else positions[_places(segments)])
    return keep_valid(drop(x, rate, key), valid)


def _places(segments: Int[Array, "batch length"]) -> Int[Array, "batch length"]:
    """How many positions of its segment come before each one."""
    index = jnp.arange(segments.shape[1])
    starts = jnp.pad(segments[:, 1:] != segments[:, :-1], [(0, 0), (1, 0)], constant_values=True)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)


def keep_valid(
    x: Float[Array, "batch length width"], valid: Bool[Array, "batch length"]
) -> Float[Array, "batch length width"]:
    """X with padding replaced by 0, whatever it holds."""
    return jnp.where(valid[:, :, None], x, 0)


def drop(x: Float[Array, "..."], rate: float, key: PRNGKeyArray | None) -> Float[Array, "..."]:
    """Dropout where there is a key, that is in training."""
    return x if key is None else dropout(x, rate, key)


def split_key(key: PRNGKeyArray | None, count: int) -> list[jax.Array] | list[None]:
    """`count` keys, or as many times None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def dropout_key(module: nn.Module, rate: float, train: bool) -> PRNGKeyArray | None:
    """The module's key `dropout` where values are dropped."""
    return module.make_rng("dropout") if train and rate else None


def position_init(width: int) -> nn.initializers.Initializer:
    """Truncated normal of standard deviation 1 / sqrt(width), so that p_i has a length of about 1."""
    return nn.initializers.truncated_normal(1 / math.sqrt(width))


def rms_norm(
    x: Float[Array, "batch length width"], scale: Float[Array, "width"], epsilon: float
) -> Float[Array, "batch length width"]:
    """X / sqrt(mean(x^2) + epsilon) * scale."""
    with jax.named_scope(SUMS_SCOPE):  # a product with a vector: XLA:CPU does not vectorise sums over the last axis
        mean_square = jnp.square(x) @ jnp.full(x.shape[-1], 1 / x.shape[-1], x.dtype)
    return x * jax.lax.rsqrt(mean_square + epsilon)[..., None] * scale


def check_input(x: jax.Array, times: jax.Array | None, max_length: int, *, width: int, reads_times: bool) -> None:
    """Raise `ConfigError` where a batch does not fit the model."""
    if x.shape[2] != width:
        raise ConfigError(f"model.width: received item vectors of width {x.shape[2]}, expected {width}")
    if x.shape[1] > max_length:
        raise ConfigError(
            f"model.max_length: received sequences of {x.shape[1]} items, expected at most {max_length}; give the "
            "last items alone, or raise model.max_length"
        )
    if times is not None and not reads_times:
        raise ConfigError("times: received some, but the model does not read them; leave them out, or use HSTUConfig")
