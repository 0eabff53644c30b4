"""What differs between platforms: compiler options, the default implementation, the type of activations."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from wukong_jax.errors import ConfigError

Implementation = Literal["auto", "reference", "xla", "xla_cpu", "cpu_kernel", "mosaic_gpu", "tpu"]

# XLA:CPU drops optimization barriers before it fuses. Kept to the end, they stop it from computing an elementwise
# chain once for each of its readers, and from folding a transposed copy back into a slow product.
CPU_COMPILER_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def compiler_options(platform: str) -> dict[str, str | bool]:
    """Options for `jax.jit` of a whole step on a platform."""
    return dict(CPU_COMPILER_OPTIONS) if platform == "cpu" else {}


def resolve_implementation(name: Implementation) -> Implementation:
    """What `auto` stands for on the default platform; the accelerator kernels only if asked for by name."""
    if name != "auto":
        return name
    return "xla_cpu" if jax.default_backend() == "cpu" else "xla"


def check_implementation(name: Implementation, dtype: DTypeLike, platform: str) -> None:
    """Raise `ConfigError` where a platform cannot run an implementation in a type."""
    needed = {"cpu_kernel": ("cpu",), "mosaic_gpu": ("gpu", "cuda"), "tpu": ("tpu",)}.get(name, (platform,))
    if platform not in needed:
        raise ConfigError(
            f"model.implementation: received {name!r} on {platform}, which runs on {needed[0]} only; use 'auto'"
        )
    if platform == "cpu" and name in ("xla", "reference") and jnp.dtype(dtype) == jnp.bfloat16:
        raise ConfigError(
            f"model.implementation: received {name!r} with model.dtype 'bfloat16', for which XLA has no "
            "batched product on CPU; use 'auto', or model.dtype 'float32'"
        )


def activation_dtype(dtype: DTypeLike) -> jnp.dtype:
    """Type of arrays between products of type `dtype`: the same, but float32 for bfloat16 on CPU, which emulates it."""
    return jnp.promote_types(dtype, jnp.float32) if jax.default_backend() == "cpu" else jnp.dtype(dtype)
