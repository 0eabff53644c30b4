"""Low-rank FM with LayerNorm on TPUs: Pallas kernels with 2-D products summed in float32. Opt-in, unmeasured.

Written without a TPU at hand: the numbers are checked in interpret mode and the kernels are lowered for tpu, but never
compiled by its compiler nor run. A step of the grid takes a tile of examples whose X is read once; all is transposed,
[k, n], so that the long axis n lies along the lanes of the vector registers (k alone would leave most of them empty):

    P^T = Y^T X    F^T = P^T X^T    h = (F - mean) rstd    out = h scale + bias      (mean and rstd over all n k values)
    dh = dout scale    dF = rstd (dh - mean(dh) - h mean(dh h))    dP = X^T dF    dX = dF P^T + Y dP^T
    dY = sum X dP    dscale = sum dout h    dbias = sum dout          (over all examples: the grid runs in sequence)

The backward computes P, F, mean and rstd again: they cost less than reading them. Operands of a product have X's dtype.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Float32

from wukong_jax.errors import ConfigError

MEMORY_BYTES = 12 * 2**20  # of the 16 MiB of vector memory that the compiler gives one kernel by default
MAX_EXAMPLES = 64  # of one tile


def _array_bytes(rows: int, columns: int, itemsize: int) -> int:
    """Of a matrix in vector memory: whole registers of 32 bytes by 128 lanes."""
    sublanes = 32 // itemsize
    return -(-rows // sublanes) * sublanes * -(-columns // 128) * 128 * itemsize


def _tile_examples(n: int, d: int, k: int, itemsize: int) -> int:
    """How many examples the backward, the larger kernel, can hold; 0 where not even one fits."""
    shared = _array_bytes(k, n, itemsize) + 4 * _array_bytes(k, n, 4) + 8 * _array_bytes(k, max(n, d), 4)
    one = 2 * (2 * _array_bytes(n, d, itemsize) + _array_bytes(k, n, itemsize))  # X, dX, dout; double buffers
    left = MEMORY_BYTES - 2 * shared - 2 * _array_bytes(n, d, 4)
    return min(MAX_EXAMPLES, max(0, left) // one)


def _problem(n: int, d: int, k: int, dtype: Any) -> str | None:
    """Why the kernels cannot serve a shape; None where they can."""
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float32):
        return f"dtype is {jnp.dtype(dtype)}, the kernel takes bfloat16 or float32 (use one of them"
    if not _tile_examples(n, d, k, jnp.dtype(dtype).itemsize):
        return f"n={n}, d={d}, k={k}: one example exceeds the {MEMORY_BYTES} bytes of vector memory (lower n, d or k"
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
    """LayerNorm(flatten(X (X^T Y))) scale + bias in X's dtype; differentiable in all four arrays.

    ConfigError: a dtype or shape that is not served.
    """
    n, d = x.shape[1:]
    if problem := _problem(n, d, y.shape[1], x.dtype):
        raise ConfigError(f'implementation="tpu": {problem}, or use implementation="xla")')
    if y.dtype != x.dtype:
        raise ConfigError(f'implementation="tpu": y is {y.dtype}, x is {x.dtype}; cast y, or use implementation="xla"')
    return _fm_layer_norm(x, y, scale, bias, epsilon, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _fm_layer_norm(x: Array, y: Array, scale: Array, bias: Array, epsilon: float, interpret: bool) -> Array:
    return _forward(x, y, scale, bias, epsilon, interpret)


def _fm_forward(x: Array, y: Array, scale: Array, bias: Array, epsilon: float, interpret: bool) -> tuple[Array, tuple]:
    return _forward(x, y, scale, bias, epsilon, interpret), (x, y, scale)


def _fm_backward(epsilon: float, interpret: bool, saved: tuple, d_out: Array) -> tuple[Array, Array, Array, Array]:
    x, y, scale = saved
    return _backward(x, y, scale, d_out, epsilon, interpret)


_fm_layer_norm.defvjp(_fm_forward, _fm_backward)


def _call(body: Callable, x: Array, k: int, interpret: bool, **settings: Any) -> Callable:
    """A kernel over tiles of examples, one tile after another."""
    batch, n, d = x.shape
    tile = min(batch, _tile_examples(n, d, k, x.dtype.itemsize))
    specs = {
        "tiles of x": pl.BlockSpec((tile, n, d), lambda i: (i, 0, 0)),
        "tiles of f": pl.BlockSpec((tile, k, n), lambda i: (i, 0, 0)),
        "whole": pl.BlockSpec((k, n), lambda i: (0, 0)),
    }
    for side in ("in_specs", "out_specs"):
        settings[side] = [specs[name] for name in settings[side]]
    return pl.pallas_call(
        functools.partial(body, batch, tile, functools.partial(_dot, interpret=interpret)),
        grid=(pl.cdiv(batch, tile),),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=interpret,
        **settings,
    )


def _transposed(flat: Array, n: int, k: int) -> Float32[Array, "k n"]:
    return flat.astype(jnp.float32).reshape(n, k).T


def _dot(a: Array, b: Array, axis_a: int, axis_b: int, interpret: bool) -> Float32[Array, "rows columns"]:
    """A product over one axis of each, summed in float32; float32 operands are not rounded on the way."""
    if interpret:  # not every CPU has the product of bfloat16 in float32; these products are the same
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    axes = (((axis_a,), (axis_b,)), ((), ()))
    return lax.dot_general(a, b, axes, precision=precision, preferred_element_type=jnp.float32)


def _normalised(x: Array, y: Array, epsilon: float, dot: Callable) -> tuple[Array, Array, Array]:
    """P^T in X's dtype, h^T and rstd of one example, from X [n, d] and Y^T [k, n]."""
    p = dot(y, x, 1, 0).astype(x.dtype)
    f = dot(p, x, 1, 1)
    centered = f - jnp.mean(f)
    rstd = lax.rsqrt(jnp.mean(centered * centered) + epsilon)
    return p, centered * rstd, rstd


