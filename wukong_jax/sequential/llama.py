"""LLaMA-style decoder (Touvron et al. 2023, arXiv 2302.13971): RMSNorm first, rotary positions, SwiGLU, no biases.

    x^0_i = dropout(sqrt(d) e_i)
    y = x + dropout(W_O attention(rotate(W_Q n), rotate(W_K n), W_V n)),   n = RMSNorm(x)
    x' = y + dropout(W_down(SiLU(W_gate m) * W_up m)),                     m = RMSNorm(y)

and an RMSNorm behind the last block. RMSNorm has a learned scale and an epsilon of 1e-6. Kernels start Glorot-normal.
The scale sqrt(d) of the input and the dropout on each branch are ours, to match the other backbones.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from wukong_jax.config.sequential import LlamaConfig
from wukong_jax.ops.products import product
from wukong_jax.sequential.attention import rotate, softmax_attention
from wukong_jax.sequential.layers import (
    Parameters,
    Shapes,
    StackedBlocks,
    check_input,
    drop,
    dropout_key,
    embed_input,
    keep_valid,
    rms_norm,
    scan_blocks,
    split_key,
)

EPSILON = 1e-6


def llama_shapes(config: LlamaConfig) -> Shapes:
    """Initialiser and shape of each parameter of a block."""
    d, hidden = config.width, config.hidden_width
    kernel, ones = nn.initializers.glorot_normal(), nn.initializers.ones
    maps = {"query": (d, d), "key": (d, d), "value": (d, d), "output": (d, d)}
    maps |= {"gate": (d, hidden), "up": (d, hidden), "down": (hidden, d)}
    kernels = {f"{name}_kernel": (kernel, shape) for name, shape in maps.items()}
    return {**kernels, "attention_norm_scale": (ones, (d,)), "ffn_norm_scale": (ones, (d,))}


def llama_block(
    parameters: Parameters,
    x: Float[Array, "batch length width"],
    key: PRNGKeyArray | None,
    segments: Int[Array, "batch length"] | None,
    config: LlamaConfig,
) -> Float[Array, "batch length width"]:
    """One block; a key drops values."""
    dtype, (on_attention, on_ffn) = jnp.dtype(config.dtype), split_key(key, 2)

    def linear(name: str, x: jax.Array) -> jax.Array:
        return product("bli,io->blo", dtype, x, parameters[f"{name}_kernel"])

    def heads(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], config.num_heads, -1)

    normed = rms_norm(x, parameters["attention_norm_scale"], EPSILON)
    queries, keys = (rotate(heads(linear(name, normed)), config.rotary_base) for name in ("query", "key"))
    attended = softmax_attention(queries, keys, heads(linear("value", normed)), dtype, segments)
    x = x + drop(linear("output", attended.reshape(x.shape)), config.dropout, on_attention)
    normed = rms_norm(x, parameters["ffn_norm_scale"], EPSILON)
    gated = nn.silu(linear("gate", normed)) * linear("up", normed)
    return x + drop(linear("down", gated), config.dropout, on_ffn)


class Llama(nn.Module):
    """Blocks and a last RMSNorm."""

    config: LlamaConfig

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
        stacked = StackedBlocks(config.num_layers, llama_shapes(config), name="blocks")()
        scale = self.param("final_norm_scale", nn.initializers.ones, (config.width,))
        on_input, on_blocks = split_key(dropout_key(self, config.dropout, train), 2)
        x = embed_input(x, valid, None, segments, config.dropout, on_input)
        block = functools.partial(llama_block, segments=segments, config=config)
        x = scan_blocks(block, stacked, x, on_blocks, remat=config.remat)
        return keep_valid(rms_norm(x, scale, EPSILON), valid)
