"""The data term D' of the Performance Law in the definitions of both papers, and the coding length it stands for.

arXiv version: D' = sum_u |S_u| ApEn'(S_u) with ApEn' = 1 / ApEn; in its summaries and its code tokens x ApEn' with the
mean of |ApEn| over users. NeurIPS version (P-Law): D' = tokens / S_real of all sequences joined to one. The papers do
not say what becomes of ApEn <= 0, which is the rule for users who repeat nothing; here a policy says it.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

Policy = Literal["absolute", "signed", "positive"]
"""What 1 / ApEn means where ApEn < 0: 1 / |ApEn|, as in the released code; its negative inverse; or nothing."""

ZERO = 1e-9
"""ApEn closer to 0 has no inverse: what is left of a rounding error must not become a number of any size."""


class Inverse(NamedTuple):
    """ApEn' of every user, and how many have none."""

    values: Float64[np.ndarray, "users"]
    """1 / ApEn by the policy; NaN where the user is skipped."""
    too_short: int
    """Users skipped for n <= m + 1: one window of m + 1 items at most."""
    zero: int
    """Users skipped for |ApEn| < 1e-9, such as constant sequences."""
    negative: int
    """Users skipped for ApEn < 0, by the policy "positive"."""


class Bound(NamedTuple):
    """A lower bound of |U| L(C), in the papers' units, or why it cannot be stated."""

    value: float | None
    reason: str


def inverse_entropy(
    entropies: Float64[np.ndarray, "users"], lengths: Int64[np.ndarray, "users"], m: int, policy: Policy
) -> Inverse:
    """ApEn' = 1 / ApEn(m) of each user; skipped are n <= m + 1, ApEn = 0, and by the policy "positive" ApEn < 0."""
    long_enough = lengths > m + 1
    zero = long_enough & (np.abs(entropies) < ZERO)
    negative = long_enough & ~zero & (entropies < 0) & (policy == "positive")
    kept = long_enough & ~zero & ~negative
    base = np.abs(entropies) if policy == "absolute" else entropies
    values = np.divide(1.0, base, out=np.full(len(base), np.nan), where=kept)
    return Inverse(values, int((~long_enough).sum()), int(zero.sum()), int(negative.sum()))


def user_data_term(lengths: Int64[np.ndarray, "users"], inverse: Inverse) -> float:
    """D' = sum_u |S_u| ApEn'(S_u) over the users that have one; NaN where none has."""
    kept = np.isfinite(inverse.values)
    return float((lengths[kept] * inverse.values[kept]).sum()) if kept.any() else math.nan


def mean_data_term(
    entropies: Float64[np.ndarray, "users"], lengths: Int64[np.ndarray, "users"], m: int, policy: Policy
) -> float:
    """D' = tokens / mean of ApEn over the users of more than m + 1 items; NaN without one, or a mean of no inverse.

    By the policy "absolute" the mean is that of |ApEn|, as in the released code.
    """
    values = entropies[lengths > m + 1]
    if not len(values):
        return math.nan
    return token_data_term(
        int(lengths.sum()), float((np.abs(values) if policy == "absolute" else values).mean()), policy
    )


def token_data_term(tokens: int, entropy: float, policy: Policy = "positive") -> float:
    """D' = tokens / entropy, of pooled ApEn or of S_real (P-Law); NaN where the policy gives no inverse."""
    base = abs(entropy) if policy == "absolute" else entropy
    undefined = math.isnan(base) or abs(base) < ZERO or (policy == "positive" and base < 0)
    return math.nan if undefined else tokens / base


def coding_bound(entropies: Float64[np.ndarray, "users"], lengths: Int64[np.ndarray, "users"], num_items: int) -> Bound:
    """|U| L(C) >= sum_u |S_u| / ApEn(S_u), the lemma of the arXiv version, where it can be stated.

    It assumes stationary aperiodic Markov chains of the first order, which cannot be checked, and has a meaning only
    where ApEn(S_u) > 0 of every user. The conditions of `real_coding_bound` are asked for here too.
    """
    reason = _unmet(lengths, num_items)
    low = int((~(entropies >= ZERO)).sum())
    if not reason and low:
        reason = f"ApEn is not above 0, or not defined, for {low} of {len(lengths)} users"
    return _bound(reason, (lengths / np.where(entropies >= ZERO, entropies, 1.0)).sum())


def real_coding_bound(entropy: float, lengths: Int64[np.ndarray, "users"], num_items: int) -> Bound:
    """|U| L(C) >= tokens / S_real, the lemma of the NeurIPS version, where the conditions of its proof hold.

    They are |S_u| >= 4 and 5 ln|I| ln(sum |S_u|) >= max |S_u| + 2. The same chains are assumed.
    """
    reason = _unmet(lengths, num_items) or ("" if entropy >= ZERO else "the real entropy is 0")
    return _bound(reason, lengths.sum() / max(entropy, ZERO))


def _unmet(lengths: Int64[np.ndarray, "users"], num_items: int) -> str:
    """Which condition of the proof does not hold; empty where all do."""
    if not len(lengths) or lengths.min() < 4:
        return f"{int((lengths < 4).sum())} of {len(lengths)} users have fewer than 4 items"
    left, right = 5 * math.log(num_items) * math.log(int(lengths.sum())), lengths.max() + 2
    return "" if left >= right else f"5 ln|I| ln(sum |S_u|) = {left:.4g} is below max |S_u| + 2 = {right}"


def _bound(reason: str, value: float) -> Bound:
    if reason:
        return Bound(None, f"does not apply: {reason}")
    return Bound(float(value), "holds for stationary Markov chains of the first order")
