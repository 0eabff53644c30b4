"""Next-item losses: full softmax, sampled softmax and binary cross-entropy, over a whole item table or gathered rows.

Position i of a sequence has a user vector u_i and the target item y_i. A score is s(u, v) = <u, v>; with `normalize`,
<u/max(|u|, 1e-6), v/max(|v|, 1e-6)> / temperature, else <u, v> / temperature. Negatives j are those of the position,
or of the sequence where rows are gathered, that differ from y_i.

    full softmax     log sum_{all v} exp s(u_i, v) - s(u_i, y_i)
    sampled softmax  log(exp s(u_i, y_i) + sum_j exp s(u_i, v_j)) - s(u_i, y_i)       (no correction for frequency)
    BCE              softplus(-s(u_i, y_i)) + sum_j softplus(s(u_i, v_j))             (plain scores, no temperature)

What is returned is the sum over the valid positions of a batch.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, PRNGKeyArray, Shaped

from wukong_jax.config.sequential import BCEConfig, FullSoftmaxConfig, SampledSoftmaxConfig, SequentialLossConfig
from wukong_jax.errors import ConfigError

EPSILON = 1e-6
# Up to this many items a negative, all scores by one product are faster than gathering each negative's vector: 190
# against 240 ms with 1,700 items and 128 negatives, 322 against 261 ms with 3,706 (CPU, 2 cores, 25,600 positions).
ITEMS_A_NEGATIVE = 16
# What the scores or gathered vectors of one chunk of positions may take: on CPU what its caches hold.
CHUNK_BYTES = {"cpu": 6 * 2**20}
OTHER_CHUNK_BYTES = 512 * 2**20


def draw_negatives(
    key: PRNGKeyArray, config: SequentialLossConfig, shape: tuple[int, ...], num_items: int
) -> Int32[Array, "*shape negatives"]:
    """Uniform items for each position, or each sequence, of `shape`, with replacement.

    Uniform to num_items / 2^32. Raises `ConfigError` for the full softmax, which has no negatives.
    """
    if isinstance(config, FullSoftmaxConfig):
        raise ConfigError("model.loss: the full softmax scores all items; draw no negatives for it")
    # a word each and a remainder: two words and a multiplication, as randint has it, take 2.5 times as long
    words = jax.random.bits(key, (*shape, config.num_negatives), jnp.uint32)
    return (words % np.uint32(num_items)).astype(jnp.int32)


def score_vectors(
    config: SequentialLossConfig, users: Float[Array, "*batch width"], items: Float[Array, "*rows width"]
) -> tuple[Float[Array, "*batch width"], Float[Array, "*rows width"]]:
    """Users and items whose dot products are the scores."""
    if isinstance(config, BCEConfig):
        return users, items
    if config.normalize:
        users, items = _unit(users), _unit(items)
    return users / config.temperature, items


def table_loss(
    config: SequentialLossConfig,
    users: Float[Array, "batch length width"],
    targets: Int[Array, "batch length"],
    valid: Bool[Array, "batch length"],
    items: Float[Array, "num_items width"],
    negatives: Int[Array, "batch length negatives"] | None = None,
) -> Float[Array, ""]:
    """Loss over a whole item table, with gradients to users and table; in chunks of positions, so memory is bounded.

    Negatives are `draw_negatives`' ids, None for the full softmax. Targets at padding may be anything.
    """
    _check_negatives(config, negatives is not None)
    users, items = score_vectors(config, users, items)
    gathered = negatives is not None and items.shape[0] > ITEMS_A_NEGATIVE * negatives.shape[-1]
    width = negatives.shape[-1] * items.shape[1] if gathered and negatives is not None else items.shape[0]
    chunks = _chunks(valid.size, 4 * width)
    positions = (users, jnp.where(valid, targets, 0), valid, negatives)
    split = jax.tree.map(lambda x: _split(x.reshape(valid.size, *x.shape[2:]), chunks), positions)
    return _chunked_total(_GatheredChunk(config) if gathered else _DenseChunk(config), split, items)


def rows_loss(
    config: SampledSoftmaxConfig | BCEConfig,
    users: Float[Array, "batch length width"],
    targets: Int[Array, "batch length"],
    valid: Bool[Array, "batch length"],
    positives: Float[Array, "batch length width"],
    negatives: Int[Array, "negatives"],
    negative_vectors: Float[Array, "negatives width"],
) -> Float[Array, ""]:
    """Loss over gathered rows of the item table, those of the targets and of the negatives that all positions share.

    For a table whose update touches the gathered rows alone.
    """
    users, positives = score_vectors(config, users, positives)
    _, negative_vectors = score_vectors(config, users, negative_vectors)
    positive_scores = (users * positives).sum(axis=-1)
    negative_scores = jnp.einsum("blw,nw->bln", users, negative_vectors)
    losses = _losses(config, positive_scores, negative_scores, negatives == targets[:, :, None])
    return jnp.where(valid, losses, 0).sum()


def _losses(
    config: SequentialLossConfig, positives: jax.Array, negatives: jax.Array, same: jax.Array
) -> Float[Array, "*positions"]:
    """Loss of each position from its scores; `same` marks negatives that are the target."""
    if isinstance(config, BCEConfig):
        return jax.nn.softplus(-positives) + jnp.where(same, 0, jax.nn.softplus(negatives)).sum(axis=-1)
    negatives = jnp.where(same, -jnp.inf, negatives)
    return jax.nn.logsumexp(jnp.concatenate([positives[..., None], negatives], axis=-1), axis=-1) - positives


def _unit(x: jax.Array) -> jax.Array:
    # the square's maximum, not the root's: its gradient at 0 is finite
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), EPSILON**2))


def _check_negatives(config: SequentialLossConfig, given: bool) -> None:
    if given == isinstance(config, FullSoftmaxConfig):
        received = "received some" if given else "none given"
        expected = "none: the full softmax has no negatives" if given else "ids from draw_negatives"
        raise ConfigError(f"negatives: {received}, expected {expected}")


class _DenseChunk(NamedTuple):
    """Scores of all items by one product, of which the negatives' are picked."""

    config: SequentialLossConfig

    def total(self, chunk: Any, items: jax.Array) -> jax.Array:
        """Sum of the losses of a chunk's valid positions."""
        users, targets, valid, negatives = chunk
        scores = users @ items.T
        positives = jnp.take_along_axis(scores, targets[:, None], axis=1)[:, 0]
        if negatives is None:
            losses = jax.nn.logsumexp(scores, axis=1) - positives
        else:
            picked = jnp.take_along_axis(scores, negatives, axis=1)
            losses = _losses(self.config, positives, picked, negatives == targets[:, None])
        return jnp.where(valid, losses, 0).sum()

    def gradient(self, chunk: Any, items: jax.Array, to_items: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The sum, its gradient to the users, and its gradient to the items added to `to_items`."""
        by_users_and_items = jax.value_and_grad(lambda users, items: self.total((users, *chunk[1:]), items), (0, 1))
        total, (to_users, more) = by_users_and_items(chunk[0], items)
        return total, to_users, to_items + more


class _GatheredChunk(NamedTuple):
    """Vectors of each position's target and negatives, gathered."""

    config: SequentialLossConfig

    def total(self, chunk: Any, items: jax.Array) -> jax.Array:
        """Sum of the losses of a chunk's valid positions."""
        return self._of_rows(chunk[0], items[chunk[1]], items[chunk[3]], chunk)

    def gradient(self, chunk: Any, items: jax.Array, to_items: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The sum, its gradient to the users, and its gradient to the items added to `to_items`."""
        users, targets, _, negatives = chunk
        of_rows = jax.value_and_grad(self._of_rows, (0, 1, 2))
        total, (to_users, to_positives, to_negatives) = of_rows(users, items[targets], items[negatives], chunk)
        # into the running sum: a table of zeros for each chunk would cost more than the rows
        return total, to_users, to_items.at[targets].add(to_positives).at[negatives].add(to_negatives)

    def _of_rows(self, users: jax.Array, positives: jax.Array, negative_vectors: jax.Array, chunk: Any) -> jax.Array:
        _, targets, valid, negatives = chunk
        scores = (users * positives).sum(axis=-1), jnp.einsum("pw,pnw->pn", users, negative_vectors)
        return jnp.where(valid, _losses(self.config, *scores, negatives == targets[:, None]), 0).sum()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked_total(chunk_loss: _DenseChunk | _GatheredChunk, chunks: Any, items: jax.Array) -> jax.Array:
    """Sum over chunks; its gradient is taken chunk by chunk in the forward pass, so that no chunk's scores are kept."""
    return jax.lax.scan(
        lambda total, chunk: (total + chunk_loss.total(chunk, items), None), jnp.zeros((), items.dtype), chunks
    )[0]


def _forward(
    chunk_loss: _DenseChunk | _GatheredChunk, chunks: Any, items: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    def step(carry: tuple[jax.Array, jax.Array], chunk: Any) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        total, to_users, to_items = chunk_loss.gradient(chunk, items, carry[1])
        return (carry[0] + total, to_items), to_users

    (total, to_items), to_users = jax.lax.scan(step, (jnp.zeros((), items.dtype), jnp.zeros_like(items)), chunks)
    return total, (to_users, to_items)


def _backward(
    chunk_loss: _DenseChunk | _GatheredChunk, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[tuple[jax.Array, None, None, None], jax.Array]:
    to_users, to_items = saved
    return (cotangent * to_users, None, None, None), cotangent * to_items


_chunked_total.defvjp(_forward, _backward)


def _chunks(positions: int, bytes_a_position: int) -> int:
    """How many chunks the positions make."""
    allowed = CHUNK_BYTES.get(jax.default_backend(), OTHER_CHUNK_BYTES)
    return math.ceil(positions / max(1, min(positions, allowed // bytes_a_position)))


def _split(x: jax.Array, chunks: int) -> Shaped[Array, "chunks size ..."]:
    """Every `chunks`-th position together, so that positions spread over devices stay spread in each chunk."""
    size = math.ceil(x.shape[0] / chunks)
    padded = jnp.pad(x, ((0, size * chunks - x.shape[0]), *[(0, 0)] * (x.ndim - 1)))
    return jnp.moveaxis(padded.reshape(size, chunks, *x.shape[1:]), 1, 0)
