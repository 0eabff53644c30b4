"""Low-rank FM with LayerNorm on Hopper GPUs: Pallas Mosaic GPU, wgmma in bfloat16, sums in float32. Opt-in, unmeasured.

Written without a GPU at hand: the numbers are checked in Pallas' interpret mode and the kernels are lowered for cuda,
but never ran on one. A block is one warpgroup with one example; several on a multiprocessor hide each other's waits.

    P = X^T Y    F = X P    h = (F - mean) rstd    out = h scale + bias      (mean and rstd over all n k values)

- Forward, one example after another: X goes to shared memory once and all products read it there.
- Backward, kernel 1, one example after another: P again, c1 = mean(dh), c2 = mean(dh h) with dh = dout scale, then
  dP = X^T dF with dF = rstd (dh - c1 - h c2). It writes P, dP [d, k] and c1, c2.
- Backward, kernel 2, one block of 64 rows of X over a share of the examples: dX = dF P^T + Y dP^T, and in registers
  the sums dY = X dP, dscale = dout h, dbias = dout. No atomics: deterministic. It reads X and dout a second time.

P, dF and dP are rounded to bfloat16 where they are operands of a product; float32 inputs are refused, not rounded.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, BFloat16, Float, Float32

from wukong_jax.errors import ConfigError
from wukong_jax.ops.fm_hopper_pieces import (
    ROWS,
    SCRATCH_BYTES,
    SHARED_BYTES,
    Sizes,
    block_of,
    clear_last_block,
    kernel,
    load,
    load_rows,
    padded,
    product,
    product_left_transposed,
    product_right_transposed,
    read,
    real,
    statistics,
    store,
    store_rows,
    total,
    y_blocks,
)

MAX_D, MAX_K = 192, 96  # above these the accumulators of one warpgroup leave no registers
EXAMPLES = 8  # one block of the forward takes these in turn and loads Y once
BLOCKS = 4 * 132  # of kernel 2: a few for each multiprocessor of an H100


def _problem(n: int, d: int, k: int, dtype: Any) -> str | None:
    """Why the kernels cannot serve a shape; None where they can."""
    if jnp.dtype(dtype) != jnp.bfloat16:
        return f"dtype is {jnp.dtype(dtype)}, the kernel takes bfloat16 (use that compute dtype"
    if d > MAX_D or k > MAX_K:
        return f"n={n}, d={d}, k={k}: the registers hold d <= {MAX_D} and k <= {MAX_K} (lower them"
    needed = 2 * Sizes(1, n, d, k).shared_elements(ROWS) + SCRATCH_BYTES
    if needed > SHARED_BYTES:
        return f"n={n}, d={d}, k={k} needs {needed} bytes of shared memory, a block has {SHARED_BYTES} (lower n or d"
    return None


def fm_layer_norm(
    x: Float[Array, "batch n d"],
    y: Float[Array, "n k"],
    scale: Float[Array, " n_k"],
    bias: Float[Array, " n_k"],
    epsilon: float,
    *,
    interpret: bool = False,
) -> Float[Array, "batch n_k"]:
    """LayerNorm(flatten(X (X^T Y))) scale + bias, bfloat16 in and out; differentiable in all four arrays.

    An n that is no multiple of 8, or a d below 64 or no multiple of 16, costs a padded copy of X; a k that is no
    multiple of 8 one of the result, of 16 one of its gradient. ConfigError: a dtype or shape that is not served.
    """
    n, d = x.shape[1:]
    if problem := _problem(n, d, y.shape[1], x.dtype):
        raise ConfigError(f'implementation="mosaic_gpu": {problem}, or use implementation="xla")')
    if y.dtype != x.dtype:
        raise ConfigError(
            f'implementation="mosaic_gpu": y is {y.dtype}, x is {x.dtype}; cast y, or use implementation="xla"'
        )
    return _fm_layer_norm(x, y, scale, bias, epsilon, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _fm_layer_norm(x: Array, y: Array, scale: Array, bias: Array, epsilon: float, interpret: bool) -> Array:
    return _forward(x, y, scale, bias, epsilon, interpret)[0]


def _fm_forward(x: Array, y: Array, scale: Array, bias: Array, epsilon: float, interpret: bool) -> tuple[Array, tuple]:
    out, statistics = _forward(x, y, scale, bias, epsilon, interpret)
    return out, (x, y, scale, statistics)


def _fm_backward(epsilon: float, interpret: bool, saved: tuple, d_out: Array) -> tuple[Array, Array, Array, Array]:
    x, y, scale, mean_rstd = saved
    return _backward(x, y, scale, mean_rstd, d_out, interpret)


_fm_layer_norm.defvjp(_fm_forward, _fm_backward)


def _forward(
    x: BFloat16[Array, "batch n d"],
    y: BFloat16[Array, "n k"],
    scale: Float[Array, " n_k"],
    bias: Float[Array, " n_k"],
    epsilon: float,
    interpret: bool,
) -> tuple[BFloat16[Array, "batch n_k"], Float32[Array, "batch 2"]]:
    """The result, and mean and rstd of each example."""
    (batch, n, d), k = x.shape, y.shape[1]
    s = Sizes(batch, n, d, k, interpret)
    rows_k = (s.n_pad, s.k_pad)
    out, statistics = kernel(
        functools.partial(_forward_body, s, epsilon),
        interpret,
        out_type=(
            jax.ShapeDtypeStruct((s.batch, s.rows, s.k_out), x.dtype),
            jax.ShapeDtypeStruct((s.batch, 2), jnp.float32),
        ),
        grid=(pl.cdiv(s.batch, EXAMPLES),),
        grid_names=("block",),
        scratch_types=(
            s.tiled(s.n_pad, s.columns),
            s.tiled(s.y_rows, s.k_pad),
            s.tiled(s.columns, s.k_pad),
            plgpu.SMEM((ROWS, s.k_out), jnp.bfloat16),
            plgpu.SMEM((ROWS,), jnp.float32),
            plgpu.Barrier(),
            plgpu.Barrier(),
        ),
    )(
        padded(x, s.batch, s.rows, s.columns),
        padded(y, *rows_k),
        *(padded(vector.astype(jnp.float32).reshape(s.n, s.k), *rows_k) for vector in (scale, bias)),
    )
    return out[:, : s.n, : s.k].reshape(s.batch, s.n * s.k), statistics


def _forward_body(
    s: Sizes, epsilon: float, x_all: Any, y_all: Any, scale_all: Any, bias_all: Any, out_all: Any, statistics_all: Any,
    x: Any, y: Any, p: Any, out: Any, sums: Any, x_arrived: Any, y_arrived: Any,
) -> None:  # fmt: skip
    clear_last_block(s, x)
    y_block = y_blocks(s, y_all, y, y_arrived)

    def one_example(example: Array) -> None:
        load(x_all.at[example], x.at[pl.ds(0, s.rows)], x_arrived)
        product_left_transposed(s, x, y_block, p)
        mean, rstd = statistics(s, lambda block: product(x.at[block_of(block)], p), sums, epsilon)
        statistics_all[example, 0] = mean
        statistics_all[example, 1] = rstd

        @pl.loop(0, s.blocks)
        def _normalise(block: Array) -> None:
            h = (product(x.at[block_of(block)], p) - mean) * rstd
            result = h * read(s, scale_all.at[block_of(block)]) + read(s, bias_all.at[block_of(block)])
            out[...] = result[:, : s.k_out].astype(out.dtype)
            store_rows(s, block, out, out_all.at[example])

    _for_examples(s, one_example)


def _for_examples(s: Sizes, one_example: Callable[[Array], None]) -> None:
    """The share of examples of one block of a kernel that takes them whole."""
    first = lax.axis_index("block") * EXAMPLES
    pl.loop(0, jnp.minimum(EXAMPLES, s.batch - first))(lambda i: one_example(first + i))


def _backward(
    x: BFloat16[Array, "batch n d"],
    y: BFloat16[Array, "n k"],
    scale: Float[Array, " n_k"],
    mean_rstd: Float32[Array, "batch 2"],
    d_out: BFloat16[Array, "batch n_k"],
    interpret: bool,
) -> tuple[Array, Array, Array, Array]:
    """Gradients of X, Y, scale and bias."""
    (batch, n, d), k = x.shape, y.shape[1]
    s = Sizes(batch, n, d, k, interpret)
    x_rows = padded(x, s.batch, s.rows, s.columns)
    y_rows = padded(y, s.n_pad, s.k_pad)
    g_rows = padded(d_out.reshape(s.batch, s.n, s.k), s.batch, s.rows, s.k_pad)
    scale_rows = padded(scale.astype(jnp.float32).reshape(s.n, s.k), s.n_pad, s.k_pad)
    p, d_p, means = _backward_examples(s)(x_rows, y_rows, g_rows, scale_rows, mean_rstd)
    arrays = x_rows, y_rows, g_rows, scale_rows, mean_rstd, means, p, d_p
    d_x, *sums = _backward_rows(s)(*arrays)
    d_y, d_scale, d_bias = (partial.sum(axis=0)[: s.n, : s.k] for partial in sums)
    return (
        d_x[:, : s.n, : s.d],
        d_y.astype(y.dtype),
        d_scale.reshape(s.n * s.k).astype(scale.dtype),
        d_bias.reshape(s.n * s.k).astype(scale.dtype),
    )


def _d_f(s: Sizes, block: Array, f: Array, g: Array, scale: Array, mean_rstd: Any, means: Any) -> tuple[Array, Array]:
    """h, and dF = rstd (dh - c1 - h c2), zero in the padding, of one block."""
    h = (f - mean_rstd[0]) * mean_rstd[1]
    d_f = mean_rstd[1] * (g * scale - means[0] - h * means[1])
    return h, jnp.where(real(s, block), d_f, 0.0)


def _backward_examples(s: Sizes) -> Callable:
    """Kernel 1: (X, Y, dout, scale, mean and rstd) to (P, dP, c1 and c2)."""
    projected = jax.ShapeDtypeStruct((s.batch, s.columns, s.k_pad), jnp.bfloat16)
    return kernel(
        functools.partial(_backward_examples_body, s),
        s.interpret,
        out_type=(projected, projected, jax.ShapeDtypeStruct((s.batch, 2), jnp.float32)),
        grid=(pl.cdiv(s.batch, EXAMPLES),),
        grid_names=("block",),
        scratch_types=(
            s.tiled(s.n_pad, s.columns),
            s.tiled(s.y_rows, s.k_pad),
            s.tiled(s.columns, s.k_pad),
            s.tiled(ROWS, s.k_pad),
            s.tiled(ROWS, s.k_pad),
            plgpu.SMEM((ROWS,), jnp.float32),
            *[plgpu.Barrier()] * 3,
        ),
    )


def _backward_examples_body(
    s: Sizes, x_all: Any, y_all: Any, g_all: Any, scale_all: Any, mean_rstd_all: Any, p_all: Any, d_p_all: Any,
    means_all: Any, x: Any, y: Any, p: Any, g: Any, d_f: Any, sums: Any, x_arrived: Any, y_arrived: Any, g_arrived: Any,
) -> None:  # fmt: skip
    clear_last_block(s, x)
    y_block = y_blocks(s, y_all, y, y_arrived)

    def one_example(example: Array) -> None:
        load(x_all.at[example], x.at[pl.ds(0, s.rows)], x_arrived)
        product_left_transposed(s, x, y_block, p)
        store(p, p_all.at[example])
        mean_rstd = mean_rstd_all[example, 0], mean_rstd_all[example, 1]

        def gradient(block: Array) -> Array:
            plgpu.commit_smem()  # nobody reads the block before any more
            load_rows(s, block, g_all.at[example], g, g_arrived)
            plgpu.barrier_wait(g_arrived)
            return jnp.where(real(s, block), g[...].astype(jnp.float32), 0.0)

        def add(block: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            d_h = gradient(block) * read(s, scale_all.at[block_of(block)])
            h = (product(x.at[block_of(block)], p) - mean_rstd[0]) * mean_rstd[1]
            return carry[0] + d_h.sum(axis=1), carry[1] + (d_h * h).sum(axis=1)

        zeros = jnp.zeros((ROWS,), jnp.float32)
        means = [total(rows, sums) / (s.n * s.k) for rows in lax.fori_loop(0, s.blocks, add, (zeros, zeros))]
        means_all[example, 0], means_all[example, 1] = means

        def d_f_block(block: Array) -> Any:
            f = product(x.at[block_of(block)], p)
            scale = read(s, scale_all.at[block_of(block)])
            d_f[...] = _d_f(s, block, f, gradient(block), scale, mean_rstd, means)[1].astype(d_f.dtype)
            plgpu.commit_smem()
            return d_f

        # Its last reader of P is done when it writes dP over it.
        product_left_transposed(s, x, d_f_block, p)
        store(p, d_p_all.at[example])

    _for_examples(s, one_example)


def _backward_rows(s: Sizes) -> Callable:
    """Kernel 2: (X, Y, dout, scale, mean and rstd, c1 and c2, P, dP) to (dX, parts of dY, dscale, dbias)."""
    parts = min(s.batch, max(1, BLOCKS // s.blocks))
    part = jax.ShapeDtypeStruct((parts, s.n_pad, s.k_pad), jnp.float32)
    return kernel(
        functools.partial(_backward_rows_body, s, parts),
        s.interpret,
        out_type=(jax.ShapeDtypeStruct((s.batch, s.rows, s.columns), jnp.bfloat16), part, part, part),
        grid=(parts, s.blocks),
        grid_names=("part", "rows"),
        scratch_types=(
            *[s.tiled(ROWS, s.columns)] * 2,
            *[s.tiled(ROWS, s.k_pad)] * 3,
            *[s.tiled(s.columns, s.k_pad)] * 2,
            *[plgpu.Barrier()] * 4,
        ),
    )


def _backward_rows_body(
    s: Sizes, parts: int, x_all: Any, y_all: Any, g_all: Any, scale_all: Any, mean_rstd_all: Any, means_all: Any,
    p_all: Any, d_p_all: Any, d_x_all: Any, d_y_all: Any, d_scale_all: Any, d_bias_all: Any,
    x: Any, d_x: Any, y: Any, g: Any, d_f: Any, p: Any, d_p: Any, *arrived: Any,
) -> None:  # fmt: skip
    part, block = lax.axis_index("part"), lax.axis_index("rows")
    clear_last_block(s, x)
    load(y_all.at[block_of(block)], y, arrived[0])

    def accumulate(d_y: Any) -> None:
        def one_example(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            example = part + i * parts
            plgpu.commit_smem()  # nobody reads the example before any more
            load_rows(s, block, x_all.at[example], x, arrived[0])
            load_rows(s, block, g_all.at[example], g, arrived[1])
            plgpu.copy_gmem_to_smem(p_all.at[example], p, arrived[2])
            plgpu.copy_gmem_to_smem(d_p_all.at[example], d_p, arrived[3])
            for barrier in arrived:
                plgpu.barrier_wait(barrier)
            gradient = jnp.where(real(s, block), g[...].astype(jnp.float32), 0.0)
            constants = [(ref[example, 0], ref[example, 1]) for ref in (mean_rstd_all, means_all)]
            scale = read(s, scale_all.at[block_of(block)])
            h, d_f_values = _d_f(s, block, product(x, p), gradient, scale, *constants)
            d_f[...] = d_f_values.astype(d_f.dtype)
            plgpu.commit_smem()
            plgpu.wgmma(d_y, x, d_p)
            for start in s.chunks:
                columns = pl.ds(start, 64)
                values = product_right_transposed(s, (d_f, p.at[columns]), (y, d_p.at[columns]))
                d_x[:, columns] = values.astype(d_x.dtype)
            store_rows(s, block, d_x, d_x_all.at[example])
            return carry[0] + gradient * h, carry[1] + gradient

        zeros = jnp.zeros((ROWS, s.k_pad), jnp.float32)
        d_scale, d_bias = lax.fori_loop(0, pl.cdiv(s.batch - part, parts), one_example, (zeros, zeros))
        d_scale_all[part, block_of(block)] = d_scale
        d_bias_all[part, block_of(block)] = d_bias
        d_y_all[part, block_of(block)] = d_y[...]

    pl.run_scoped(accumulate, plgpu.ACC((ROWS, s.k_pad), jnp.float32))
