"""Parameters and forward FLOPs of a backbone by formula: in microseconds what its traced program has.

d width, f hidden width, N blocks, L sequence length; HSTU: a and v the widths of all heads' queries and values.
Matrix products alone count, 2 FLOPs per multiply-add, attention as computed, over all L positions:

             parameters of a block                           FLOPs of a block, per token
    SASRec   4 d^2 + 2 d f + 9 d + f                         2 (4 d^2 + 2 d f) + 4 L d
    HSTU     2 d a + 3 d v + d + max_length (+ buckets + 1)  2 (2 d a + 3 d v) + 2 L (a + v)
    LLaMA    4 d^2 + 3 d f + 2 d (and d behind the last)     2 (4 d^2 + 3 d f) + 4 L d
"""

from typing import NamedTuple

from wukong_jax.config.checks import check_between
from wukong_jax.config.sequential import BackboneConfig, HSTUConfig, LlamaConfig, SASRecConfig


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
            maps, attended = 4 * d * d + 2 * d * config.hidden_width, 2 * d
            rest, positions = 9 * d + config.hidden_width, positions * config.positions
        case HSTUConfig():
            attention, linear = config.num_heads * config.head_attention_dim, config.num_heads * config.head_linear_dim
            maps, attended = 2 * d * attention + 3 * d * linear, attention + linear
            rest = d + config.max_length + (config.time_buckets + 1 if times else 0)
            positions *= config.positions
        case LlamaConfig():
            maps, attended = 4 * d * d + 3 * d * config.hidden_width, 2 * d
            rest, last, positions = 2 * d, d, 0
    layers = config.num_layers
    return BackboneCost(layers * (maps + rest) + last, positions, layers * (2 * maps + 2 * length * attended))
