"""Approximate entropy with r = 0 (Pincus) of symbol sequences: exact and signed, of all users in one pass.

With r = 0 two windows match if they are equal, so ApEn(m) = phi_m - phi_{m+1} with phi_m = sum over the distinct
m-grams of p log p: the difference H_{m+1} - H_m of the empirical block entropies, in nats. There are n - m + 1 windows
of m items and n - m of m + 1, and so a sequence in which no m-gram occurs twice has
ApEn = log((n - m) / (n - m + 1)) < 0, which depends on its length alone. Undefined (NaN) for n <= m.

An m-gram gets its number from those of its first m - 1 items and of its last item, ranked anew at every length so that
it stays below n. Only windows that occur more than once are ranked on: one that is unique stays so when it grows.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64

from wukong_jax.errors import ConfigError
from wukong_jax.sequential.sequences import Sequences


class RepeatedGrams(NamedTuple):
    """The grams of one length that occur more than once in a group: the group of each, and how often it occurs."""

    group: Int64[np.ndarray, "grams"]
    counts: Int64[np.ndarray, "grams"]


class Windows(NamedTuple):
    """Sequences one after the other, within each of which windows lie, and the group whose windows each belongs to."""

    items: Int[np.ndarray, "events"]
    lengths: Int64[np.ndarray, "sequences"]
    groups: Int64[np.ndarray, "sequences"]
    num_groups: int

    def number(self, m: int) -> Int64[np.ndarray, "groups"]:
        """Windows of m items in each group."""
        numbers = np.zeros(self.num_groups, np.int64)
        np.add.at(numbers, self.groups, np.maximum(self.lengths - m + 1, 0))
        return numbers


def approximate_entropy(sequence: Int[np.ndarray, "n"], m: int) -> float:
    """ApEn(m, r = 0) = phi_m - phi_{m+1} of one sequence, in nats, signed; NaN for n <= m; `ConfigError` for m < 1."""
    return float(_approximate_entropies(_joined(sequence), [m])[0, 0])


def per_user_approximate_entropy(sequences: Sequences, ms: Sequence[int]) -> Float64[np.ndarray, "users ms"]:
    """ApEn(m) of every user for every m, in nats, signed; NaN for users of m items or fewer."""
    users = np.arange(sequences.num_users)
    return _approximate_entropies(Windows(sequences.items, sequences.lengths, users, len(users)), ms)


def mean_approximate_entropy(sequences: Sequences, ms: Sequence[int]) -> Float64[np.ndarray, "ms"]:
    """Mean of the signed ApEn(m) over the users of more than m items; NaN where there is none."""
    values = per_user_approximate_entropy(sequences, ms)
    defined = np.isfinite(values).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), defined, out=np.full(len(ms), np.nan), where=defined > 0)


def pooled_approximate_entropy(
    sequences: Sequences, ms: Sequence[int], *, across_users: bool = True
) -> Float64[np.ndarray, "ms"]:
    """ApEn(m) of the windows of all users together, in nats, signed; NaN where there are too few.

    `across_users`: of all sequences joined to one, as in the papers, so that a window may begin in one user's items
    and end in the next one's. Otherwise of the windows that lie within a user.
    """
    if across_users:
        return _approximate_entropies(_joined(sequences.items), ms)[0]
    one = np.zeros(sequences.num_users, np.int64)
    return _approximate_entropies(Windows(sequences.items, sequences.lengths, one, 1), ms)[0]


def pooled_repeated_share(sequences: Sequences, ms: Sequence[int]) -> Float64[np.ndarray, "ms"]:
    """Share of the m-item windows of all sequences joined to one that occur more than once; NaN without a window."""
    windows = _joined(sequences.items)
    shares = np.full(len(ms), np.nan)
    for length, grams in enumerate(_repeated_grams(windows, max(ms, default=0)), 1):
        number = windows.number(length)[0]
        if number:
            shares[np.equal(ms, length)] = grams.counts.sum() / number
    return shares


def _joined(items: Int[np.ndarray, "events"]) -> Windows:
    return Windows(items, np.array([len(items)]), np.zeros(1, np.int64), 1)


def _approximate_entropies(windows: Windows, ms: Sequence[int]) -> Float64[np.ndarray, "groups ms"]:
    for m in ms:
        if m < 1:
            raise ConfigError(f"m: received {m}, expected windows of 1 item or more")
    needed = {*ms, *(m + 1 for m in ms)}
    phi = {
        length: _phi(windows, length, grams)
        for length, grams in enumerate(_repeated_grams(windows, max(needed, default=0)), 1)
        if length in needed
    }
    return np.stack([phi[m] - phi[m + 1] for m in ms], axis=1) if len(ms) else np.zeros((windows.num_groups, 0))


def _phi(windows: Windows, length: int, grams: RepeatedGrams) -> Float64[np.ndarray, "groups"]:
    """Phi = sum of p log p over the grams of each group, p = count / windows; NaN without a window.

    Grams of one count are taken together: the equal terms of very many would add up their rounding errors.
    """
    number = windows.number(length)
    single = number.copy()
    np.subtract.at(single, grams.group, grams.counts)
    span = int(grams.counts.max(initial=0)) + 1
    pairs, grams_of_pair = np.unique(grams.group * span + grams.counts, return_counts=True)
    group, count = np.divmod(pairs, span)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = grams_of_pair * count * np.log(count / number[group])
        repeated = np.bincount(group, terms, minlength=windows.num_groups)
        return np.where(number > 0, (repeated - single * np.log(number)) / number, np.nan)


def _repeated_grams(windows: Windows, longest: int) -> Iterator[RepeatedGrams]:
    """The repeated grams of 1, 2, ..., `longest` items; O(longest n log n), n the windows that are repeated."""
    items = np.unique(windows.items, return_inverse=True)[1].astype(np.int64)
    num_items = int(items.max()) + 1 if len(items) else 0
    groups = np.repeat(windows.groups, windows.lengths)
    ends = np.repeat(np.cumsum(windows.lengths), windows.lengths)
    starts, prefixes = np.arange(len(items)), groups  # a gram of no items is its group
    for length in range(1, longest + 1):
        inside = starts + length <= ends[starts]
        starts, prefixes = starts[inside], prefixes[inside]
        # both factors are below 2^31, so that this never overflows
        grams, count = _rank(prefixes * num_items + items[starts + length - 1])
        repeated = count > 1
        group = np.empty(len(count), np.int64)
        group[grams] = groups[starts]
        yield RepeatedGrams(group[repeated], count[repeated])
        live = repeated[grams]
        starts, prefixes = starts[live], grams[live]


def _rank(keys: Int64[np.ndarray, "windows"]) -> tuple[Int64[np.ndarray, "windows"], Int64[np.ndarray, "grams"]]:
    """The rank of every key among the distinct ones, and how often each of these occurs."""
    _, ranks, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return ranks, counts
