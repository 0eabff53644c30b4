"""LogLoss, AUC, normalized entropy and calibration of a stream of examples, in one pass, in constant memory.

    LogLoss = sum w (softplus(z) - y z) / sum w            z: logit, y: label (0 or 1), w: weight
    NE = LogLoss / H(p),  H(p) = -p ln p - (1 - p) ln(1 - p),  p = sum w y / sum w of the same examples
    calibration = sum w sigmoid(z) / sum w y
    AUC = P(z of a positive > z of a negative) + P(equal) / 2

A weight of 0 marks a padding row, which is nowhere counted. LogLoss, NE and calibration are weighted; AUC and the
number of examples take every example with a weight other than 0 once. Sums are kept as two float32 each (a float and
what it lost by rounding), so that many examples cost no precision.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from wukong_jax.evaluation.auc import MAX_EXAMPLES, AucState, compute_auc, init_auc, merge_auc, update_auc
from wukong_jax.evaluation.compensated import add, sum_rows


class MetricState(NamedTuple):
    """What one task's examples so far come to; a pytree of arrays, 3.5 MiB, that goes into checkpoints.

    Columns of `sums`: loss, prediction, label, weight (all but the last times the weight), examples; the rows are the
    float32 sum and its rounding error. `nonfinite` counts examples with a NaN or infinite logit or weight.
    """

    sums: Float[Array, "2 5"]
    nonfinite: UInt32[Array, ""]
    ranking: AucState


def init_metrics() -> MetricState:
    """The state before the first example. Its arrays are its own, so it may be donated."""
    return MetricState(jnp.zeros((2, 5), jnp.float32), jnp.zeros((), jnp.uint32), init_auc())


def update_metrics(
    state: MetricState, logits: Float[Array, "batch"], labels: Float[Array, "batch"], weights: Float[Array, "batch"]
) -> MetricState:
    """Add a batch; pure, for use under `jax.jit`, where the state should be donated.

    Labels are 0 or 1. Examples with a logit or weight that is not finite are left out and counted as `nonfinite`.

        update = jax.jit(update_metrics, donate_argnums=0)
        state = update(init_metrics(), logits, labels, weights)
        print(compute_metrics(state)["auc"])
    """
    logits, labels, weights = (x.astype(jnp.float32) for x in (logits, labels, weights))
    finite = jnp.isfinite(logits) & jnp.isfinite(weights)
    present = finite & (weights != 0)
    logits, weights = jnp.where(present, logits, 0), jnp.where(present, weights, 0)
    # Equal to softplus(z) - y z for y of 0 or 1, without the difference of two large numbers.
    loss = jax.nn.softplus(jnp.where(labels > 0.5, -logits, logits))
    columns = [weights * loss, weights * jax.nn.sigmoid(logits), weights * labels, weights, present]
    batch = sum_rows(jnp.stack([column.astype(jnp.float32) for column in columns]))
    return MetricState(
        sums=jnp.stack(add((state.sums[0], state.sums[1]), batch)),
        nonfinite=state.nonfinite + jnp.sum(~finite, dtype=jnp.uint32),
        ranking=update_auc(state.ranking, logits, labels, present),
    )


def merge_metrics(a: MetricState, b: MetricState) -> MetricState:
    """The state of both streams together: of two shards, hosts or splits; the order of the two does not matter."""
    sums = jnp.stack(add((a.sums[0], a.sums[1]), (b.sums[0], b.sums[1])))
    return MetricState(sums, a.nonfinite + b.nonfinite, merge_auc(a.ranking, b.ranking))


def compute_metrics(state: MetricState) -> dict[str, float]:
    """The metrics so far, on the host, as Python floats.

    `logloss`, `auc`, `ne`, `calibration`, `examples` (finite ones, not padding), `positive_rate` (weighted mean
    label), `nonfinite`. What is undefined is NaN, without a warning: everything but the counts when there are no
    examples; AUC and NE when all labels are equal; calibration without positives; AUC beyond 2^32 - 1 examples.
    """
    loss, prediction, label, weight, examples = (float(x) for x in np.asarray(state.sums, np.float64).sum(axis=0))
    logloss, rate = _ratio(loss, weight), _ratio(label, weight)
    entropy = -rate * math.log(rate) - (1 - rate) * math.log1p(-rate) if 0 < rate < 1 else 0.0
    return {
        "logloss": logloss,
        "auc": compute_auc(state.ranking) if examples <= MAX_EXAMPLES else math.nan,
        "ne": _ratio(logloss, entropy),
        "calibration": _ratio(prediction, label),
        "examples": examples,
        "positive_rate": rate,
        "nonfinite": float(state.nonfinite),
    }


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator != 0 else math.nan
