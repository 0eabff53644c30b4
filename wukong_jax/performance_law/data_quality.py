"""All measures of a data set's quality, and warnings where one of them means little."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wukong_jax.errors import DataError
from wukong_jax.performance_law.data_terms import (
    Bound,
    Policy,
    coding_bound,
    inverse_entropy,
    mean_data_term,
    real_coding_bound,
    token_data_term,
    user_data_term,
)
from wukong_jax.performance_law.entropy import (
    per_user_approximate_entropy,
    pooled_approximate_entropy,
    pooled_repeated_share,
)
from wukong_jax.performance_law.real_entropy import real_entropy
from wukong_jax.performance_law.regularity import compression_ratio, repeats, shannon_entropy
from wukong_jax.sequential.sequences import Sequences

QUANTILES = (0, 25, 50, 75, 90, 99, 100)
FEW_REPEATED = 0.05
"""Below this share of windows that occur more than once, pooled ApEn rests on too few of them."""
MANY = 0.01
"""Above this share of users, or of events, an oddity is worth a warning."""


class Size(NamedTuple):
    """What is counted."""

    users: int
    empty_users: int
    one_event_users: int
    items: int
    """Items that occur."""
    interactions: int
    mean_length: float
    length_quantiles: dict[str, float]
    repeat_rate: float
    """Share of interactions whose user had the item before."""
    repeat_free_users: int
    """Users of two events or more who have no item twice."""
    sparsity: float
    """1 - distinct (user, item) pairs / (users x items)."""
    ties: int | None
    """Events with the time of the user's event before; None without times."""


class EntropyAt(NamedTuple):
    """Approximate entropy of one window length, in nats and signed, and the D' of it."""

    m: int
    mean: float
    """Over the users of more than m items."""
    mean_absolute: float
    pooled: float
    """Of all sequences joined to one."""
    pooled_within_users: float
    """Of the windows that lie within a user."""
    repeated_share: float
    """Share of the m-item windows, of all sequences joined, that occur more than once."""
    too_short: int
    zero: int
    negative: int
    """Users who have no ApEn' for n <= m + 1, ApEn = 0, and ApEn < 0 (policy "positive")."""
    d_users: float
    """sum_u |S_u| ApEn'(S_u)."""
    d_mean: float
    """tokens / mean ApEn; of |ApEn| by the policy "absolute"."""
    d_pooled: float
    """tokens / pooled ApEn."""
    bound: Bound


class DataQuality(NamedTuple):
    """The report: sizes, entropies, D' in both papers' definitions, and warnings."""

    origin: str
    size: Size
    policy: Policy
    shannon_bits: float
    compression_ratio: float
    real_entropy: float
    """In nats, of all sequences joined to one."""
    d_real: float
    """tokens / real entropy: the P-Law's D'."""
    real_bound: Bound
    """The same as a coding length, where that lemma's conditions hold."""
    entropies: tuple[EntropyAt, ...]
    warnings: tuple[str, ...]


def data_quality(sequences: Sequences, ms: Sequence[int] = (1, 2, 4, 8), policy: Policy = "absolute") -> DataQuality:
    """Every measure of the sequences, joined in the order they have where they are joined.

    `data-report` joins them in the order of their first events, `sequences.by_start()`. Raises `DataError` without an
    event and `ConfigError` for m < 1.
    """
    if not sequences.num_events:
        raise DataError(f"{sequences.origin or 'sequences'}: no events; expected at least one user with an item")
    size = measure_size(sequences)
    entropies = measure_entropies(sequences, ms, policy)
    real = real_entropy(sequences.items)
    return DataQuality(
        sequences.origin,
        size,
        policy,
        shannon_entropy(sequences.items),
        compression_ratio(sequences.items),
        real,
        token_data_term(sequences.num_events, real),
        real_coding_bound(real, sequences.lengths, size.items),
        entropies,
        tuple(find_warnings(size, entropies, real)),
    )


