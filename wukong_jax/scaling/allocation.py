"""Compute-optimal allocation: how large a model, on how many examples, for a total of training compute."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.scaling.bootstrap import Interval, interval
from wukong_jax.scaling.fit import Fitted
from wukong_jax.scaling.laws import JOINT


class Allocation(NamedTuple):
    """The best use of one budget C = N D, in the units of the points' inputs."""

    budget: float
    compute: Interval
    """N*: compute per example."""
    examples: Interval
    """D*: examples trained on."""
    value: Interval
    """The metric there."""
    remarks: tuple[str, ...]
    """Where the optimum lies outside what was measured, or where there is none."""


def allocate(fitted: Fitted, budgets: Sequence[float]) -> tuple[Allocation, ...]:
    """The optimum of E + A N^-alpha + B D^-beta under C = N D, with the fit's bootstrap; raises `UserError`.

    N* = G C^(beta / (alpha + beta)), D* = C / N*, G = (alpha A / (beta B))^(1 / (alpha + beta)).
    """
    if fitted.law is not JOINT:
        raise DataError(f"allocation: received a fit of the form {fitted.law.name}, expected {JOINT.name}")
    for budget in budgets:
        if not (budget > 0 and np.isfinite(budget)):
            raise ConfigError(f"budgets: received {budget}, expected numbers above 0")
    return tuple(_allocate(fitted, float(budget)) for budget in budgets)


def optimal_log_compute(parameters: Float[np.ndarray, "fits parameters"], budget: float) -> Float[np.ndarray, "fits"]:
    """Logarithm of N*: -infinity where only examples help, infinity where only compute does, NaN where nothing does."""
    alpha, beta, _, a, b = parameters.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.log(alpha * a) - np.log(beta * b) + beta * np.log(budget)) / (alpha + beta)


def _allocate(fitted: Fitted, budget: float) -> Allocation:
    best = np.array([[found.value for found in fitted.parameters.values()]])
    found, drawn = (optimal_log_compute(parameters, budget) for parameters in (best, fitted.draws))
    known = np.isfinite(drawn)
    remarks = []
    if not np.isfinite(found[0]):
        term = "examples" if found[0] == -np.inf else "compute" if found[0] == np.inf else "neither"
        remarks.append(f"no optimum: of compute and examples the fit has {term} lower the metric")
    elif not known.all():
        share = max(np.mean(~known), 0.01)
        less = "under " if np.mean(~known) < share else ""
        remarks.append(f"{less}{share:.0%} of the bootstrap's fits have no optimum: one input has no effect in them")
    if fitted.diagnostics.unidentified:
        remarks.append(f"the points do not determine {', '.join(fitted.diagnostics.unidentified)}")
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        nowhere = Interval(np.nan, np.nan, np.nan)
        return Allocation(budget, nowhere, nowhere, nowhere, tuple(remarks))
    with np.errstate(over="ignore"):
        compute = interval(float(np.exp(found[0])), np.exp(drawn), fitted.level)
        drawn_examples = np.exp(np.log(budget) - drawn)
        examples = interval(float(np.exp(np.log(budget) - found[0])), drawn_examples, fitted.level)
    for name, value, measured in zip(
        ("compute per example", "number of examples"), (compute, examples), fitted.points.inputs, strict=True
    ):
        low, high = measured.min(), measured.max()
        if not low <= value.value <= high and np.isfinite(found[0]):
            side = "above" if value.value > high else "below"
            remarks.append(f"the best {name} lies {side} the measured {low:.4g} to {high:.4g}: an extrapolation")
    return Allocation(budget, compute, examples, _value_there(fitted, best, budget), tuple(remarks))


def _value_there(fitted: Fitted, best: Float[np.ndarray, "1 parameters"], budget: float) -> Interval:
    values = []
    for parameters in (best, fitted.draws):
        log_compute = optimal_log_compute(parameters, budget)
        kept = parameters[np.isfinite(log_compute)]
        log_compute = log_compute[np.isfinite(log_compute)]
        alpha, beta, e, a, b = kept.T
        values.append(e + a * np.exp(-alpha * log_compute) + b * np.exp(beta * (log_compute - np.log(budget))))
    if not len(values[0]) or not len(values[1]):
        return Interval(np.nan, np.nan, np.nan)
    return interval(float(values[0][0]), values[1], fitted.level)
