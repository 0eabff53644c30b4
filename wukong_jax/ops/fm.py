"""Factorization machines over embeddings (paper, sections 3.4 to 3.6), one function for every implementation.

`reference` is the paper's formulas as einsums, differentiated by JAX. `xla`, `xla_cpu` and `cpu_kernel` are the same
numbers to rounding, with gradients of their own. `mosaic_gpu` and `tpu` are Pallas kernels, which nobody has timed
yet: they are used only where asked for by name. `cpu_kernel` has no second derivatives and no forward mode; for those
take `xla_cpu`.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from wukong_jax.errors import ConfigError
from wukong_jax.ops import fm_cpu, fm_cpu_kernel, fm_xla
from wukong_jax.ops.cpu.build import available
from wukong_jax.ops.layer_norm import layer_norm
from wukong_jax.ops.platform import Implementation, resolve_implementation

Compressed = dict[str, Float[Array, "batch _ d"]]
KERNELS = ("cpu_kernel", "mosaic_gpu", "tpu")


def factorization_machine(
    x: Float[Array, "batch n d"],
    y: Float[Array, "n k"] | Float[Array, "batch n k"] | None,
    linear: Mapping[str, Float[Array, "n _"]] | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    implementation: Implementation = "auto",
) -> tuple[Float[Array, "batch n k"], Compressed]:
    """FM(X) = X X^T Y, and W^T X for every W of `linear`, with products of type `dtype` summed in float32.

    Without Y it is the full FM, X X^T; a Y [n, k] serves all examples (low rank), a Y [batch, n, k] each its own
    (attentive). X (X^T Y) costs O(n k d) and makes no n x n array; see `pairs_first` for when (X X^T) Y is taken.
    Raises `ConfigError` for a kernel, which computes the LayerNorm as well: `fm_layer_norm`.
    """
    linear = linear or {}
    implementation = resolve_implementation(implementation)
    if implementation in KERNELS:
        raise ConfigError(
            f"implementation={implementation!r}: the kernel includes the LayerNorm; call fm_layer_norm, or use 'xla'"
        )
    if implementation == "reference":
        return _reference(x, y, dtype), {name: _compress(name, x, w, dtype) for name, w in linear.items()}
    if implementation == "xla_cpu":
        return fm_cpu.factorization_machine(x, y, linear, dtype)
    return fm_xla.factorization_machine(x, y, linear, dtype)


def compress(
    x: Float[Array, "batch n d"],
    linear: Mapping[str, Float[Array, "n _"]],
    *,
    dtype: DTypeLike = jnp.float32,
    implementation: Implementation = "auto",
) -> Compressed:
    """W^T X for every W of `linear`, with products of type `dtype` summed in float32."""
    implementation = resolve_implementation(implementation)
    if implementation == "reference":
        return {name: _compress(name, x, w, dtype) for name, w in linear.items()}
    return (fm_cpu if implementation == "xla_cpu" else fm_xla).compress(x, linear, dtype)


def fm_layer_norm(
    x: Float[Array, "batch n d"],
    y: Float[Array, "n k"] | Float[Array, "batch n k"] | None,
    scale: Float[Array, "n_k"],
    bias: Float[Array, "n_k"],
    linear: Mapping[str, Float[Array, "n _"] | None] | None = None,
    *,
    epsilon: float,
    dtype: DTypeLike = jnp.float32,
    implementation: Implementation = "auto",
) -> tuple[Float[Array, "batch n_k"], Compressed]:
    """LayerNorm(flatten(FM(X))), and W^T X for every W of `linear`: all that an interaction layer computes from X.

    A W of None passes X on. Raises `ConfigError` for a shape, type or kind of FM that a kernel named by
    `implementation` does not serve.
    """
    linear = linear or {}
    if y is not None and y.ndim == 2:
        arrays = (x, y, scale, bias, *(weight for weight in linear.values() if weight is not None))
        if serves(implementation, dtype, *(array.dtype for array in arrays)):
            return fm_cpu_kernel.fm_layer_norm(x, y, scale, bias, linear, epsilon)
    elif implementation in KERNELS:
        raise ConfigError(
            f"implementation={implementation!r}: the kernel computes the low-rank FM with one Y for all examples; "
            "use implementation='auto'"
        )
    passed: Compressed = {name: x for name, weight in linear.items() if weight is None}
    weights = {name: weight for name, weight in linear.items() if weight is not None}
    if y is not None and implementation in KERNELS:
        # imported here: Pallas takes a while to import, and few runs need it
        if implementation == "mosaic_gpu":
            from wukong_jax.ops.fm_mosaic_gpu import fm_layer_norm as kernel
        else:
            from wukong_jax.ops.fm_tpu import fm_layer_norm as kernel
        values = kernel(x.astype(dtype), y.astype(dtype), scale, bias, epsilon, interpret=False)
        return values.astype(x.dtype), passed | fm_xla.compress(x, weights, dtype)
    interactions, compressed = factorization_machine(x, y, weights, dtype=dtype, implementation=implementation)
    flat = interactions.reshape(x.shape[0], -1)
    return layer_norm(flat, scale, bias, epsilon, implementation=implementation), passed | compressed


def add_layer_norm(
    parts: Sequence[Float[Array, "batch _ d"]],
    residual: Float[Array, "batch n d"] | None,
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
    *,
    implementation: Implementation = "auto",
) -> Float[Array, "batch n d"]:
    """LN(concat(parts) + residual) over d, the end of an interaction layer; `residual` may be None."""
    arrays = (*parts, scale, bias) if residual is None else (*parts, residual, scale, bias)
    if serves(implementation, *(array.dtype for array in arrays)):
        return fm_cpu_kernel.add_layer_norm(tuple(parts), residual, scale, bias, epsilon)
    out = jnp.concatenate(parts, axis=1)
    out = out if residual is None else out + residual
    return layer_norm(out, scale, bias, epsilon, implementation=implementation)


def serves(implementation: Implementation, *types: DTypeLike) -> bool:
    """Whether the CPU kernels compute arrays of these types: float32 where they are there, or asked for by name.

    Raises `ConfigError` if they are asked for by name and cannot.
    """
    fits = jax.default_backend() == "cpu" and all(jnp.dtype(dtype) == jnp.float32 for dtype in types)
    if implementation == "cpu_kernel" and not fits:
        received = f"{sorted({str(jnp.dtype(dtype)) for dtype in types})} on {jax.default_backend()}"
        raise ConfigError(f"implementation='cpu_kernel': received {received}, expected float32 on cpu; use 'auto'")
    return implementation == "cpu_kernel" or (implementation == "auto" and fits and available())


def _reference(x: jax.Array, y: jax.Array | None, dtype: DTypeLike) -> jax.Array:
    operand = x.astype(dtype)
    if y is None:
        return jnp.einsum("bnd,bmd->bnm", operand, operand).astype(x.dtype)
    spec = "bnd,nk->bdk" if y.ndim == 2 else "bnd,bnk->bdk"
    return jnp.einsum("bnd,bdk->bnk", operand, jnp.einsum(spec, operand, y.astype(dtype))).astype(x.dtype)


def _compress(name: str, x: jax.Array, weight: jax.Array, dtype: DTypeLike) -> jax.Array:
    with jax.named_scope(name):
        return jnp.einsum("bnd,nm->bmd", x.astype(dtype), weight.astype(dtype)).astype(x.dtype)
