"""Parameters and forward FLOPs of a backbone by formula: in microseconds what its traced program has.

d width, f hidden width, N blocks, L sequence length; HSTU: a and v the widths of all heads' queries and values.
Matrix products alone count, 2 FLOPs per multiply-add, attention as computed, over all L positions:

             parameters of a block                           FLOPs of a block, per token
    SASRec   4 d^2 + 2 d f + 9 d + f                         2 (4 d^2 + 2 d f) + 4 L d
    HSTU     2 d a + 3 d v + d + max_length (+ buckets + 1)  2 (2 d a + 3 d v) + 2 L (a + v)
    LLaMA    4 d^2 + 3 d f + 2 d (and d behind the last)     2 (4 d^2 + 3 d f) + 4 L d
"""

import dataclasses
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from wukong_jax.config.checks import check_between
from wukong_jax.config.sequential import BackboneConfig, HSTUConfig, LlamaConfig, SASRecConfig

Count = TypeVar("Count", int, np.ndarray)
"""One model's number, or those of many models of one kind."""


@dataclasses.dataclass(frozen=True)
class BlockCost(Generic[Count]):
    """One block's parameters and what its attention works with."""

    weights: Count
    """In matrices: 2 FLOPs each, per token."""
    others: Count
    """Biases, scales and bias tables."""
    attended: Count
    """Values of all heads' queries and values: 2 FLOPs each, per token and position."""


def sasrec_block(d: Count, hidden: Count) -> BlockCost[Count]:
    """A SASRec block of width d, its feed-forward layer `hidden` wide."""
    return BlockCost(4 * d * d + 2 * d * hidden, 9 * d + hidden, 2 * d)


def hstu_block(d: Count, attention: Count, linear: Count, biases: int) -> BlockCost[Count]:
    """An HSTU block; widths of all heads' queries and values, entries of its tables of relative biases."""
    return BlockCost(2 * d * attention + 3 * d * linear, d + biases, attention + linear)


def llama_block(d: Count, hidden: Count) -> BlockCost[Count]:
    """A LLaMA block."""
    return BlockCost(4 * d * d + 3 * d * hidden, 2 * d, 2 * d)


class BackboneCost(NamedTuple):
    """What a backbone takes, without the item table and the scores of items."""

    parameters: int
    """Non-embedding: of the blocks, with HSTU's relative biases, and of the last norm."""
    position_parameters: int
    """Learned positions."""
    forward_flops: int
    """Per token, at the given length."""


def backbone_cost(config: BackboneConfig, *, times: bool = False, length: int | None = None) -> BackboneCost:
    """Cost of the config's backbone, with HSTU's time bias if `times`; the length is max_length when not given.

    Raises `ConfigError` for a length below 1 or beyond max_length.
    """
    length = config.max_length if length is None else length
    check_between("length", length, 1.0, config.max_length + 1.0)
    d, last, positions = config.width, 0, config.max_length * config.width
    match config:
        case SASRecConfig():
            block = sasrec_block(d, config.hidden_width)
            positions *= config.positions
        case HSTUConfig():
            attention, linear = config.num_heads * config.head_attention_dim, config.num_heads * config.head_linear_dim
            biases = config.max_length + (config.time_buckets + 1 if times else 0)
            block = hstu_block(d, attention, linear, biases)
            positions *= config.positions
        case LlamaConfig():
            block = llama_block(d, config.hidden_width)
            last, positions = d, 0
    forward = 2 * block.weights + 2 * length * block.attended
    layers = config.num_layers
    return BackboneCost(layers * (block.weights + block.others) + last, positions, layers * forward)
