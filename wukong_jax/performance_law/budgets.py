"""What a sequential model of N layers and width d costs: N d, parameters without and with the item table, FLOPs/token.

    parameters of a block = (p + f r) d^2 + v d + bias tables      item table = (items + 1) d

with p square matrices, f matrices of the feed-forward layer (r d wide) and v vectors. A cost is any function of
(layers, dim), so that the counts of real models can take the place of these formulas.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from wukong_jax.config.checks import check_not_negative, check_positive
from wukong_jax.errors import ConfigError

Cost = Callable[[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]], Float[np.ndarray, "*shape"]]
"""What models of so many layers and that width cost; nothing of it falls as either grows."""

TIME_BUCKETS = 129
"""Rows of HSTU's table of time biases in generative-recommenders: 128 buckets of the logarithm, and one."""


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The blocks of a sequential model, heads x their widths being d."""

    name: str
    projections: int
    """Matrices of d x d a block."""
    ffn_matrices: int
    ffn_ratio: float
    """Width of the feed-forward layer over d."""
    vectors: int
    """Vectors of length d a block."""
    relative_bias: bool
    """Whether each block has a table of biases for the 2 L - 1 relative positions, and one for the times."""

    def matrices(self, dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Weights in the matrices of one block."""
        return (self.projections + self.ffn_matrices * self.ffn_ratio) * dim**2


BACKBONES = {
    one.name: one
    for one in (
        Backbone("hstu", 5, 0, 0.0, 1, True),
        Backbone("sasrec", 4, 2, 1.0, 0, False),
        Backbone("llama", 4, 3, 8 / 3, 0, False),
    )
}
"""HSTU 5 d^2 + d and its bias tables, SASRec 4 d^2 + 2 d d_ff with d_ff = d, LLaMA 12 d^2."""


def backbone_named(name: str, ffn_ratio: float | None = None) -> Backbone:
    """A backbone, with another width of its feed-forward layer if given; raises `ConfigError`."""
    if name not in BACKBONES:
        raise ConfigError(f"backbone: received {name!r}, expected one of {', '.join(BACKBONES)}")
    found = BACKBONES[name]
    if ffn_ratio is None:
        return found
    check_positive("ffn_ratio", ffn_ratio)
    if not found.ffn_matrices:
        raise ConfigError(f"ffn_ratio: received {ffn_ratio}, but {name} has no feed-forward layer; leave it out")
    return dataclasses.replace(found, ffn_ratio=ffn_ratio)


def size(layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """N d, the budget of the paper's Table 2."""
    return layers * dim


def non_embedding_parameters(backbone: Backbone, length: int) -> Cost:
    """Parameters of the blocks; `length` is the longest sequence, which HSTU's bias tables grow with."""
    check_positive("length", length)
    tables = 2 * length - 1 + TIME_BUCKETS if backbone.relative_bias else 0

    def cost(layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return layers * (backbone.matrices(dim) + backbone.vectors * dim + tables)

    return cost


def total_parameters(backbone: Backbone, length: int, items: int) -> Cost:
    """Parameters of the blocks and of the item table, (items + 1) d: one row is the padding's."""
    check_positive("items", items)
    blocks = non_embedding_parameters(backbone, length)

    def cost(layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return blocks(layers, dim) + (items + 1) * dim

    return cost


def flops_per_token(backbone: Backbone, length: int, candidates: int = 0) -> Cost:
    """Training FLOPs a position of a sequence of `length`: 3 x forward, products only, 2 a multiply-add.

    Forward: 2 x the weights of the blocks' matrices, 4 L d a block for the attention's scores and sums over all L
    positions (a causal mask saves nothing), and 2 d for every one of `candidates`, positive and negatives, in the loss.
    """
    check_positive("length", length)
    check_not_negative("candidates", candidates)

    def cost(layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return 3 * (layers * (2 * backbone.matrices(dim) + 4 * length * dim) + 2 * candidates * dim)

    return cost


@dataclasses.dataclass(frozen=True)
class Budget:
    """A limit on one cost."""

    name: str
    """What is counted, as it is shown: "N d", "parameters"."""
    limit: float
    cost: Cost

    def __post_init__(self) -> None:
        """Raise `ConfigError` unless the limit is above zero."""
        if not (self.limit > 0 and math.isfinite(self.limit)):
            raise ConfigError(f"budget of {self.name}: received {self.limit}, expected a number above 0")

    def allows(
        self, layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]
    ) -> Bool[np.ndarray, "*shape"]:
        """Which sizes cost no more than the limit."""
        return self.cost(layers, dim) <= self.limit
