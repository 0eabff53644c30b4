"""SASRec (Kang and McAuley, ICDM 2018): blocks of causal softmax attention and a feed-forward network.

Our reading is the variant of pmixer/SASRec.pytorch and generative-recommenders, where the residual of the attention
starts from the normalised queries:

    x^0_i = dropout(sqrt(d) e_i + p_i)
    q = LN(x);  a = q + W_O attention(W_Q q, W_K x, W_V x)        (heads; dropout on the attention weights)
    f = LN(a);  x' = f + dropout(W_2 dropout(ReLU(W_1 f)))

All maps have biases; LN has an epsilon of 1e-8; there is no LN behind the last block. Kernels start Glorot-normal,
biases at 0.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from wukong_jax.config.sequential import SASRecConfig
from wukong_jax.ops.layer_norm import layer_norm
from wukong_jax.ops.products import product
from wukong_jax.sequential.attention import softmax_attention
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

EPSILON = 1e-8


def sasrec_shapes(config: SASRecConfig) -> Shapes:
    """Initialiser and shape of each parameter of a block."""
    d, hidden = config.width, config.hidden_width
    kernel, zeros, ones = nn.initializers.glorot_normal(), nn.initializers.zeros, nn.initializers.ones
    maps = {
        "query": (d, d),
        "key": (d, d),
        "value": (d, d),
        "output": (d, d),
        "hidden": (d, hidden),
        "last": (hidden, d),
    }
    kernels = {f"{name}_kernel": (kernel, shape) for name, shape in maps.items()}
    biases = {f"{name}_bias": (zeros, shape[1:]) for name, shape in maps.items()}
    norms = {f"{name}_scale": (ones, (d,)) for name in ("attention_norm", "ffn_norm")}
    return {**kernels, **biases, **norms, **{name.replace("scale", "bias"): (zeros, (d,)) for name in norms}}


def sasrec_block(
    parameters: Parameters,
    x: Float[Array, "batch length width"],
    key: PRNGKeyArray | None,
    segments: Int[Array, "batch length"] | None,
    config: SASRecConfig,
) -> Float[Array, "batch length width"]:
    """One block; a key drops values."""
    dtype, (on_weights, on_hidden, on_output) = jnp.dtype(config.dtype), split_key(key, 3)

    def linear(name: str, x: jax.Array) -> jax.Array:
        return product("bli,io->blo", dtype, x, parameters[f"{name}_kernel"]) + parameters[f"{name}_bias"]

    def norm(name: str, x: jax.Array) -> jax.Array:
        return layer_norm(x, parameters[f"{name}_scale"], parameters[f"{name}_bias"], EPSILON)

    def heads(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], config.num_heads, -1)

    start = norm("attention_norm", x)
    queries, keys, values = heads(linear("query", start)), heads(linear("key", x)), heads(linear("value", x))
    attended = softmax_attention(queries, keys, values, dtype, segments, config.dropout, on_weights)
    x = norm("ffn_norm", start + linear("output", attended.reshape(x.shape)))
    hidden = drop(nn.relu(linear("hidden", x)), config.dropout, on_hidden)
    return x + drop(linear("last", hidden), config.dropout, on_output)


class SASRec(nn.Module):
    """Learned positions and blocks."""

    config: SASRecConfig

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
        """User vectors, float32, 0 at padding; raises `ConfigError` for times, which it does not read."""
        config = self.config
        check_input(x, times, config.max_length, width=config.width, reads_times=False)
        positions = None
        if config.positions:
            positions = self.param("positions", position_init(config.width), (config.max_length, config.width))
        stacked = StackedBlocks(config.num_layers, sasrec_shapes(config), name="blocks")()
        on_input, on_blocks = split_key(dropout_key(self, config.dropout, train), 2)
        x = embed_input(x, valid, positions, segments, config.dropout, on_input)
        block = functools.partial(sasrec_block, segments=segments, config=config)
        return keep_valid(scan_blocks(block, stacked, x, on_blocks, remat=config.remat), valid)
