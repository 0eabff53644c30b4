"""The planted function of synthetic data: power-law ids, interactions of chosen orders, true probabilities.

    P(rank r of V) = integral of x^-a over [r, r+1], normalised          (a: Zipf exponent; id of a value = its rank)
    s_f[value, d]  = planted signs, centred and of unit variance under P,           d < latent_width
    z_f            = m + sqrt(1 - m^2) s_f                                          (m: latent_mean)
    term(fields T) = sum_d prod_{f in T} z_f[value_f, d]
    logit          = bias + strength / sqrt(number of orders) * sum over orders of
                     sum_t w_t term_t / sqrt(sum_t w_t^2), every term scaled to unit variance;
                     w_t = (t + 1)^-decay for term t = 0, 1, ... of an order        (decay: term_decay)

With m = 0 a term of order k has mean 0 given any fewer than k of its fields (every s_f has mean 0, and fields are
independent): in the logit, a planted order carries no signal of a lower one, and gradient descent finds high orders as
hard as parities. With m > 0 a term casts its shadow on all lower orders: the variance at order j has the shares of a
binomial distribution of k trials and probability 1 - m^2, and each order found leads on to the next.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt64

from wukong_jax.errors import ConfigError

SPLITS = ("train", "valid", "test")
STREAM_TERMS, STREAM_CALIBRATION, STREAM_LATENTS = 3, 4, 5
CALIBRATION_ROWS = 65_536


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Sizes and planted structure; `orders` lists the interaction orders, each with an equal share of the variance.

    `strength` is the standard deviation of the logit, `positive_rate` the mean of the true probabilities. `latent_mean`
    and `term_decay` are m and decay of the formulas above.
    `numeric` features are uniform with variance 1 and take part in the interactions like the fields.
    """

    seed: int = 0
    train: int = 200_000
    valid: int = 25_000
    test: int = 25_000
    vocabulary_sizes: tuple[int, ...] = (100,) * 16
    numeric: int = 0
    zipf_exponent: float = 1.1
    orders: tuple[int, ...] = (1, 2, 3)
    terms_per_order: int = 8
    latent_width: int = 4
    latent_mean: float = 0.0
    term_decay: float = 0.0
    strength: float = 1.5
    positive_rate: float = 0.25

    def __post_init__(self) -> None:
        """Check every value; raises `ConfigError`."""
        fields = len(self.vocabulary_sizes) + self.numeric
        for bad, name, expected in (
            (self.seed < 0, "seed", "0 or more"),
            (self.train < 1, "train", "at least 1 row"),
            (self.valid < 1, "valid", "at least 1 row"),
            (self.test < 1, "test", "at least 1 row"),
            (min(self.vocabulary_sizes, default=0) < 2, "vocabulary_sizes", "at least one field of 2 values or more"),
            (self.numeric < 0, "numeric", "0 or more"),
            (not 0.0 <= self.zipf_exponent <= 10.0, "zipf_exponent", "a number from 0 (uniform) to 10"),
            (not self.orders or len(set(self.orders)) < len(self.orders), "orders", "at least one, each once"),
            (any(not 1 <= order <= fields for order in self.orders), "orders", f"orders from 1 to {fields} (fields)"),
            (self.terms_per_order < 1, "terms_per_order", "at least 1"),
            (self.latent_width < 1, "latent_width", "at least 1"),
            (not 0.0 <= self.latent_mean < 1.0, "latent_mean", "a number from 0 (pure orders) to below 1"),
            (not 0.0 <= self.term_decay <= 10.0, "term_decay", "a number from 0 (equal weights) to 10"),
            (not 0.0 <= self.strength <= 20.0, "strength", "a number from 0 (pure noise) to 20"),
            (not 0.0 < self.positive_rate < 1.0, "positive_rate", "a number between 0 and 1"),
        ):
            if bad:
                raise ConfigError(f"synthetic.{name}: received {getattr(self, name)}, expected {expected}")


class Planted(NamedTuple):
    """The true function. `latents[f]` is z_f [V, width] for a field, s_f [1, width] for a numeric feature."""

    latents: tuple[Float32[np.ndarray, "values width"], ...]
    mean: float
    terms: tuple[tuple[int, ...], ...]
    scales: tuple[float, ...]
    bias: float


class Rows(NamedTuple):
    """A block of examples; ids count from 1 (id 0, out of vocabulary, does not occur)."""

    ids: Int32[np.ndarray, "rows fields"]
    numeric: Float32[np.ndarray, "rows numeric"]
    label_draws: Float64[np.ndarray, "rows"]


def draw(config: SyntheticConfig, stream: int, start: int, stop: int) -> Rows:
    """Rows `start` to `stop` of a split (streams 0, 1, 2 are train, valid, test)."""
    fields = len(config.vocabulary_sizes)
    words = fields + config.numeric + 1
    uniform = _uniform(_raw(config.seed, stream, start * words, (stop - start) * words)).reshape(-1, words)
    ids = np.empty((stop - start, fields), np.int32)
    for f, size in enumerate(config.vocabulary_sizes):
        ids[:, f] = _rank(uniform[:, f], size, config.zipf_exponent)
    numeric = (math.sqrt(12.0) * (uniform[:, fields:-1] - 0.5)).astype(np.float32)
    return Rows(ids, numeric, uniform[:, -1])


def true_probabilities(planted: Planted, rows: Rows) -> Float64[np.ndarray, "rows"]:
    """P(label = 1) of each row under the planted function."""
    return 1.0 / (1.0 + np.exp(-(_signal(planted, rows).astype(np.float64) + planted.bias)))


