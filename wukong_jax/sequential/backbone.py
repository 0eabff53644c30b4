"""Which module belongs to a backbone's config.

The contract: a module maps item vectors [batch, length, width], gathered outside, to user vectors of the same shape;
the one at position i has seen items 0 to i and is scored against the candidates for item i + 1. Sequences begin at
position 0 and padding follows, so `valid` is True up to a sequence's length and False behind it. Where a row holds
several sequences one after the other, `segments` numbers them; each is then read as if it were alone in a row.
"""

from wukong_jax.config.sequential import BackboneConfig, HSTUConfig, LlamaConfig, SASRecConfig
from wukong_jax.errors import ConfigError
from wukong_jax.sequential.hstu import HSTU
from wukong_jax.sequential.llama import Llama
from wukong_jax.sequential.sasrec import SASRec

Backbone = SASRec | HSTU | Llama


def check_dtype(config: BackboneConfig, platform: str) -> None:
    """Raise `ConfigError` for bfloat16 on CPU, where XLA has no batched product of it."""
    if config.dtype == "bfloat16" and platform == "cpu":
        raise ConfigError("model.dtype: received 'bfloat16' on CPU, which has no batched product of it; use 'float32'")


def build_backbone(config: BackboneConfig) -> Backbone:
    """The module of a config."""
    match config:
        case SASRecConfig():
            return SASRec(config)
        case HSTUConfig():
            return HSTU(config)
        case LlamaConfig():
            return Llama(config)


def reads_times(config: BackboneConfig) -> bool:
    """Whether the backbone takes the items' times; the others refuse them."""
    return isinstance(config, HSTUConfig)
