"""Settings of the models that Wukong is compared with; each class names its paper."""

import dataclasses
from typing import Literal

from wukong_jax.config.checks import check_between, check_positive, check_unique
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class DNNConfig:
    """An MLP on the flattened embeddings."""

    width: int = 16
    """Embedding width d."""
    mlp: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers between the flattened embeddings and the logits."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.width", self.width)


@dataclasses.dataclass(frozen=True)
class WideDeepConfig:
    """Wide & Deep (Cheng et al. 2016): first-order weights and an MLP on embeddings, summed."""

    width: int = 16
    """Embedding width d."""
    mlp: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers between the flattened embeddings and the MLP's part of the logits."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer; its init_stddev is that of the first-order weights too."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.width", self.width)


@dataclasses.dataclass(frozen=True)
class DeepFMConfig:
    """DeepFM (Guo et al. 2017): a factorization machine and an MLP on the same embeddings, summed."""

    width: int = 16
    """Embedding width d."""
    mlp: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers between the flattened embeddings and the MLP's part of the logits."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer; its init_stddev is that of the first-order weights too."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.width", self.width)


@dataclasses.dataclass(frozen=True)
class DLRMConfig:
    """DLRM (Naumov et al. 2019): dot products of all pairs of embeddings, then an MLP."""

    width: int = 16
    """Embedding width d."""
    interaction: Literal["dot", "concat"] = "dot"
    """All pairwise dot products beside the lifted continuous features; or the embeddings side by side, as in BARS."""
    top_mlp: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers between the interactions and the logits."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer; its dense_mlp holds the hidden layers of the bottom MLP."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.width", self.width)


@dataclasses.dataclass(frozen=True)
class DCNv2Config:
    """DCNv2 (Wang et al. 2021): cross layers x_0 * (W x + b) + x, with or without an MLP."""

    width: int = 16
    """Embedding width d."""
    structure: Literal["stacked", "parallel", "cross_only"] = "stacked"
    """MLP on the cross network's output; MLP beside the cross network; no MLP."""
    num_layers: int = 2
    """Cross layers."""
    cross: Literal["full", "low_rank", "mixture"] = "full"
    """W of each cross layer: a full matrix, U V^T, or a gated mixture of low-rank experts."""
    rank: int | None = None
    """Rank of U and V; for low_rank and mixture only."""
    num_experts: int | None = None
    """Experts of each cross layer; for mixture only."""
    mlp: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers of the MLP; cross_only needs `MLPConfig()`."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer."""

    def __post_init__(self) -> None:
        """Check sizes, and that each option has what it is for; raises `ConfigError`."""
        check_positive("model.width", self.width)
        check_positive("model.num_layers", self.num_layers)
        for name, users in (("rank", ("low_rank", "mixture")), ("num_experts", ("mixture",))):
            value = getattr(self, name)
            if self.cross in users and value is None:
                raise ConfigError(f"model.{name}: not given, but model.cross {self.cross!r} needs it; give a number")
            if self.cross not in users and value is not None:
                raise ConfigError(
                    f"model.{name}: received {value}, but model.cross {self.cross!r} has none; leave it out, or use "
                    f"model.cross {' or '.join(map(repr, users))}"
                )
            if value is not None:
                check_positive(f"model.{name}", value)
        if self.structure == "cross_only" and self.mlp != MLPConfig():
            raise ConfigError(
                f"model.mlp: received {self.mlp}, but model.structure 'cross_only' has no MLP; use mlp=MLPConfig(), or "
                "'stacked' or 'parallel'"
            )
        if self.structure != "cross_only" and not self.mlp.widths:
            raise ConfigError(
                f"model.mlp.widths: received none, but model.structure {self.structure!r} needs hidden layers; name "
                "their widths, or use 'cross_only'"
            )


