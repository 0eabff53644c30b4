"""Settings of sequential recommenders: SASRec, HSTU and LLaMA-style backbones, and their next-item losses."""

import dataclasses

from wukong_jax.config.checks import check_between, check_positive
from wukong_jax.config.layers import DType
from wukong_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class SampledSoftmaxConfig:
    """Softmax over the target and uniform negatives, without a correction for their frequency."""

    num_negatives: int = 128
    """Negatives of each position, drawn uniformly with replacement; those equal to the target are masked."""
    temperature: float = 0.05
    """Divides the scores."""
    normalize: bool = True
    """Scale user and item vectors to length 1, so that scores are cosines."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.loss.num_negatives", self.num_negatives)
        check_positive("model.loss.temperature", self.temperature)


@dataclasses.dataclass(frozen=True)
class FullSoftmaxConfig:
    """Softmax over all items."""

    temperature: float = 0.05
    """Divides the scores."""
    normalize: bool = True
    """Scale user and item vectors to length 1, so that scores are cosines."""

    def __post_init__(self) -> None:
        """Check the temperature; raises `ConfigError`."""
        check_positive("model.loss.temperature", self.temperature)


@dataclasses.dataclass(frozen=True)
class BCEConfig:
    """Binary cross-entropy of the target against uniform negatives, on plain dot products (SASRec's own loss)."""

    num_negatives: int = 1
    """Negatives of each position, drawn uniformly with replacement; those equal to the target are masked."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.loss.num_negatives", self.num_negatives)


SequentialLossConfig = SampledSoftmaxConfig | FullSoftmaxConfig | BCEConfig


@dataclasses.dataclass(frozen=True)
class SASRecConfig:
    """SASRec (Kang and McAuley 2018): softmax self-attention and a ReLU feed-forward network."""

    width: int = 50
    """Width d of item and user vectors."""
    num_layers: int = 2
    """Blocks N."""
    num_heads: int = 1
    """Attention heads; a divisor of the width."""
    ffn_width: int | None = None
    """Hidden units of the feed-forward network; the width when not given."""
    dropout: float = 0.2
    """Share of the values dropped in training: of the input, the attention weights and the feed-forward network."""
    max_length: int = 200
    """Longest sequence."""
    positions: bool = True
    """Add a learned vector to each position's input."""
    init_stddev: float = 0.02
    """Standard deviation of the normal initialisation of the item table."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    dtype: DType = "float32"
    """Type of the products, forward and backward; normalisation, softmax and the loss stay in float32."""
    loss: SequentialLossConfig = SampledSoftmaxConfig()
    """Next-item loss."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        _check_backbone(self)
        _check_heads(self.width, self.num_heads)
        if self.ffn_width is not None:
            check_positive("model.ffn_width", self.ffn_width)

    @property
    def hidden_width(self) -> int:
        """Hidden units of the feed-forward network."""
        return self.width if self.ffn_width is None else self.ffn_width


@dataclasses.dataclass(frozen=True)
class HSTUConfig:
    """HSTU (Zhai et al. 2024, arXiv 2402.17152): SiLU attention with relative biases, gated, without a softmax."""

    width: int = 50
    """Width d of item and user vectors."""
    num_layers: int = 2
    """Blocks N."""
    num_heads: int = 1
    """Attention heads."""
    attention_dim: int | None = None
    """Width of each head's queries and keys; width / num_heads when not given."""
    linear_dim: int | None = None
    """Width of each head's values and gates; width / num_heads when not given."""
    dropout: float = 0.2
    """Share of the values dropped in training: of the input and in front of each block's last map."""
    max_length: int = 200
    """Longest sequence; attention is divided by it."""
    positions: bool = True
    """Add a learned vector to each position's input, besides the relative biases."""
    time_buckets: int = 128
    """Buckets of the time bias, each a factor of 1.35 in time; used where times are given."""
    init_stddev: float = 0.02
    """Standard deviation of the normal initialisation of the item table."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    dtype: DType = "float32"
    """Type of the products, forward and backward; normalisation, activations and the loss stay in float32."""
    loss: SequentialLossConfig = SampledSoftmaxConfig()
    """Next-item loss."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        _check_backbone(self)
        check_positive("model.time_buckets", self.time_buckets)
        for name in ("attention_dim", "linear_dim"):
            if getattr(self, name) is not None:
                check_positive(f"model.{name}", getattr(self, name))
            else:
                _check_heads(self.width, self.num_heads, f"; or give model.{name}")

    @property
    def head_attention_dim(self) -> int:
        """Width of each head's queries and keys."""
        return self.width // self.num_heads if self.attention_dim is None else self.attention_dim

    @property
    def head_linear_dim(self) -> int:
        """Width of each head's values and gates."""
        return self.width // self.num_heads if self.linear_dim is None else self.linear_dim


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """LLaMA-style decoder (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, no biases."""

    width: int = 64
    """Width d of item and user vectors."""
    num_layers: int = 2
    """Blocks N."""
    num_heads: int = 1
    """Attention heads; width / num_heads must be even, for the rotation of pairs."""
    ffn_width: int | None = None
    """Hidden units of the SwiGLU; 8/3 of the width, rounded up, when not given (12 d^2 parameters a block)."""
    dropout: float = 0.2
    """Share of the values dropped in training: of the input and of each residual branch."""
    max_length: int = 200
    """Longest sequence."""
    rotary_base: float = 10_000.0
    """Slowest pair turns by about 1 / rotary_base radians a position."""
    init_stddev: float = 0.02
    """Standard deviation of the normal initialisation of the item table."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    dtype: DType = "float32"
    """Type of the products, forward and backward; normalisation, softmax and the loss stay in float32."""
    loss: SequentialLossConfig = SampledSoftmaxConfig()
    """Next-item loss."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        _check_backbone(self)
        _check_heads(self.width, self.num_heads)
        if self.width // self.num_heads % 2:
            raise ConfigError(
                f"model.num_heads: received {self.num_heads} with model.width {self.width}, heads of width "
                f"{self.width // self.num_heads}; expected an even width of each head, whose pairs are rotated"
            )
        check_positive("model.rotary_base", self.rotary_base)
        if self.ffn_width is not None:
            check_positive("model.ffn_width", self.ffn_width)

    @property
    def hidden_width(self) -> int:
        """Hidden units of the SwiGLU."""
        return -(-8 * self.width // 3) if self.ffn_width is None else self.ffn_width


BackboneConfig = SASRecConfig | HSTUConfig | LlamaConfig


def _check_backbone(config: BackboneConfig) -> None:
    for name in ("width", "num_layers", "num_heads", "max_length", "init_stddev"):
        check_positive(f"model.{name}", getattr(config, name))
    check_between("model.dropout", config.dropout, 0.0, 1.0)


def _check_heads(width: int, num_heads: int, otherwise: str = "") -> None:
    if width % num_heads:
        raise ConfigError(
            f"model.num_heads: received {num_heads}, expected a divisor of model.width={width}{otherwise}"
        )
