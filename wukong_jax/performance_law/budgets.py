"""What a sequential model of N layers and width d costs: N d, parameters without and with the item table, FLOPs/token.

The counts are those of this program's models, heads x their widths being d, by the formulas of sequential/cost.py. A
cost is any function of (layers, dim), so that the counts of other models can take their place.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from wukong_jax.config.checks import check_not_negative, check_positive
from wukong_jax.errors import ConfigError
from wukong_jax.sequential.cost import BlockCost, hstu_block, llama_block, sasrec_block

Cost = Callable[[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]], Float[np.ndarray, "*shape"]]
"""What models of so many layers and that width cost; nothing of it falls as either grows."""

TIME_BUCKETS = 129
"""Entries of HSTU's table of time biases, as of events with times: 128 buckets of the logarithm, and one."""
ROUNDING = 1e-9
"""What a product with a ratio may be above a whole number by rounding alone."""

Sizes = Float[np.ndarray, "*shape"]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The kind of a sequential model."""

    name: str
    ffn_ratio: float | None
    """Width of the feed-forward layer over d, rounded up; None without one."""
    positions: bool
    """Whether it has a learned vector for each position."""

    def block(self, dim: Sizes, length: int) -> BlockCost[np.ndarray]:
        """The cost of one block of each width."""
        if self.ffn_ratio is None:
            return hstu_block(dim, dim, dim, length + TIME_BUCKETS)
        hidden = np.ceil(self.ffn_ratio * dim - ROUNDING)
        return sasrec_block(dim, hidden) if self.name == "sasrec" else llama_block(dim, hidden)


BACKBONES = {
    one.name: one
    for one in (Backbone("hstu", None, True), Backbone("sasrec", 1.0, True), Backbone("llama", 8 / 3, False))
}


def backbone_named(name: str, ffn_ratio: float | None = None) -> Backbone:
    """A backbone, with another width of its feed-forward layer if given; raises `ConfigError`."""
    if name not in BACKBONES:
        raise ConfigError(f"backbone: received {name!r}, expected one of {', '.join(BACKBONES)}")
    found = BACKBONES[name]
    if ffn_ratio is None:
        return found
    check_positive("ffn_ratio", ffn_ratio)
    if found.ffn_ratio is None:
        raise ConfigError(f"ffn_ratio: received {ffn_ratio}, but {name} has no feed-forward layer; leave it out")
    return dataclasses.replace(found, ffn_ratio=ffn_ratio)


def size(layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """N d, the budget of the paper's Table 2."""
    return layers * dim


def non_embedding_parameters(backbone: Backbone, length: int) -> Cost:
    """Parameters of the blocks and of a norm behind them; HSTU's biases grow with `length`, the longest sequence."""
    check_positive("length", length)

    def cost(layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        block = backbone.block(dim, length)
        return layers * (block.weights + block.others) + dim * (backbone.name == "llama")

    return cost


def total_parameters(backbone: Backbone, length: int, items: int) -> Cost:
    """The same, learned positions, length x d, and the item table, items x d."""
    check_positive("items", items)
    blocks = non_embedding_parameters(backbone, length)

    def cost(layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return blocks(layers, dim) + (items + length * backbone.positions) * dim

    return cost


def flops_per_token(backbone: Backbone, length: int, candidates: int = 0) -> Cost:
    """Training FLOPs a position of a sequence of `length`: 3 x forward, products only, 2 a multiply-add.

    Forward: 2 x the weights of the blocks' matrices, 4 L d a block for the attention's scores and sums over all L
    positions (a causal mask saves nothing), and 2 d for every one of `candidates`, positive and negatives, in the loss.
    """
    check_positive("length", length)
    check_not_negative("candidates", candidates)

    def cost(layers: Float[np.ndarray, "*shape"], dim: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        block = backbone.block(dim, length)
        return 3 * (layers * (2 * block.weights + 2 * length * block.attended) + 2 * candidates * dim)

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