@dataclasses.dataclass(frozen=True)
class FinalMLPConfig:
    """FinalMLP (Mao et al. 2023): two gated MLP streams and a multi-head bilinear fusion."""

    width: int = 16
    """Embedding width d."""
    mlp1: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers of the first stream."""
    mlp2: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers of the second stream."""
    num_heads: int = 1
    """Parts of each stream's output that are fused part by part."""
    gates: MLPConfig | None = MLPConfig(widths=(64,))
    """Hidden layers of the two feature selection gates; None for no feature selection."""
    context1: tuple[str, ...] = ()
    """Categorical or multi-hot features whose own embeddings drive the first gate; empty for a learned vector."""
    context2: tuple[str, ...] = ()
    """The same for the second gate."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer; its init_stddev is that of the contexts' tables too."""

    def __post_init__(self) -> None:
        """Check sizes, heads and gates; raises `ConfigError`."""
        check_positive("model.width", self.width)
        check_positive("model.num_heads", self.num_heads)
        for name in ("mlp1", "mlp2"):
            widths = getattr(self, name).widths
            if not widths:
                raise ConfigError(f"model.{name}.widths: received none, expected at least one hidden layer")
            if widths[-1] % self.num_heads:
                raise ConfigError(
                    f"model.num_heads: received {self.num_heads}, expected a divisor of {widths[-1]}, the last width "
                    f"of model.{name}"
                )
        for name in ("context1", "context2"):
            context = getattr(self, name)
            check_unique(f"model.{name}", context)
            if context and self.gates is None:
                raise ConfigError(
                    f"model.{name}: received {list(context)}, but model.gates is None, so that nothing reads it; leave "
                    "it out, or give gates"
                )
            if not context and self.gates is not None and (self.gates.batch_norm or self.gates.dropout):
                raise ConfigError(
                    f"model.gates: received batch_norm={self.gates.batch_norm}, dropout={self.gates.dropout}, but "
                    f"without model.{name} that gate is the same for all examples, so that there is nothing to "
                    "normalise or drop; leave both out, or name context features"
                )


@dataclasses.dataclass(frozen=True)
class AutoIntConfig:
    """AutoInt (Song et al. 2019): multi-head self-attention between the embeddings; with `dnn`, AutoInt+."""

    width: int = 16
    """Embedding width d."""
    num_layers: int = 3
    """Self-attention layers."""
    attention_width: int = 32
    """Values that each embedding has after a layer, all heads together."""
    num_heads: int = 2
    """Attention heads of a layer."""
    scale: bool = False
    """Divide the scores by the square root of a head's width; AutoInt's paper does not."""
    layer_norm: bool = False
    """LayerNorm between a layer's residual sum and its ReLU."""
    dropout: float = 0.0
    """Share of the attention weights dropped in training."""
    dnn: MLPConfig | None = None
    """Hidden layers of an MLP on the flattened embeddings, whose logits are added (AutoInt+); None for no MLP."""
    linear: bool = False
    """Add first-order weights of all ids and values."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer; its init_stddev is that of the first-order weights too."""

    def __post_init__(self) -> None:
        """Check sizes and heads; raises `ConfigError`."""
        for name in ("width", "num_layers", "attention_width", "num_heads"):
            check_positive(f"model.{name}", getattr(self, name))
        check_between("model.dropout", self.dropout, 0.0, 1.0)
        if self.attention_width % self.num_heads:
            raise ConfigError(
                f"model.num_heads: received {self.num_heads}, expected a divisor of model.attention_width, "
                f"{self.attention_width}"
            )


@dataclasses.dataclass(frozen=True)
class AFNConfig:
    """AFN (Cheng et al. 2020): products of powers of the embeddings, by logarithms; with `dnn`, AFN+."""

    width: int = 16
    """Embedding width d."""
    log_neurons: int = 64
    """Logarithmic neurons: cross features of learned orders."""
    mlp: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers between the cross features and their logits."""
    dnn: MLPConfig | None = None
    """Hidden layers of an MLP on flattened embeddings beside them (AFN+); None for no MLP."""
    shared_tables: bool = False
    """Let the DNN read the embeddings of the cross features instead of a second embedding layer of its own."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer, and the DNN's second one."""

    def __post_init__(self) -> None:
        """Check sizes, and that tables can be shared; raises `ConfigError`."""
        check_positive("model.width", self.width)
        check_positive("model.log_neurons", self.log_neurons)
        if self.shared_tables and self.dnn is None:
            raise ConfigError(
                "model.shared_tables: received True, but model.dnn is None, so that nothing shares them; leave it out, "
                "or give dnn"
            )

    @property
    def batch_norm(self) -> bool:
        """Always: logarithms and products are normalised over the batch, whatever the MLPs do."""
        return True