def plant(config: SyntheticConfig) -> Planted:
    """Draw latents and terms from the seed, scale the terms, and solve for the bias."""
    sizes, mean, spread = config.vocabulary_sizes, config.latent_mean, math.sqrt(1.0 - config.latent_mean**2)
    latents, moments = [], []
    for f in range(len(sizes) + config.numeric):
        values = sizes[f] if f < len(sizes) else 1
        signs = _signs(config, f, values)
        if f < len(sizes):
            mass = _mass(values, config.zipf_exponent)[:, None]
            signs -= (mass * signs).sum(axis=0)
            signs /= np.sqrt((mass * signs**2).sum(axis=0))
            moments.append(mean**2 + spread**2 * (mass * signs).T @ signs)
            signs = mean + spread * signs
        else:
            moments.append(mean**2 + spread**2 * signs.T @ signs)
        latents.append(signs.astype(np.float32))
    terms, scales = [], []
    for order in config.orders:
        chosen = _choose_terms(config, order)
        weights = [(t + 1.0) ** -config.term_decay for t in range(len(chosen))]
        total = sum(weight**2 for weight in weights)
        for term, weight in zip(chosen, weights, strict=True):
            variance = np.prod([moments[f] for f in term], axis=0).sum() - (config.latent_width * mean**order) ** 2
            scales.append(weight * config.strength / math.sqrt(variance * total * len(config.orders)))
        terms += chosen
    planted = Planted(tuple(latents), mean, tuple(terms), tuple(scales), 0.0)
    rows = draw(config, STREAM_CALIBRATION, 0, CALIBRATION_ROWS)
    signal = _signal(planted, rows)
    if mean and config.strength:  # the shadows of the terms add up: no closed form
        factor = config.strength / float(np.std(signal, dtype=np.float64))
        planted = planted._replace(scales=tuple(factor * scale for scale in scales))
        signal = _signal(planted, rows)
    return planted._replace(bias=_solve_bias(signal, config.positive_rate))


def _signal(planted: Planted, rows: Rows) -> Float32[np.ndarray, "rows"]:
    fields = rows.ids.shape[1]
    looked_up = {}
    for f in sorted({f for term in planted.terms for f in term}):
        latent = planted.latents[f]
        if f < fields:
            looked_up[f] = latent.take(rows.ids[:, f] - 1, axis=0)
        else:
            values = latent * rows.numeric[:, f - fields, None]
            looked_up[f] = np.float32(planted.mean) + np.float32(math.sqrt(1.0 - planted.mean**2)) * values
    signal = np.zeros(len(rows.ids), np.float32)
    for term, scale in zip(planted.terms, planted.scales, strict=True):
        product = looked_up[term[0]] * np.float32(scale)
        for f in term[1:]:
            product *= looked_up[f]
        for d in range(product.shape[1]):  # added one by one: a sum that no block size can reorder
            signal += product[:, d]
    return signal


def _choose_terms(config: SyntheticConfig, order: int) -> list[tuple[int, ...]]:
    fields = len(config.vocabulary_sizes) + config.numeric
    if math.comb(fields, order) <= config.terms_per_order:
        return list(itertools.combinations(range(fields), order))
    chosen: dict[tuple[int, ...], None] = {}
    position = order << 32
    while len(chosen) < config.terms_per_order:
        raw = _raw(config.seed, STREAM_TERMS, position, fields)
        chosen[tuple(sorted(np.argsort(raw, kind="stable")[:order].tolist()))] = None
        position += fields
    return list(chosen)


def _signs(config: SyntheticConfig, field: int, values: int) -> Float64[np.ndarray, "values width"]:
    raw = _raw(config.seed, STREAM_LATENTS + field, 0, values * config.latent_width)
    signs = np.where(raw >> np.uint64(63), 1.0, -1.0).reshape(values, config.latent_width)
    # The same signs on all axes for the first value, the opposite for the second: no axis is constant and no sum over
    # axes cancels, so every term has some variance, however small the vocabularies (a numeric feature has 1 "value").
    signs[0] = 1.0
    signs[1:2] = -1.0
    return signs


def _solve_bias(signal: Float32[np.ndarray, "rows"], rate: float) -> float:
    low, high = -100.0, 100.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        mean = float(np.mean(1.0 / (1.0 + np.exp(-(signal.astype(np.float64) + middle)))))
        low, high = (middle, high) if mean < rate else (low, middle)
    return 0.5 * (low + high)


def _rank(uniform: Float64[np.ndarray, "rows"], size: int, exponent: float) -> Int32[np.ndarray, "rows"]:
    """Ranks 1..size from uniform draws: the inverse of the power law's distribution function, no table needed."""
    if exponent == 1.0:
        ranks = np.exp(uniform * math.log(size + 1.0))
    else:
        power = 1.0 - exponent
        ranks = (1.0 + uniform * ((size + 1.0) ** power - 1.0)) ** (1.0 / power)
    return np.minimum(ranks, size).astype(np.int32)


def _mass(size: int, exponent: float) -> Float64[np.ndarray, "values"]:
    """Probability of each rank, as `_rank` draws it."""
    edges = np.arange(1.0, size + 2.0)
    integral = np.log(edges) if exponent == 1.0 else edges ** (1.0 - exponent)
    return np.diff(integral) / (integral[-1] - integral[0])


def _uniform(raw: UInt64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    return (raw >> np.uint64(11)) * 2.0**-53


def _raw(seed: int, stream: int, start: int, count: int) -> UInt64[np.ndarray, "n"]:
    """`count` random words of a stream from position `start` on; the same for any way of cutting the stream."""
    generator = np.random.PCG64DXSM(np.random.SeedSequence([seed, stream]))
    return generator.advance(start).random_raw(count)
