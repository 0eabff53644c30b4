"""Wukong's interaction stack (arXiv 2403.02545, section 3): FMB, LCB, the layer, and the model.

Initialisation, on purpose: after LayerNorm the entries of X have unit variance, so Y, W_L and the residual projection
are N(0, 1/n), which keeps X^T Y, LCB(X) and R(X) at unit variance whatever n is. (A Y of unit variance makes the FM's
output grow with n; the LayerNorm behind it hides that forward, but the gradient through the FM is out of proportion.)
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import AttentiveConfig, WukongConfig
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.models.embedding_layer import EmbeddingLayer
from wukong_jax.models.layers import LAYER_NORM_EPSILON, MLP, LayerNorm, logit_init
from wukong_jax.ops.fm import Compressed, add_layer_norm, compress, fm_layer_norm
from wukong_jax.ops.platform import Implementation

# over the embedding axis: variance 1/n for a matrix [n, m] used as X^T W
over_embeddings = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class AttentiveProjection(nn.Module):
    """A projection of each example's own: Y = Y_static + reshape(MLP(LN(flatten(W_c X))), [n, k]) / sqrt(n).

    Section 3.6 says only "linearly compressed input through an MLP"; this is our reading of it.
    """

    rank: int
    config: AttentiveConfig
    implementation: Implementation = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"], *, train: bool = False) -> Float[Array, "batch n k"]:
        """The example's Y."""
        batch, n, _ = x.shape
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        static = self.param("static", over_embeddings, (n, self.rank), self.param_dtype)
        weight = self.param("compress", over_embeddings, (n, self.config.compressed or self.rank), self.param_dtype)
        found = compress(x, {"": weight}, dtype=self.dtype, implementation=self.implementation)[""]
        flat = LayerNorm(self.param_dtype, self.implementation, name="norm")(found.reshape(batch, -1))
        own = MLP(self.config.mlp, outputs=n * self.rank, name="mlp", **types)(flat, train=train)
        return (static + own.reshape(batch, n, self.rank) / math.sqrt(n)).astype(x.dtype)


class FactorizationMachineBlock(nn.Module):
    """FMB(X) = reshape(MLP(LN(flatten(FM(X)))), [n_F, d]) (section 3.4); FM full, low-rank or attentive (3.6)."""

    num_embeddings: int
    mlp: MLPConfig = MLPConfig()
    fm: str = "low_rank"
    rank: int = 8
    attentive: AttentiveConfig = AttentiveConfig()
    implementation: Implementation = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def __call__(self, x: Float[Array, "batch n d"], *, train: bool = False) -> Float[Array, "batch n_F d"]:
        """Map n embeddings to n_F embeddings of all their pairwise interactions."""
        return self.together(x, {}, train=train)[0]

    @nn.compact
    def together(
        self, x: Float[Array, "batch n d"], linear: Mapping[str, Float[Array, "n _"] | None], *, train: bool = False
    ) -> tuple[Float[Array, "batch n_F d"], Compressed]:
        """The block, and W^T X for each W of `linear` (None: X), which the block's own projection makes cheaper."""
        batch, n, d = x.shape
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y: Any = None
        if self.fm == "low_rank":
            y = self.param("projection", over_embeddings, (n, self.rank), self.param_dtype)
        elif self.fm == "attentive":
            own = AttentiveProjection(self.rank, self.attentive, self.implementation, name="projection", **types)
            y = own(x, train=train)
        scale, bias = LayerNorm(self.param_dtype, name="norm").parameters(n * (n if y is None else self.rank))
        flat, compressed = fm_layer_norm(
            x, y, scale, bias, linear,
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype, implementation=self.implementation,
        )  # fmt: skip
        embeddings = MLP(self.mlp, outputs=self.num_embeddings * d, name="mlp", **types)(flat, train=train)
        return embeddings.reshape(batch, -1, d), compressed


