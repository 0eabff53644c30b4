"""An interaction layer's work on X by kernels for the CPU (`ops/cpu`), which keep an example in its caches.

Low-rank FM in float32. What is not Y, W, or a result is computed anew in the backward pass, so nothing else is saved.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wukong_jax.ops.cpu.build import target

Arrays = tuple[jax.Array, ...]


def fm_layer_norm(
    x: Float[Array, "batch n d"],
    y: Float[Array, "n k"],
    scale: Float[Array, "n_k"],
    bias: Float[Array, "n_k"],
    linear: Mapping[str, Float[Array, "n _"] | None],
    epsilon: float,
) -> tuple[Float[Array, "batch n_k"], dict[str, Float[Array, "batch _ d"]]]:
    """LayerNorm(flatten(X X^T Y)), and W^T X for every W of `linear`, where None passes X on.

    The gradient of an X passed on is added within the kernel.
    """
    weights = {name: weight for name, weight in linear.items() if weight is not None}
    through = len(weights) < len(linear)
    flat, *compressed = _interact(epsilon, through, x, y, scale, bias, *weights.values())
    found: dict[str, jax.Array] = dict(zip(weights, compressed, strict=not through))
    return flat, {name: found.get(name, compressed[-1]) for name in linear}


def add_layer_norm(
    parts: tuple[Float[Array, "batch _ d"], ...],
    residual: Float[Array, "batch n d"] | None,
    scale: Float[Array, "d"],
    bias: Float[Array, "d"],
    epsilon: float,
) -> Float[Array, "batch n d"]:
    """LN(concat(parts) + residual), over d."""
    arrays = parts if residual is None else (*parts, residual)
    return _normalise(epsilon, residual is not None, scale, bias, arrays)


def _call(name: str, results: Sequence[Any], *arguments: jax.Array, **attributes: object) -> list[jax.Array]:
    """Run a kernel; `results` has the shapes of what it gives."""
    shapes = [jax.ShapeDtypeStruct(array.shape, jnp.float32) for array in results]
    found = jax.ffi.ffi_call(target(name), shapes, vmap_method="sequential")(*arguments, **attributes)
    return list(found)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _interact(
    epsilon: float, through: bool, x: jax.Array, y: jax.Array, scale: jax.Array, bias: jax.Array, *weights: jax.Array
) -> Arrays:
    """The normalised interactions, each W^T X and, with `through`, X."""
    batch, n, d = x.shape
    results = [jax.ShapeDtypeStruct((batch, n * y.shape[1]), x.dtype)]
    results += [jax.ShapeDtypeStruct((batch, weight.shape[1], d), x.dtype) for weight in weights]
    found = _call("fm_forward", results, x, y, scale, bias, *weights, epsilon=np.float32(epsilon))
    return (*found, x) if through else tuple(found)


def _interact_forward(
    epsilon: float, through: bool, x: jax.Array, y: jax.Array, scale: jax.Array, bias: jax.Array, *weights: jax.Array
) -> tuple[Arrays, Arrays]:
    return _interact(epsilon, through, x, y, scale, bias, *weights), (x, y, scale, *weights)


def _interact_backward(epsilon: float, through: bool, saved: Arrays, gradients: Arrays) -> Arrays:
    x, y, scale, *weights = saved
    results = [x, y, scale, scale, *weights]
    arguments = (x, y, scale, gradients[0], *weights, *gradients[1:])
    attributes = {"epsilon": np.float32(epsilon), "through": through}
    return tuple(_call("fm_backward", results, *arguments, **attributes))


_interact.defvjp(_interact_forward, _interact_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normalise(epsilon: float, residual: bool, scale: jax.Array, bias: jax.Array, arrays: Arrays) -> jax.Array:
    parts = arrays[:-1] if residual else arrays
    batch, _, d = parts[0].shape
    out = jax.ShapeDtypeStruct((batch, sum(part.shape[1] for part in parts), d), scale.dtype)
    attributes = {"epsilon": np.float32(epsilon), "residual": residual}
    return _call("layer_norm_forward", [out], scale, bias, *arrays, **attributes)[0]


def _normalise_forward(
    epsilon: float, residual: bool, scale: jax.Array, bias: jax.Array, arrays: Arrays
) -> tuple[jax.Array, tuple[jax.Array, Arrays]]:
    return _normalise(epsilon, residual, scale, bias, arrays), (scale, arrays)


def _normalise_backward(
    epsilon: float, residual: bool, saved: tuple[jax.Array, Arrays], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, Arrays]:
    scale, arrays = saved
    attributes = {"epsilon": np.float32(epsilon), "residual": residual}
    found = _call("layer_norm_backward", [scale, scale, *arrays], scale, gradient, *arrays, **attributes)
    return found[0], found[1], tuple(found[2:])


_normalise.defvjp(_normalise_forward, _normalise_backward)
