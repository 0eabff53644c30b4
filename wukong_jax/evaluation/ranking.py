"""Hit rate, NDCG and MRR of next items, each ranked among all items, and the loss beside them.

    rank = 1 + number of other candidates whose score is not below the target's
    HR@k = mean [rank <= k],  NDCG@k = mean [rank <= k] / log2(1 + rank),  MRR = mean 1 / rank

Ties count against the model (the target comes last among equals), and so does a candidate whose score is NaN; a target
whose score is not finite comes last of all. Candidates are all items, without those of the history where it is given;
the target stays a candidate even if the history holds it. The loss is that of the full softmax over all items, with or
without history: log sum_v exp s(u, v) - s(u, y).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, UInt32

from wukong_jax.errors import ConfigError
from wukong_jax.evaluation.compensated import add, sum_rows


class Ranked(NamedTuple):
    """A batch's targets, ranked."""

    ranks: Int32[Array, "batch"]
    """From 1, the best, to the number of candidates."""
    losses: Float[Array, "batch"]
    """Full softmax, in nats."""
    nonfinite: Bool[Array, "batch"]
    """Whether the target's score is NaN or infinite."""


def rank_targets(
    users: Float[Array, "batch width"],
    items: Float[Array, "num_items width"],
    targets: Int[Array, "batch"],
    history: Int[Array, "batch length"] | None = None,
    *,
    item_chunk: int = 16_384,
) -> Ranked:
    """Rank each target among all items by s(u, v) = <u, v>, `item_chunk` items at a time.

    History holds ids to leave out of the candidates, once or repeatedly; below 0 is padding. Targets are 0 to
    num_items - 1; with more items than a chunk, scores are computed twice, first for the targets alone.
    """
    num_items, size = items.shape[0], min(item_chunk, items.shape[0])
    first = jnp.arange(0, num_items, size)
    # the last chunk begins early enough to be full; what it shares with the one before is counted once
    starts = jnp.minimum(first, num_items - size)

    def scores(start: jax.Array) -> jax.Array:
        return users @ jax.lax.dynamic_slice_in_dim(items, start, size).T

    def find(found: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        column = targets - start
        picked = jnp.take_along_axis(scores(start), jnp.clip(column, 0, size - 1)[:, None], axis=1)[:, 0]
        return jnp.where((column >= 0) & (column < size), picked, found), None

    # by the same product as the candidates' scores, so that equal vectors tie to the last bit
    target_scores = jax.lax.scan(find, jnp.zeros(users.shape[0], users.dtype), starts)[0]

    def count(counted: _Counted, chunk: tuple[jax.Array, jax.Array]) -> tuple[_Counted, None]:
        start, first = chunk
        column = jnp.arange(size)
        fresh = column >= first - start
        candidates = fresh & (column != (targets - start)[:, None])
        if history is not None:
            rows = jnp.arange(history.shape[0])[:, None]
            candidates = candidates.at[rows, _columns(history, start, size)].set(False, mode="drop")
        return _count(counted, scores(start), target_scores, fresh, candidates), None

    none = jnp.zeros(users.shape[0], jnp.int32)
    nothing = _Counted(
        none, none, jnp.full(users.shape[0], -jnp.inf, users.dtype), jnp.zeros(users.shape[0], users.dtype)
    )
    counted = jax.lax.scan(count, nothing, (starts, first))[0]
    finite = jnp.isfinite(target_scores)
    ranks = 1 + jnp.where(finite, counted.not_below, counted.candidates)
    return Ranked(ranks, counted.highest + jnp.log(counted.total) - target_scores, ~finite)


class _Counted(NamedTuple):
    """What the chunks so far come to, for each row, without the target; and sum exp(score - highest) of all items."""

    not_below: Int32[Array, "batch"]
    candidates: Int32[Array, "batch"]
    highest: Float[Array, "batch"]
    total: Float[Array, "batch"]


def _count(
    counted: _Counted,
    scores: Float[Array, "batch columns"],
    target_scores: Float[Array, "batch"],
    fresh: Bool[Array, "columns"],
    candidates: Bool[Array, "batch columns"],
) -> _Counted:
    """Add a chunk of scores."""
    not_below = candidates & ~(scores < target_scores[:, None])  # NaN is not below
    scores = jnp.where(fresh, scores, -jnp.inf)
    highest = jnp.maximum(counted.highest, scores.max(axis=1))
    return _Counted(
        counted.not_below + not_below.sum(axis=1, dtype=jnp.int32),
        counted.candidates + candidates.sum(axis=1, dtype=jnp.int32),
        highest,
        counted.total * jnp.exp(counted.highest - highest) + jnp.exp(scores - highest[:, None]).sum(axis=1),
    )


def _columns(history: Int[Array, "batch length"], start: jax.Array, size: int) -> Int[Array, "batch length"]:
    """Columns of the chunk that begins at `start`; `size`, one past the end, for what lies outside."""
    inside = (history >= start) & (history < start + size)
    return jnp.where(inside, history - start, size)


class RankingState(NamedTuple):
    """What the targets so far come to; a small pytree of arrays that goes into checkpoints.

    Columns of `sums`: hits and gains at each k, reciprocal rank, loss, weight (all but the last times the weight),
    examples; the rows are the float32 sum and its rounding error.
    """

    sums: Float[Array, "2 columns"]
    nonfinite: UInt32[Array, ""]


def init_ranking(ks: tuple[int, ...]) -> RankingState:
    """The state before the first example; raises `ConfigError` unless the cut-offs k are distinct and above 0."""
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise ConfigError(f"ks: received {ks}, expected at least one cut-off, each above 0 and named once")
    return RankingState(jnp.zeros((2, 2 * len(ks) + 4), jnp.float32), jnp.zeros((), jnp.uint32))


def update_ranking(
    state: RankingState, ranked: Ranked, weights: Float[Array, "batch"], *, ks: tuple[int, ...]
) -> RankingState:
    """Add a batch; pure, for use under `jax.jit`. A weight of 0 marks a padding row, which is nowhere counted."""
    present = weights != 0
    ranks = ranked.ranks.astype(jnp.float32)
    gains = 1 / jnp.log2(1 + ranks)
    hits = [ranked.ranks <= k for k in ks]
    columns = [
        *hits,
        *(hit * gains for hit in hits),
        1 / ranks,
        jnp.where(present, ranked.losses, 0),
        jnp.ones_like(ranks),
    ]
    weighted = [jnp.where(present, weights * column, 0) for column in columns]
    batch = sum_rows(jnp.stack([*weighted, present]).astype(jnp.float32))
    sums = jnp.stack(add((state.sums[0], state.sums[1]), batch))
    return RankingState(sums, state.nonfinite + jnp.sum(ranked.nonfinite & present, dtype=jnp.uint32))


def merge_ranking(a: RankingState, b: RankingState) -> RankingState:
    """The state of both streams together: of two shards, hosts or splits."""
    return RankingState(jnp.stack(add((a.sums[0], a.sums[1]), (b.sums[0], b.sums[1]))), a.nonfinite + b.nonfinite)


def compute_ranking(state: RankingState, ks: tuple[int, ...]) -> dict[str, float]:
    """The metrics so far, on the host: `hr@k` and `ndcg@k` for each k, `mrr`, `loss`, `examples`, `nonfinite`.

    All but the counts are NaN without an example. Examples whose target's score is not finite count as `nonfinite`
    and among the misses; the loss is then NaN.
    """
    *sums, weight, examples = (float(x) for x in np.asarray(state.sums, np.float64).sum(axis=0))
    means = [value / weight if weight else math.nan for value in sums]
    names = [f"hr@{k}" for k in ks] + [f"ndcg@{k}" for k in ks] + ["mrr", "loss"]
    return {**dict(zip(names, means, strict=True)), "examples": examples, "nonfinite": float(state.nonfinite)}