class LinearCompressBlock(nn.Module):
    """LCB(X) = W_L X with W_L [n_L, n], without bias (section 3.5); also the residual's projection."""

    num_embeddings: int
    implementation: Implementation = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def weight(self, n: int) -> Float[Array, "n n_L"]:
        """W_L^T for n embeddings."""
        return jnp.asarray(self.param("weight", over_embeddings, (n, self.num_embeddings), self.param_dtype))

    def __call__(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n_L d"]:
        """Map n embeddings to n_L linear combinations of them."""
        weight = {"": self.weight(x.shape[1])}
        return compress(x, weight, dtype=self.dtype, implementation=self.implementation)[""]


class WukongLayer(nn.Module):
    """X' = LN(concat(FMB(X), LCB(X)) + R(X)), LN over d (section 3.3).

    R is the identity if n = n_F + n_L, else a linear map over the embedding axis.
    """

    num_fmb: int
    num_lcb: int
    rank: int = 8
    fmb_mlp: MLPConfig = MLPConfig()
    fm: str = "low_rank"
    attentive: AttentiveConfig = AttentiveConfig()
    residual: bool = True
    use_fmb: bool = True
    use_lcb: bool = True
    implementation: Implementation = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"], train: bool = False) -> Float[Array, "batch n_out d"]:
        """Map n embeddings to n_F + n_L embeddings."""
        batch, n, d = x.shape
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        outputs = self.num_fmb + self.num_lcb
        linear: dict[str, Float[Array, "n _"] | None] = {}
        if self.use_lcb:
            linear["lcb"] = LinearCompressBlock(self.num_lcb, name="lcb", **types).weight(n)
        if self.residual:
            same = n == outputs
            linear["residual"] = None if same else LinearCompressBlock(outputs, name="residual", **types).weight(n)
        # the paper's own formulas have no product in common; that also tells their FLOPs apart
        together = self.use_fmb and self.implementation != "reference"
        compressed: Compressed = {}
        if not together:
            weights = {name: weight for name, weight in linear.items() if weight is not None}
            compressed = compress(x, weights, dtype=self.dtype, implementation=self.implementation)
        interactions = jnp.zeros((batch, self.num_fmb, d), x.dtype)
        if self.use_fmb:
            block = FactorizationMachineBlock(
                self.num_fmb, self.fmb_mlp, self.fm, self.rank, self.attentive, self.implementation, name="fmb", **types
            )
            interactions, beside = block.together(x, linear if together else {}, train=train)
            compressed |= beside
        linear_part = compressed.get("lcb", jnp.zeros((batch, self.num_lcb, d), x.dtype))
        residual = compressed.get("residual", x) if self.residual else None
        scale, bias = LayerNorm(self.param_dtype, name="norm").parameters(d)
        parts = (interactions, linear_part)
        return add_layer_norm(parts, residual, scale, bias, LAYER_NORM_EPSILON, implementation=self.implementation)


class Wukong(nn.Module):
    """Embedding layer, l interaction layers, flatten, MLP, one logit a task."""

    config: WukongConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32 at least."""
        config = self.config
        types: dict[str, Any] = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}
        x = self.embedding_layer(inputs, train=train)
        layer_class = nn.remat(WukongLayer, static_argnums=(2,)) if config.remat else WukongLayer
        for index in range(config.num_layers):
            layer = config.layer(index)
            x = layer_class(
                num_fmb=layer.num_fmb,
                num_lcb=layer.num_lcb,
                rank=layer.rank,
                fmb_mlp=layer.fmb_mlp,
                fm=config.fm,
                attentive=config.attentive,
                residual=config.residual,
                use_fmb=config.use_fmb,
                use_lcb=config.use_lcb,
                implementation=config.implementation,
                name=f"layer_{index}",
                **types,
            )(x, train)
        flat = x.reshape(x.shape[0], -1)
        # the last product is in float32 at least: logits rounded to bfloat16 would tie
        last: dict[str, Any] = {"output_init": logit_init, "output_dtype": jnp.promote_types(config.dtype, jnp.float32)}
        if config.separate_heads:
            heads = [MLP(config.head, 1, **last, name=f"head_{task}", **types) for task in range(self.tasks)]
            return jnp.concatenate([head(flat, train=train) for head in heads], axis=1)
        return MLP(config.head, self.tasks, **last, name="head", **types)(flat, train=train)
