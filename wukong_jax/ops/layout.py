"""How dense parameters and activations lie on a mesh while a step is traced; on one device nothing is said.

Under `tensor` the hidden layers of an MLP go in pairs: the first kernel is split by outputs, and with it its
activations, the second one by inputs, whose partial sums are added up (Megatron-LM, section 3).
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from wukong_jax.config.mesh import MeshConfig

Result = TypeVar("Result")


class Layout(NamedTuple):
    """The mesh, and what is split over its axis `model`."""

    mesh: Mesh
    config: MeshConfig


_layout: contextvars.ContextVar[Layout | None] = contextvars.ContextVar("layout", default=None)


@contextlib.contextmanager
def traced_on(layout: Layout) -> Iterator[None]:
    """What is traced inside the block is for this mesh."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def gathered(params: Any) -> Any:
    """Parameters that are stored in parts, put together for use; their gradients come back in parts (FSDP)."""
    layout = _layout.get()
    if layout is None or layout.config.dense != "fsdp" or layout.config.model == 1:
        return params
    return jax.lax.with_sharding_constraint(params, NamedSharding(layout.mesh, PartitionSpec()))


def on_every_device(arrays: Result) -> Result:
    """Small arrays of the batch on each device, for what would else exchange many single numbers."""
    layout = _layout.get()
    if layout is None or layout.mesh.size == 1:
        return arrays
    everywhere: Result = jax.lax.with_sharding_constraint(arrays, NamedSharding(layout.mesh, PartitionSpec()))
    return everywhere


def hidden_layer(
    x: Float[Array, "batch outputs"], inputs: int, *, after_split: bool
) -> tuple[Float[Array, "batch outputs"], bool]:
    """The outputs of a hidden layer of an MLP, laid out as `tensor` asks for; and whether they are split.

    `after_split` says whether its inputs were.
    """
    layout = _layout.get()
    if layout is None or after_split or not splits_outputs((inputs, x.shape[1]), layout.config):
        return whole_outputs(x, after_split=after_split), False
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, PartitionSpec("data", "model"))), True


def whole_outputs(x: Float[Array, "batch outputs"], *, after_split: bool) -> Float[Array, "batch outputs"]:
    """The outputs of a layer whose inputs were split, added up over the devices that have parts of them."""
    layout = _layout.get()
    if layout is None or not after_split:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, PartitionSpec(("data", "model"))))


def splits_outputs(kernel: tuple[int, int], config: MeshConfig) -> bool:
    """Whether the kernel [inputs, outputs] of a hidden layer is split by its outputs, where its inputs are whole."""
    large = kernel[0] * kernel[1] >= config.dense_min_parameters
    return config.dense == "tensor" and config.model > 1 and large and kernel[1] % config.model == 0