@dataclasses.dataclass(frozen=True)
class XDeepFMConfig:
    """xDeepFM (Lian et al. 2018): compressed interaction network (CIN), first-order weights and MLP, summed."""

    width: int = 16
    """Embedding width d."""
    cin: tuple[int, ...] = (16, 16)
    """Feature maps of each CIN layer."""
    dnn: MLPConfig | None = MLPConfig(widths=(64,))
    """Hidden layers of the MLP on the flattened embeddings; None for no MLP."""
    linear: bool = True
    """Add first-order weights of all ids and values."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer; its init_stddev is that of the first-order weights too."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.width", self.width)
        if not self.cin:
            raise ConfigError("model.cin: received no layer, expected the feature maps of at least one")
        for maps in self.cin:
            check_positive("model.cin", maps)


@dataclasses.dataclass(frozen=True)
class MaskNetConfig:
    """MaskNet (Wang et al. 2021): blocks that multiply a vector by a mask made of the embeddings."""

    width: int = 16
    """Embedding width d."""
    structure: Literal["serial", "parallel"] = "serial"
    """Each block masks the output of the one before; or all mask the embeddings, and an MLP follows."""
    blocks: tuple[int, ...] = (64, 64)
    """Output width of each block."""
    mask_ratio: float = 1.0
    """Hidden values of a mask's generator, as a multiple of the values that it masks."""
    embedding_norm: bool = True
    """LayerNorm of the embeddings that are masked, with scale and bias of its own for each of them."""
    dropout: float = 0.0
    """Share of each block's output dropped in training."""
    mlp: MLPConfig = MLPConfig()
    """Hidden layers after parallel blocks; serial has none."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer."""

    def __post_init__(self) -> None:
        """Check sizes, and that there is an MLP only where one follows; raises `ConfigError`."""
        check_positive("model.width", self.width)
        check_positive("model.mask_ratio", self.mask_ratio)
        check_between("model.dropout", self.dropout, 0.0, 1.0)
        if not self.blocks:
            raise ConfigError("model.blocks: received no block, expected the output width of at least one")
        for width in self.blocks:
            check_positive("model.blocks", width)
        if self.structure == "serial" and self.mlp != MLPConfig():
            raise ConfigError(
                f"model.mlp: received {self.mlp}, but model.structure 'serial' has no MLP; use mlp=MLPConfig(), or "
                "'parallel'"
            )


@dataclasses.dataclass(frozen=True)
class FinalNetConfig:
    """FinalNet (Zhu et al. 2023): one or two blocks of factorized interaction layers, in place of linear ones."""

    width: int = 16
    """Embedding width d."""
    block1: MLPConfig = MLPConfig(widths=(64,), activation="identity", batch_norm=True)
    """Layers of the first block, which reads the gated embeddings; their linear maps are factorized interactions."""
    block2: MLPConfig | None = None
    """Layers of the second block, which reads the plain embeddings; None for one block."""
    gates: bool = True
    """Gate the first block's embeddings, each by a linear map over all of them."""
    residual: Literal["concat", "sum"] = "concat"
    """How a layer joins its linear half and its product: side by side, half of the width each, or added."""
    self_distillation: bool = False
    """Two blocks only: add to the training loss the cross entropy of each block's prediction to that of both."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.width", self.width)
        if self.self_distillation and self.block2 is None:
            raise ConfigError(
                "model.self_distillation: received True, but model.block2 is None, and one block has nothing to learn "
                "from the mean; leave it out, or give a second block"
            )
        for name in ("block1", "block2"):
            block = getattr(self, name)
            if block is None:
                continue
            if not block.widths:
                raise ConfigError(f"model.{name}.widths: received none, expected at least one layer")
            odd = [width for width in block.widths if width % 2]
            if odd and self.residual == "concat":
                raise ConfigError(
                    f"model.{name}.widths: received {odd}, but model.residual 'concat' needs even widths, half of them "
                    "products; make them even, or use 'sum'"
                )
