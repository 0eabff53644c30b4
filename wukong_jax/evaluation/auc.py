"""Streaming AUC: exact while examples are few, then from bins of equal numbers of examples.

Examples are first kept as they come, 32 bits each (logit and label), so up to `RECENT` of them the AUC is exact.
When that buffer is full it is sorted and merged into at most `BINS` bins, each a value with its number of positives
and negatives. Bins hold equal shares of the examples, not equal stretches of the logit axis: the accuracy depends on
ranks alone, whatever the range of the logits, however it changes in the stream, and whatever its outliers. A value
that is tied often has a bin to itself, and so has each example of a class that is very rare; where there are no more
than `BINS` distinct values nothing is lost.

Equal logits count 1/2. Logits nearer to 0 than 2^-63 count as 0 and those from 2^65 on as equal.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt32

RECENT = 2**19
BINS = 2**17
MAX_EXAMPLES = 2**32 - 1
_EMPTY = np.uint32(2**32 - 1)
_ZERO = np.uint32(2**30)
_SMALLEST = np.uint32(64 << 23)


class AucState(NamedTuple):
    """Examples seen so far; a pytree of 3.5 MiB. Sizes come from the arrays, so smaller states work alike.

    An entry is `2 * rank_key(logit) + label`; `bins` are entries of label 0, the middle of what was merged, ascending.
    """

    recent: UInt32[Array, "recent"]
    filled: Int32[Array, ""]
    bins: UInt32[Array, "bins"]
    positives: UInt32[Array, "bins"]
    negatives: UInt32[Array, "bins"]


def init_auc(recent: int = RECENT, bins: int = BINS) -> AucState:
    """A state that has seen nothing: `recent` examples are kept exactly, `bins` (at least 4) hold the rest."""
    return AucState(
        recent=jnp.full(recent, _EMPTY),
        filled=jnp.zeros((), jnp.int32),
        bins=jnp.full(bins, _EMPTY),
        positives=jnp.zeros(bins, jnp.uint32),
        negatives=jnp.zeros(bins, jnp.uint32),
    )


def update_auc(
    state: AucState, logits: Float[Array, "batch"], labels: Float[Array, "batch"], present: Bool[Array, "batch"]
) -> AucState:
    """Add the examples that are `present`, each once; their logits are finite, labels 0 or 1. For use under jit."""
    entries = jnp.where(present, 2 * rank_key(logits) + (labels > 0.5).astype(jnp.uint32), _EMPTY)
    capacity = state.recent.shape[0]
    for start in range(0, entries.shape[0], capacity):
        state = _append(state, entries[start : start + capacity])
    return state


def merge_auc(a: AucState, b: AucState) -> AucState:
    """The state of both streams together, of `a`'s sizes; the AUC does not depend on the order of the two."""

    def kept(a: AucState, b: AucState) -> AucState:
        recent = jnp.where(jnp.arange(a.recent.shape[0]) < a.filled, a.recent, jnp.roll(b.recent, a.filled))
        return AucState(recent, a.filled + b.filled, *_binned(jnp.zeros(0, jnp.uint32), a, b))

    def emptied(a: AucState, b: AucState) -> AucState:
        recent = jnp.concatenate([_held(a), _held(b)])
        return AucState(a.recent, jnp.zeros_like(a.filled), *_binned(recent, a, b))

    return lax.cond(a.filled + b.filled <= a.recent.shape[0], kept, emptied, a, b)


def compute_auc(state: AucState) -> float:
    """AUC, on the host: P(positive above negative) + P(equal) / 2; NaN, without a warning, unless both classes came."""
    recent = np.asarray(state.recent)[: int(state.filled)]
    recent = recent[recent != _EMPTY]
    keys = np.concatenate([recent, np.asarray(state.bins)]) >> 1
    positives = np.concatenate([recent & 1, np.asarray(state.positives)]).astype(np.float64)
    negatives = np.concatenate([1 - (recent & 1), np.asarray(state.negatives)]).astype(np.float64)
    if positives.sum() == 0 or negatives.sum() == 0:
        return float("nan")
    order = np.argsort(keys)
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys.dtype.type(0)))
    positives, negatives = (np.add.reduceat(counts[order], starts) for counts in (positives, negatives))
    below = np.cumsum(negatives) - negatives
    return float(np.dot(positives, below + negatives / 2) / (positives.sum() * negatives.sum()))