def _each_example(batch: int, tile: int, one_example: Callable[[Array], None]) -> None:
    """The last tile may hold fewer examples; what lies behind them is not to be read."""
    real = jnp.minimum(tile, batch - pl.program_id(0) * tile)
    pl.loop(0, real)(one_example)


def _forward(
    x: Float[Array, "batch n d"],
    y: Float[Array, "n k"],
    scale: Float[Array, " n_k"],
    bias: Float[Array, " n_k"],
    epsilon: float,
    interpret: bool,
) -> Float[Array, "batch n_k"]:
    (batch, n, _d), k = x.shape, y.shape[1]

    out = _call(
        functools.partial(_forward_body, epsilon),
        x,
        k,
        interpret,
        in_specs=("tiles of x", "whole", "whole", "whole"),
        out_specs=("tiles of f",),
        out_shape=[jax.ShapeDtypeStruct((batch, k, n), x.dtype)],
    )(x, y.T, _transposed(scale, n, k), _transposed(bias, n, k))[0]
    return out.transpose(0, 2, 1).reshape(batch, n * k)


def _forward_body(
    epsilon: float, batch: int, tile: int, dot: Callable, x_ref: Any, y_ref: Any, scale_ref: Any, bias_ref: Any,
    out_ref: Any,
) -> None:  # fmt: skip
    def one_example(i: Array) -> None:
        _p, h, _rstd = _normalised(x_ref[i], y_ref[...], epsilon, dot)
        out_ref[i] = (h * scale_ref[...] + bias_ref[...]).astype(out_ref.dtype)

    _each_example(batch, tile, one_example)


def _backward(
    x: Float[Array, "batch n d"],
    y: Float[Array, "n k"],
    scale: Float[Array, " n_k"],
    d_out: Float[Array, "batch n_k"],
    epsilon: float,
    interpret: bool,
) -> tuple[Array, Array, Array, Array]:
    """Gradients of X, Y, scale and bias."""
    (batch, n, _d), k = x.shape, y.shape[1]
    part = jax.ShapeDtypeStruct((k, n), jnp.float32)
    d_x, *sums = _call(
        functools.partial(_backward_body, epsilon),
        x,
        k,
        interpret,
        in_specs=("tiles of x", "whole", "whole", "tiles of f"),
        out_specs=("tiles of x", "whole", "whole", "whole"),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype), part, part, part],
    )(x, y.T, _transposed(scale, n, k), d_out.reshape(batch, n, k).transpose(0, 2, 1))
    d_y, d_scale, d_bias = (total.T for total in sums)
    return d_x, d_y.astype(y.dtype), d_scale.reshape(-1).astype(scale.dtype), d_bias.reshape(-1).astype(scale.dtype)


def _backward_body(
    epsilon: float, batch: int, tile: int, dot: Callable, x_ref: Any, y_ref: Any, scale_ref: Any, g_ref: Any,
    d_x_ref: Any, d_y_ref: Any, d_scale_ref: Any, d_bias_ref: Any,
) -> None:  # fmt: skip
    @pl.when(pl.program_id(0) == 0)
    def _start_sums() -> None:
        for ref in (d_y_ref, d_scale_ref, d_bias_ref):
            ref[...] = jnp.zeros(ref.shape, ref.dtype)

    def one_example(i: Array) -> None:
        x, y, g = x_ref[i], y_ref[...], g_ref[i].astype(jnp.float32)
        p, h, rstd = _normalised(x, y, epsilon, dot)
        d_h = g * scale_ref[...]
        d_f = (rstd * (d_h - jnp.mean(d_h) - h * jnp.mean(d_h * h))).astype(x.dtype)
        d_p = dot(d_f, x, 1, 0).astype(x.dtype)
        d_x_ref[i] = (dot(d_f, p, 0, 0) + dot(y, d_p, 0, 0)).astype(d_x_ref.dtype)
        d_y_ref[...] += dot(d_p, x, 1, 1)
        d_scale_ref[...] += g * h
        d_bias_ref[...] += g

    _each_example(batch, tile, one_example)
