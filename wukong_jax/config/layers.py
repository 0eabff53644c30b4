"""Settings that several models share: MLPs and the embedding layer."""

import dataclasses
from typing import Literal

from wukong_jax.config.checks import check_between, check_positive, check_unique
from wukong_jax.errors import ConfigError

DType = Literal["float32", "bfloat16"]
Activation = Literal["relu", "gelu", "silu", "tanh", "sigmoid", "identity"]


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """Hidden layers, each linear -> BatchNorm (optional) -> activation -> dropout."""

    widths: tuple[int, ...] = ()
    """Width of each hidden layer; empty for none."""
    activation: Activation = "relu"
    """Activation after each hidden layer."""
    dropout: float = 0.0
    """Share of the hidden units dropped in training."""
    batch_norm: bool = False
    """Normalise each hidden unit over the batch, before the activation."""

    def __post_init__(self) -> None:
        """Check widths and dropout; raises `ConfigError`."""
        for width in self.widths:
            check_positive("mlp.widths", width)
        check_between("mlp.dropout", self.dropout, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class ImportantFeature:
    """A categorical or multi-hot feature that gets several embeddings (paper, section 3.2)."""

    feature: str
    num_embeddings: int

    def __post_init__(self) -> None:
        """Check the count; raises `ConfigError`."""
        check_positive(f"important feature {self.feature!r}: num_embeddings", self.num_embeddings)


@dataclasses.dataclass(frozen=True)
class FeatureGroup:
    """Less important features: small embeddings, concatenated and lifted by an MLP (paper, section 3.2)."""

    features: tuple[str, ...]
    width: int
    """Width of the small embeddings."""
    num_embeddings: int = 1
    """Embeddings of the model's width that the group gives."""
    mlp: MLPConfig = MLPConfig()
    """Hidden layers before the last, linear one."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        if not self.features:
            raise ConfigError("feature group: no features; name at least one, or leave the group out")
        check_unique("feature group: features", self.features)
        check_positive("feature group: width", self.width)
        check_positive("feature group: num_embeddings", self.num_embeddings)


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig:
    """How features become the n embeddings of width d that the interaction layers read."""

    important: tuple[ImportantFeature, ...] = ()
    """Features with more than one embedding."""
    groups: tuple[FeatureGroup, ...] = ()
    """Features that share one lifted embedding."""
    dense_mlp: MLPConfig = MLPConfig()
    """Hidden layers between the numeric features and their embeddings."""
    dense_embeddings: int = 1
    """Embeddings that all numeric features together give."""
    vector_embeddings: int = 1
    """Embeddings that each precomputed vector gives, by a linear lift."""
    init_stddev: float = 0.01
    """Standard deviation of the normal initialisation of the tables."""

    def __post_init__(self) -> None:
        """Check sizes and that no feature is named twice; raises `ConfigError`."""
        check_positive("dense_embeddings", self.dense_embeddings)
        check_positive("vector_embeddings", self.vector_embeddings)
        check_positive("init_stddev", self.init_stddev)
        named = [item.feature for item in self.important] + [name for group in self.groups for name in group.features]
        check_unique("embedding: important features and groups", named)
