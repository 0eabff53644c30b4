"""LayerNorm over the last axis, statistics in float32; on CPU by products, with a backward pass of its own."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.ops.platform import Implementation, resolve_implementation

# Products with a constant vector that only sum over an axis; the FLOP count leaves them out.
SUMS_SCOPE = "sums"

kept = jax.lax.optimization_barrier


def layer_norm(
    x: Float[Array, "*batch values"],
    scale: Float[Array, "values"],
    bias: Float[Array, "values"],
    epsilon: float,
    *,
    implementation: Implementation = "auto",
) -> Float[Array, "*batch values"]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, in x's type.

    On CPU the sums over rows and over values are products with a vector, which XLA vectorises; its own reductions over
    the last axis run at a fraction of the memory's speed.
    """
    if resolve_implementation(implementation) != "xla_cpu":
        return _plain(x, scale, bias, epsilon)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rows = x.reshape(-1, x.shape[-1]).astype(wide)
    out = _by_products(rows, scale.astype(wide), bias.astype(wide), epsilon)
    return out.reshape(x.shape).astype(x.dtype)


def _plain(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = values - values.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon) * scale + bias).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_products(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    return _forward(x, scale, bias, epsilon)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array, jax.Array]]:
    x = kept(x)
    with jax.named_scope(SUMS_SCOPE):
        average = jnp.full(x.shape[1], 1 / x.shape[1], x.dtype)
        mean = kept(x @ average)
        # two passes: the mean of squares minus the square of the mean cancels where the mean is large
        variance = jnp.square(x - mean[:, None]) @ average
    mean, inverse = kept((mean, jax.lax.rsqrt(variance + epsilon)))
    return kept((x - mean[:, None]) * inverse[:, None] * scale + bias), (x, mean, inverse, scale)


def _backward(
    epsilon: float, saved: tuple[jax.Array, jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients: dx = r (s g - mean(s g) - h mean(s g h)); h = (x - mean) r; ds = sum g h; db = sum g."""
    x, mean, inverse, scale = saved
    gradient, size = kept(gradient), x.shape[1]
    with jax.named_scope(SUMS_SCOPE):
        normalised_gradient = kept(gradient * ((x - mean[:, None]) * inverse[:, None]))
        average_gradient = gradient @ (scale / size)
        average_along = normalised_gradient @ (scale / size)
        to_bias = jnp.ones(x.shape[0], x.dtype) @ gradient
        to_scale = jnp.ones(x.shape[0], x.dtype) @ normalised_gradient
    slope, offset = kept((average_along * jnp.square(inverse), average_gradient * inverse))
    dx = (inverse[:, None] * scale) * gradient - slope[:, None] * (x - mean[:, None]) - offset[:, None]
    return kept(dx), to_scale, to_bias


_by_products.defvjp(_forward, _backward)