def measure_size(sequences: Sequences) -> Size:
    """Counts of users, items and events."""
    lengths, repeated = sequences.lengths, repeats(sequences)
    items, events = len(np.unique(sequences.items)), sequences.num_events
    own_repeats = np.bincount(sequences.event_users, repeated, minlength=sequences.num_users)
    ties = None
    if sequences.times is not None:
        ties = int(((np.diff(sequences.event_users) == 0) & (np.diff(sequences.times) == 0)).sum())
    return Size(
        users=sequences.num_users,
        empty_users=int((lengths == 0).sum()),
        one_event_users=int((lengths == 1).sum()),
        items=items,
        interactions=events,
        mean_length=events / sequences.num_users,
        length_quantiles={f"{q}%": float(np.percentile(lengths, q)) for q in QUANTILES},
        repeat_rate=float(repeated.mean()),
        repeat_free_users=int(((own_repeats == 0) & (lengths > 1)).sum()),
        sparsity=1 - int((~repeated).sum()) / (sequences.num_users * items),
        ties=ties,
    )


def measure_entropies(sequences: Sequences, ms: Sequence[int], policy: Policy) -> tuple[EntropyAt, ...]:
    """Approximate entropies and their D' for each m; the sequences joined in the order they have."""
    per_user = per_user_approximate_entropy(sequences, ms)
    pooled = pooled_approximate_entropy(sequences, ms).tolist()
    within = pooled_approximate_entropy(sequences, ms, across_users=False).tolist()
    shares = pooled_repeated_share(sequences, ms).tolist()
    lengths, num_items = sequences.lengths, len(np.unique(sequences.items))
    found = []
    for at, m in enumerate(ms):
        values = per_user[:, at]
        defined = values[np.isfinite(values)]
        inverse = inverse_entropy(values, lengths, m, policy)
        found.append(
            EntropyAt(
                m,
                float(defined.mean()) if len(defined) else float("nan"),
                float(np.abs(defined).mean()) if len(defined) else float("nan"),
                pooled[at],
                within[at],
                shares[at],
                inverse.too_short,
                inverse.zero,
                inverse.negative,
                user_data_term(lengths, inverse),
                mean_data_term(values, lengths, m, policy),
                token_data_term(sequences.num_events, pooled[at], policy),
                coding_bound(values, lengths, num_items),
            )
        )
    return tuple(found)


def find_warnings(size: Size, entropies: Sequence[EntropyAt], real: float) -> list[str]:
    """A sentence for every measure that is degenerate on this data."""
    found = []
    if size.empty_users:
        found.append(f"{size.empty_users} users have no event")
    if size.one_event_users:
        found.append(f"{size.one_event_users} users have one event: there is nothing to predict from it")
    if size.ties is not None and size.ties > MANY * size.interactions:
        found.append(
            f"{size.ties / size.interactions:.1%} of the events have the time of the user's event before: their order "
            "is the file's, and every measure of order depends on it"
        )
    several = size.users - size.empty_users - size.one_event_users
    if several and size.repeat_free_users > several / 2:
        share = "no user has" if size.repeat_free_users == several else f"{size.repeat_free_users} users do not have"
        found.append(
            f"repeat-free: {share} an item twice, so that their ApEn is log((n - m) / (n - m + 1)), which depends on "
            "the length n alone; sum |S_u| ApEn' is then about sum |S_u|^2. Only pooled and real entropy say more"
        )
    for entropy in entropies:
        found += _entropy_warnings(size, entropy)
    if not real:
        found.append("real entropy is 0: one event only; tokens / S_real is undefined")
    return found


def _entropy_warnings(size: Size, entropy: EntropyAt) -> list[str]:
    found, m = [], entropy.m
    if entropy.too_short > MANY * size.users:
        found.append(
            f"m = {m}: {entropy.too_short} users ({entropy.too_short / size.users:.1%}) have m + 1 = {m + 1} items or "
            "fewer and no ApEn'"
        )
    if entropy.zero:
        found.append(f"m = {m}: ApEn is 0 for {entropy.zero} users, as of constant sequences; they have no ApEn'")
    windows = size.interactions - m + 1
    end = (1 + math.log(windows)) / windows if windows > 1 else 0.0
    if windows > 1 and abs(entropy.pooled) <= end:
        found.append(
            f"m = {m}: pooled ApEn is {entropy.pooled:.2g}, no further from 0 than the end of a sequence makes it (to "
            f"{end:.2g}, (1 + ln T) / T of T = {windows} windows): windows always go on alike, or hardly any occurs "
            "twice, and tokens / ApEn means nothing"
        )
    elif entropy.repeated_share < FEW_REPEATED:
        found.append(
            f"m = {m}: only {entropy.repeated_share:.2%} of the windows occur more than once; pooled ApEn is close to "
            "0 whatever the data, and tokens / ApEn means little"
        )
    return found
