"""AFN (Cheng et al., AAAI 2020, arXiv 1909.03276): cross features of learned orders; AFN+ adds an MLP.

Logarithmic neuron k: l_k = exp(sum_i W_ik log(max(|x_i|, 1e-5))) = prod_i max(|x_i|, 1e-5)^W_ik, element by element in
d; BatchNorm of the logarithms for each embedding and of the exponentials for each neuron, over batch and d; then
y_cross = MLP(flatten(l)). AFN+: y = w_1 y_cross + w_2 MLP(flatten(X')) + b, X' of a second embedding layer, with tables
`<feature>:dnn`, or X itself with `shared_tables`. Clamp and BatchNorms as in FuxiCTR.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wukong_jax.config.baselines import AFNConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.embeddings.specs import TableSpecs
from wukong_jax.models.embedding_layer import EmbeddingLayer, embedding_tables
from wukong_jax.models.layers import BATCH_NORM_EPSILON, MLP, logit_init

SUFFIX = ":dnn"
SMALLEST = 1e-5


def afn_tables(config: AFNConfig, schema: DatasetSchema) -> TableSpecs:
    """The embedding layer's tables, and a second set `<feature>:dnn` for a DNN that has its own."""
    first = embedding_tables(schema, config.embedding, config.width)
    if config.dnn is None or config.shared_tables:
        return first
    tables = (dataclasses.replace(table, name=table.name + SUFFIX) for table in first.tables)
    lookups = (dataclasses.replace(lookup, table=lookup.table + SUFFIX) for lookup in first.lookups)
    return TableSpecs((*first.tables, *tables), (*first.lookups, *lookups))


def second_inputs(inputs: Inputs) -> Inputs:
    """The inputs of the second embedding layer: what it looks up as `<feature>` is `<feature>:dnn`."""
    stacks = []
    for stack in inputs.plan.stacks:
        own = (lookup for lookup in stack.lookups if lookup.table.endswith(SUFFIX))
        renamed = (dataclasses.replace(lookup, table=lookup.table.removesuffix(SUFFIX)) for lookup in own)
        stacks.append(dataclasses.replace(stack, lookups=tuple(renamed)))
    return dataclasses.replace(inputs, plan=EmbeddingPlan(tuple(stacks)))


class LogarithmicLayer(nn.Module):
    """prod_i max(|x_i|, 1e-5)^W_ik for every neuron k, with BatchNorm of logarithms and of products."""

    neurons: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch n d"], *, train: bool = False) -> Float[Array, "batch neurons d"]:
        """Map n embeddings to `neurons` cross features."""
        orders = self.param("kernel", nn.initializers.glorot_normal(), (x.shape[1], self.neurons))
        logarithms = self._norm("log", train)(jnp.log(jnp.maximum(jnp.abs(x), SMALLEST)))
        products = jnp.exp(jnp.einsum("bnd,nk->bkd", logarithms, orders))
        return self._norm("exp", train)(products)

    def _norm(self, name: str, train: bool) -> nn.BatchNorm:
        return nn.BatchNorm(
            use_running_average=not train, axis=1, momentum=0.9, epsilon=BATCH_NORM_EPSILON, name=f"batch_norm_{name}"
        )


class AFN(nn.Module):
    """Embedding layer, logarithmic layer, MLP; in AFN+ a second embedding layer and MLP, and the sum of both."""

    config: AFNConfig
    embedding_layer: EmbeddingLayer
    tasks: int = 1

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch tasks"]:
        """Logits in float32."""
        config = self.config
        x = self.embedding_layer(inputs, train=train)
        crossed = LogarithmicLayer(config.log_neurons, name="logarithmic")(x, train=train)
        mlp = MLP(config.mlp, self.tasks, output_init=logit_init, name="mlp")
        logits = mlp(crossed.reshape(x.shape[0], -1), train=train)
        if config.dnn is None:
            return logits
        if not config.shared_tables:
            second = EmbeddingLayer(
                self.embedding_layer.schema, config.embedding, config.width, name="embedding_layer_dnn"
            )
            x = second(second_inputs(inputs), train=train)
        dnn = MLP(config.dnn, self.tasks, output_init=logit_init, name="dnn")
        both = jnp.stack([logits, dnn(x.reshape(x.shape[0], -1), train=train)], axis=1)
        weights = self.param("weight", nn.initializers.ones, (2, self.tasks))
        return (both * weights).sum(axis=1) + self.param("bias", nn.initializers.zeros, (self.tasks,))