def rank_key(logits: Float[Array, "batch"]) -> UInt32[Array, "batch"]:
    """Integers in [2, 2^31 - 2] in the order of the logits: float32 bits with one exponent bit less, 2^30 at zero."""
    bits = lax.bitcast_convert_type(logits.astype(jnp.float32), jnp.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    magnitude = jnp.where(magnitude < _SMALLEST, 0, jnp.minimum(magnitude - _SMALLEST + 1, _ZERO - 2))
    return jnp.where(bits >> 31 == 1, _ZERO - magnitude, _ZERO + magnitude)


def _append(state: AucState, entries: UInt32[Array, "entries"]) -> AucState:
    def is_full(state: AucState) -> Array:
        return state.filled + entries.shape[0] > state.recent.shape[0]

    # A loop of no or one turn: unlike lax.cond it leaves donated arrays in place when nothing is to be done.
    state = lax.while_loop(is_full, _empty_recent, state)
    recent = lax.dynamic_update_slice(state.recent, entries, (state.filled,))
    return state._replace(recent=recent, filled=state.filled + entries.shape[0])


def _held(state: AucState) -> UInt32[Array, "recent"]:
    return jnp.where(jnp.arange(state.recent.shape[0]) < state.filled, state.recent, _EMPTY)


def _empty_recent(state: AucState) -> AucState:
    return AucState(state.recent, jnp.zeros_like(state.filled), *_binned(_held(state), state))


def _binned(recent: UInt32[Array, "entries"], *states: AucState) -> tuple[Array, Array, Array]:
    """Bins, positives and negatives of the entries and of the states' bins together, as many bins as the first has."""
    size = states[0].bins.shape[0]
    bins, positives, negatives = (
        jnp.concatenate([getattr(state, name) for state in states]) for name in ("bins", "positives", "negatives")
    )
    entries = lax.sort(jnp.concatenate([recent, bins]), is_stable=False)
    used = entries != _EMPTY
    # A bin was sorted like one negative example: put its counts in the place of that one.
    place = jnp.searchsorted(entries, bins)
    positive = jnp.where(used, entries & 1, 0).at[place].add(positives)
    negative = jnp.where(used, 1 - (entries & 1), 0).at[place].add(negatives - (bins != _EMPTY).astype(jnp.uint32))

    value = entries >> 1
    first = used & (value != jnp.concatenate([~value[:1], value[:-1]]))
    segment = _segments(first, _mass(positive, negative, size), size)
    low = jax.ops.segment_min(value, segment, size, indices_are_sorted=True)
    high = jax.ops.segment_max(jnp.where(used, value, 0), segment, size, indices_are_sorted=True)
    positives = jax.ops.segment_sum(positive, segment, size, indices_are_sorted=True)
    negatives = jax.ops.segment_sum(negative, segment, size, indices_are_sorted=True)
    return jnp.where(positives + negatives > 0, 2 * (low + (high - low) // 2), _EMPTY), positives, negatives


def _mass(
    positive: UInt32[Array, "entries"], negative: UInt32[Array, "entries"], size: int
) -> UInt32[Array, "entries"]:
    """What each entry takes up of a bin: 1 an example, but a whole bin one of a class that has at most `size` / 8.

    Else bins must not depend on the labels: an edge that tends to follow a positive would bias the AUC.
    """
    total = jnp.sum(positive + negative, dtype=jnp.uint32)
    whole = jnp.maximum(total // max(size // 8, 1), 1)

    def each(count: UInt32[Array, "entries"]) -> Array:
        rare = (jnp.sum(count, dtype=jnp.uint32) <= size // 8) & (total < np.uint32(2**31))  # within 32 bits
        return jnp.where(rare, whole, 1) * count

    return each(positive) + each(negative)


def _segments(first: Bool[Array, "entries"], mass: UInt32[Array, "entries"], size: int) -> Int32[Array, "entries"]:
    """The bin of each sorted entry, below `size` and ascending; `first` marks the first entry of every value.

    With a mass of W a bin, values share a bin where the middles of their masses lie between the same multiples of W. Of
    a mass of N in all that makes at most N / W + 1 bins, and a value with a mass of 2 W or more has one to itself.
    (Starts of masses would not do: bins would tend to end with a heavy value, and where the heavy ones are mostly of
    one class that is a bias.) Each value has its own bin (W = 1) if they are no more than `size`.
    """
    end = jnp.cumsum(mass, dtype=jnp.uint32)
    start, total = end - mass, end[-1]
    next_start = lax.cummin(jnp.where(first, start, total), reverse=True)
    last_start = lax.cummax(jnp.where(first, start, 0))
    previous = jnp.concatenate([last_start[:1], last_start[:-1]])
    own, before = jnp.concatenate([next_start[1:], total[None]]) - start, start - previous

    width = total // (size - 1) + 1
    apart = (start + own // 2) // width != (previous + before // 2) // width
    opens = first & (apart | (jnp.sum(first) <= size))
    return jnp.cumsum(opens.at[0].set(True), dtype=jnp.int32) - 1
