"""DCNv2 (Wang et al., WWW 2021, arXiv 2008.13535): cross layers of bit-wise interactions, with or without an MLP.

x_0 = flatten(X), D values; every cross layer is x_{l+1} = x_0 * (f(x_l) + b_l) + x_l, where
    full:     f(x) = W x, W [D, D]
    low rank: f(x) = U V^T x, U and V [D, r]
    mixture:  f(x) = sum_e G_e(x) U_e tanh(C_e tanh(V_e^T x)), C [r, r], G the softmax of a linear map of x, which the
              layers share (no layer index in the paper, nor in FuxiCTR); as sum_e G_e = 1, one b_l serves all experts.
stacked: y = MLP(x_L); parallel: y = w^T concat(x_L, MLP(x_0)); cross only: y = w^T x_L.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.baselines import DCNv2Config
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.models.embedding_layer import EmbeddingLayer
from wukong_jax.models.layers import MLP, Dense, logit_init

per_expert = nn.initializers.glorot_normal(batch_axis=0)


class LowRank(nn.Module):
    """U V^T x + b."""

    rank: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch D"]) -> Float[Array, "batch D"]:
        """Map each example's vector through r values."""
        v = self.param("v", nn.initializers.glorot_normal(), (x.shape[1], self.rank))
        return Dense(x.shape[1], name="u")(jnp.einsum("bi,ir->br", x, v))


class Experts(nn.Module):
    """sum_e G_e U_e tanh(C_e tanh(V_e^T x)) + b, for given gates G."""

    rank: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch D"], gates: Float[Array, "batch experts"]) -> Float[Array, "batch D"]:
        """Map each example's vector through r values of every expert."""
        size, experts = x.shape[1], gates.shape[1]
        v = self.param("v", per_expert, (experts, size, self.rank))
        c = self.param("c", per_expert, (experts, self.rank, self.rank))
        u = self.param("u", per_expert, (experts, self.rank, size))
        bias = self.param("bias", nn.initializers.zeros, (size,))
        small = jnp.tanh(jnp.einsum("bi,eir->ber", x, v))
        small = jnp.tanh(jnp.einsum("ber,ers->bes", small, c))
        return jnp.einsum("ber,eri->bi", gates[:, :, None] * small, u) + bias


class CrossNetwork(nn.Module):
    """x_0 to x_L."""

    config: DCNv2Config

    @nn.compact
    def __call__(self, x0: Float[Array, "batch D"]) -> Float[Array, "batch D"]:
        """Cross each example's vector with itself, one order higher a layer."""
        # the config has a rank and experts exactly where its kind of layer does
        rank, experts, x = self.config.rank, self.config.num_experts, x0
        gate = nn.Dense(experts, use_bias=False, name="gate") if experts else None
        for index in range(self.config.num_layers):
            name = f"layer_{index}"
            if gate is not None and rank:
                mapped = Experts(rank, name=name)(x, jax.nn.softmax(gate(x)))
            elif rank:
                mapped = LowRank(rank, name=name)(x)
            else:
                mapped = Dense(x0.shape[1], name=name)(x)
            x = x0 * mapped + x
        return x


class DCNv2(nn.Module):
    """Embedding layer, flatten, cross network and MLP one after the other or side by side, one logit a task."""

    config: DCNv2Config
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        x = self.embedding_layer(inputs, train=train)
        x0 = x.reshape(x.shape[0], -1)
        out = CrossNetwork(self.config, name="cross")(x0)
        if self.config.structure == "stacked":
            out = MLP(self.config.mlp, name="mlp")(out, train=train)
        elif self.config.structure == "parallel":
            out = jnp.concatenate([out, MLP(self.config.mlp, name="mlp")(x0, train=train)], axis=1)
        return Dense(self.tasks, logit_init, name="head")(out)
