"""Settings of each model; the class fixes which model the registry builds."""

import dataclasses
from typing import Literal

from wukong_jax.config.baselines import (
    AFNConfig,
    AutoIntConfig,
    DCNv2Config,
    DeepFMConfig,
    DLRMConfig,
    DNNConfig,
    FinalMLPConfig,
    FinalNetConfig,
    MaskNetConfig,
    WideDeepConfig,
    XDeepFMConfig,
)
from wukong_jax.config.checks import check_positive
from wukong_jax.config.layers import DType, EmbeddingConfig, MLPConfig
from wukong_jax.config.sequential import HSTUConfig, LlamaConfig, SASRecConfig
from wukong_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class AttentiveConfig:
    """The generator of an example's own Y: compress to m embeddings, LayerNorm, MLP (paper, section 3.6)."""

    compressed: int | None = None
    """Embeddings m after the linear compression; the rank when not given."""
    mlp: MLPConfig = MLPConfig(widths=(128,))
    """Hidden layers before the last, linear one."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        if self.compressed is not None:
            check_positive("attentive.compressed", self.compressed)


@dataclasses.dataclass(frozen=True)
class LayerOverride:
    """Settings of one interaction layer that differ from the model's; None keeps the model's."""

    num_fmb: int | None = None
    num_lcb: int | None = None
    rank: int | None = None
    fmb_mlp: MLPConfig | None = None

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        for name in ("num_fmb", "num_lcb", "rank"):
            if getattr(self, name) is not None:
                check_positive(f"layers: {name}", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """All settings of one interaction layer."""

    num_fmb: int
    num_lcb: int
    rank: int
    fmb_mlp: MLPConfig


@dataclasses.dataclass(frozen=True)
class WukongConfig:
    """Wukong: stacked interaction layers of FMB and LCB, then an MLP (paper, section 3)."""

    width: int = 32
    """Embedding width d."""
    num_layers: int = 2
    """Interaction layers l."""
    num_fmb: int = 8
    """Embeddings n_F that each factorization machine block gives."""
    num_lcb: int = 8
    """Embeddings n_L that each linear compress block gives."""
    fm: Literal["full", "low_rank", "attentive"] = "low_rank"
    """X X^T; X (X^T Y) with learned Y; or the same with a Y that each example makes for itself."""
    rank: int = 8
    """Rank k of Y; not used by the full FM."""
    fmb_mlp: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers of each factorization machine block, before its linear output."""
    attentive: AttentiveConfig = AttentiveConfig()
    """The generator of Y; used by the attentive FM only."""
    head: MLPConfig = MLPConfig(widths=(64,))
    """Hidden layers between the flattened last layer and the logits."""
    separate_heads: bool = False
    """Give each task its own hidden layers instead of one logit each on shared ones."""
    layers: tuple[LayerOverride, ...] = ()
    """Settings layer by layer; empty, or one entry for each layer."""
    residual: bool = True
    """Add each layer's input to its output, projected where the number of embeddings changes."""
    use_fmb: bool = True
    """False replaces the output of every FMB by zeros (the paper's ablation)."""
    use_lcb: bool = True
    """False replaces the output of every LCB by zeros (the paper's ablation)."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """The embedding layer."""
    remat: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""
    implementation: Literal["auto", "reference", "xla", "xla_cpu", "cpu_kernel", "mosaic_gpu", "tpu"] = "auto"
    """How the interaction layers are computed: auto is, on CPU, cpu_kernel where it serves (float32, low rank, a C++
    compiler), else xla_cpu, and xla elsewhere; reference is the paper's formulas; mosaic_gpu (Hopper, bfloat16) and tpu
    are Pallas kernels, not timed yet."""
    dtype: DType = "float32"
    """Type of the products, forward and backward; LayerNorm statistics, sums and the loss stay in float32."""
    param_dtype: DType = "float32"
    """Type of the dense parameters."""

    def __post_init__(self) -> None:
        """Check sizes and the per-layer settings; raises `ConfigError`."""
        for name in ("width", "num_layers", "num_fmb", "num_lcb", "rank"):
            check_positive(f"model.{name}", getattr(self, name))
        if self.implementation in ("cpu_kernel", "mosaic_gpu", "tpu") and (self.fm != "low_rank" or not self.use_fmb):
            raise ConfigError(
                f"model.implementation: received {self.implementation!r} with model.fm {self.fm!r} and model.use_fmb "
                f"{self.use_fmb}, but that kernel computes the low-rank FM only; use 'auto'"
            )
        if not (self.use_fmb or self.use_lcb or self.residual):
            raise ConfigError("model: use_fmb, use_lcb and residual are all off, so nothing reaches the head; keep one")
        if self.layers and len(self.layers) != self.num_layers:
            raise ConfigError(
                f"model.layers: received {len(self.layers)} entries, expected none or num_layers={self.num_layers}"
            )

    def layer(self, index: int) -> LayerConfig:
        """All settings of layer `index`, the model's where the layer has none of its own."""
        own = self.layers[index] if self.layers else LayerOverride()
        return LayerConfig(
            num_fmb=own.num_fmb or self.num_fmb,
            num_lcb=own.num_lcb or self.num_lcb,
            rank=own.rank or self.rank,
            fmb_mlp=own.fmb_mlp or self.fmb_mlp,
        )


@dataclasses.dataclass(frozen=True)
class LogisticRegressionConfig:
    """A weight for each id and numeric value, summed: logit = b + sum_i w_i x_i."""

    init_stddev: float = 1e-4
    """Standard deviation of the normal initialisation of the weights."""

    def __post_init__(self) -> None:
        """Check the initialisation; raises `ConfigError`."""
        check_positive("model.init_stddev", self.init_stddev)


@dataclasses.dataclass(frozen=True)
class FactorizationMachineConfig:
    """Factorization machine (Rendle 2010): logistic regression plus all pairwise products of embeddings."""

    width: int = 16
    """Embedding width."""
    init_stddev: float = 1e-2
    """Standard deviation of the normal initialisation of tables and weights."""

    def __post_init__(self) -> None:
        """Check sizes; raises `ConfigError`."""
        check_positive("model.width", self.width)
        check_positive("model.init_stddev", self.init_stddev)


ModelConfig = (
    WukongConfig
    | LogisticRegressionConfig
    | FactorizationMachineConfig
    | DNNConfig
    | WideDeepConfig
    | DeepFMConfig
    | DLRMConfig
    | DCNv2Config
    | FinalMLPConfig
    | AutoIntConfig
    | AFNConfig
    | XDeepFMConfig
    | MaskNetConfig
    | FinalNetConfig
    | SASRecConfig
    | HSTUConfig
    | LlamaConfig
)
