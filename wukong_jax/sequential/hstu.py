"""HSTU (Zhai et al., ICML 2024, arXiv 2402.17152): gated blocks of SiLU attention with relative biases.

As in the released research code (generative-recommenders), n the longest length:

    x^0_i = dropout(sqrt(d) e_i + p_i)
    u, v, q, k = split(SiLU(W_1 norm(x)))                                  (each of all heads)
    a_i = 1/n sum_{j<=i} SiLU(<q_i, k_j> + b[i-j] + c[bucket(r_i - t_j)]) v_j
    x' = x + W_2 dropout(u * norm(concat over heads of a)) + bias

norm is LayerNorm without scale and bias, epsilon 1e-6. b and c are of each block and shared by its heads; the time bias
c is there only where times are given. t_j is the time of item j; r_i is the time at which the item after i is asked
for: the released code takes that item's own time; without `request_times`, it is t_i. W_1 starts normal with a standard
deviation of 0.02 as do b and c, W_2 Glorot-uniform, its bias at 0.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32, PRNGKeyArray

from wukong_jax.config.sequential import HSTUConfig
from wukong_jax.ops.layer_norm import layer_norm
from wukong_jax.ops.products import product
from wukong_jax.sequential.attention import position_bias, silu_attention, time_buckets
from wukong_jax.sequential.layers import (
    Parameters,
    Shapes,
    StackedBlocks,
    check_input,
    drop,
    dropout_key,
    embed_input,
    keep_valid,
    position_init,
    scan_blocks,
    split_key,
)

EPSILON = 1e-6


def hstu_shapes(config: HSTUConfig, *, time_bias: bool) -> Shapes:
    """Initialiser and shape of each parameter of a block."""
    d, linear = config.width, config.num_heads * config.head_linear_dim
    attention = config.num_heads * config.head_attention_dim
    small = nn.initializers.normal(0.02)
    shapes: dict[str, tuple[nn.initializers.Initializer, tuple[int, ...]]] = {
        "uvqk_kernel": (small, (d, 2 * linear + 2 * attention)),
        "output_kernel": (nn.initializers.glorot_uniform(), (linear, d)),
        "output_bias": (nn.initializers.zeros, (d,)),
        "position_bias": (small, (config.max_length,)),
    }
    return shapes | ({"time_bias": (small, (config.time_buckets + 1,))} if time_bias else {})


def hstu_block(
    parameters: Parameters,
    x: Float[Array, "batch length width"],
    key: PRNGKeyArray | None,
    buckets: Int32[Array, "batch length length"] | None,
    segments: Int[Array, "batch length"] | None,
    config: HSTUConfig,
) -> Float[Array, "batch length width"]:
    """One block; a key drops values, time buckets need the parameter `time_bias`."""
    dtype, heads = jnp.dtype(config.dtype), config.num_heads
    linear, attention = heads * config.head_linear_dim, heads * config.head_attention_dim
    mapped = nn.silu(product("bli,io->blo", dtype, _norm(x), parameters["uvqk_kernel"]))
    gates, values, queries, keys = jnp.split(mapped, (linear, 2 * linear, 2 * linear + attention), axis=-1)
    bias = position_bias(parameters["position_bias"], x.shape[1])
    if buckets is not None:
        bias = bias + parameters["time_bias"][buckets]
    queries, keys, values = (part.reshape(*x.shape[:2], heads, -1) for part in (queries, keys, values))
    attended = silu_attention(queries, keys, values, bias, config.max_length, dtype, segments)
    gated = drop(gates * _norm(attended.reshape(gates.shape)), config.dropout, key)
    return x + product("bli,io->blo", dtype, gated, parameters["output_kernel"]) + parameters["output_bias"]


def _norm(x: Float[Array, "batch length values"]) -> Float[Array, "batch length values"]:
    return layer_norm(x, jnp.ones(x.shape[-1], x.dtype), jnp.zeros(x.shape[-1], x.dtype), EPSILON)


class HSTU(nn.Module):
    """Learned positions and blocks; with times at initialisation, a time bias."""

    config: HSTUConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        valid: Bool[Array, "batch length"],
        times: Int[Array, "batch length"] | None = None,
        request_times: Int[Array, "batch length"] | None = None,
        segments: Int[Array, "batch length"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "batch length width"]:
        """User vectors, float32, 0 at padding; times in seconds."""
        config = self.config
        check_input(x, times, config.max_length, width=config.width, reads_times=True)
        positions, buckets = None, None
        if config.positions:
            positions = self.param("positions", position_init(config.width), (config.max_length, config.width))
        if times is not None:
            buckets = time_buckets(times, times if request_times is None else request_times, config.time_buckets)
        shapes = hstu_shapes(config, time_bias=times is not None)
        stacked = StackedBlocks(config.num_layers, shapes, name="blocks")()
        on_input, on_blocks = split_key(dropout_key(self, config.dropout, train), 2)
        x = embed_input(x, valid, positions, segments, config.dropout, on_input)
        block = functools.partial(hstu_block, buckets=buckets, segments=segments, config=config)
        return keep_valid(scan_blocks(block, stacked, x, on_blocks, remat=config.remat), valid)
