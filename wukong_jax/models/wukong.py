"""Wukong's interaction stack (arXiv 2403.02545, section 3): FMB, LCB, the layer, and the model.

Initialisation, on purpose: after LayerNorm the entries of X have unit variance, so Y, W_L and the residual projection
are N(0, 1/n), which keeps X^T Y, LCB(X) and R(X) at unit variance whatever n is. (A Y of unit variance makes the FM's
output grow with n; the LayerNorm behind it hides that forward, but the gradient through the FM is out of proportion.)
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import AttentiveConfig, WukongConfig
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.models.embedding_layer import EmbeddingLayer
from wukong_jax.models.layers import MLP, layer_norm, logit_init
from wukong_jax.ops.fm import attentive_fm, full_fm, low_rank_fm

# over the embedding axis: variance 1/n for a matrix [n, m] used as X^T W
over_embeddings = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class AttentiveProjection(nn.Module):
    """A projection of each example's own: Y = Y_static + reshape(MLP(LN(flatten(W_c X))), [n, k]) / sqrt(n).

    Section 3.6 says only "linearly compressed input through an MLP"; this is our reading of it.
    """

    rank: int
    config: AttentiveConfig
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"], *, train: bool = False) -> Float[Array, "batch n k"]:
        """The example's Y."""
        batch, n, _ = x.shape
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        static = self.param("static", over_embeddings, (n, self.rank), self.param_dtype)
        compress = self.param("compress", over_embeddings, (n, self.config.compressed or self.rank), self.param_dtype)
        compressed = jnp.einsum("bnd,nm->bmd", x, compress.astype(self.dtype))
        flat = layer_norm("norm", **types)(compressed.reshape(batch, -1))
        own = MLP(self.config.mlp, outputs=n * self.rank, name="mlp", **types)(flat, train=train)
        return static.astype(self.dtype) + own.reshape(batch, n, self.rank) / jnp.sqrt(n).astype(self.dtype)


class FactorizationMachineBlock(nn.Module):
    """FMB(X) = reshape(MLP(LN(flatten(FM(X)))), [n_F, d]) (section 3.4); FM full, low-rank or attentive (3.6)."""

    num_embeddings: int
    mlp: MLPConfig = MLPConfig()
    fm: str = "low_rank"
    rank: int = 8
    attentive: AttentiveConfig = AttentiveConfig()
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"], *, train: bool = False) -> Float[Array, "batch n_F d"]:
        """Map n embeddings to n_F embeddings of all their pairwise interactions."""
        batch, n, d = x.shape
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.fm == "full":
            interactions = full_fm(x)
        elif self.fm == "low_rank":
            y = self.param("projection", over_embeddings, (n, self.rank), self.param_dtype)
            interactions = low_rank_fm(x, y.astype(self.dtype))
        else:
            y = AttentiveProjection(self.rank, self.attentive, name="projection", **types)(x, train=train)
            interactions = attentive_fm(x, y)
        flat = layer_norm("norm", **types)(interactions.reshape(batch, -1))
        return MLP(self.mlp, outputs=self.num_embeddings * d, name="mlp", **types)(flat, train=train).reshape(
            batch, -1, d
        )


class LinearCompressBlock(nn.Module):
    """LCB(X) = W_L X with W_L [n_L, n], without bias (section 3.5); also the residual's projection."""

    num_embeddings: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n_L d"]:
        """Map n embeddings to n_L linear combinations of them."""
        weight = self.param("weight", over_embeddings, (x.shape[1], self.num_embeddings), self.param_dtype)
        return jnp.einsum("bnd,nm->bmd", x, weight.astype(self.dtype))


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
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"], train: bool = False) -> Float[Array, "batch n_out d"]:
        """Map n embeddings to n_F + n_L embeddings."""
        batch, n, d = x.shape
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        fmb = FactorizationMachineBlock(
            self.num_fmb, self.fmb_mlp, self.fm, self.rank, self.attentive, name="fmb", **types
        )
        lcb = LinearCompressBlock(self.num_lcb, name="lcb", **types)
        parts = [
            fmb(x, train=train) if self.use_fmb else jnp.zeros((batch, self.num_fmb, d), x.dtype),
            lcb(x) if self.use_lcb else jnp.zeros((batch, self.num_lcb, d), x.dtype),
        ]
        out = jnp.concatenate(parts, axis=1)
        if self.residual:
            outputs = self.num_fmb + self.num_lcb
            out = out + (x if n == outputs else LinearCompressBlock(outputs, name="residual", **types)(x))
        return layer_norm("norm", **types)(out)


class Wukong(nn.Module):
    """Embedding layer, l interaction layers, flatten, MLP, one logit a task."""

    config: WukongConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
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
                name=f"layer_{index}",
                **types,
            )(x, train)
        flat = x.reshape(x.shape[0], -1)
        # the last product is in float32: logits rounded to bfloat16 would tie
        last = {"output_init": logit_init, "output_dtype": jnp.float32}
        if config.separate_heads:
            heads = [MLP(config.head, 1, **last, name=f"head_{task}", **types) for task in range(self.tasks)]
            return jnp.concatenate([head(flat, train=train) for head in heads], axis=1)
        return MLP(config.head, self.tasks, **last, name="head", **types)(flat, train=train)
