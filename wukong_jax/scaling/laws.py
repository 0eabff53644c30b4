"""The forms of a scaling law: sums of a constant, a logarithm and powers, fitted by variable projection."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from wukong_jax.errors import ConfigError
from wukong_jax.scaling.variable_projection import Separable, Solver, least_squares

SMALLEST, LARGEST = 1e-4, 30.0
"""Range searched for exponent x ln(largest input / smallest): a term that falls by 0.01 %, or all within one point."""
HUBER_DELTA = 1e-3
REWEIGHTINGS = 30


class Term(NamedTuple):
    """One term: c, c ln(v) or c v^-exponent, of the input number `variable`."""

    kind: Literal["constant", "log", "power"]
    coefficient: str
    exponent: str = ""
    variable: int = 0


@dataclasses.dataclass(frozen=True)
class Law:
    """The sum of its terms; powers have coefficients >= 0, the constant is at least the origin, or the known floor."""

    name: str
    formula: str
    terms: tuple[Term, ...]
    signed_exponents: bool = False
    """Whether an exponent may also be negative: the metric then rises."""
    from_floor: bool = False
    """Whether the known floor of the data is added, instead of their origin."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Exponents, then coefficients."""
        return (*(t.exponent for t in self._powers), *(t.coefficient for t in self.terms))

    @property
    def variables(self) -> int:
        """How many inputs it takes."""
        return 1 + max(term.variable for term in self.terms)

    @property
    def _powers(self) -> list[Term]:
        return [term for term in self.terms if term.kind == "power"]

    @property
    def has_constant(self) -> bool:
        """Whether the law's constant is fitted rather than known."""
        return any(term.kind == "constant" for term in self.terms)

    def separable(self, inputs: Float[np.ndarray, "variables points"]) -> Separable:
        """The law of the inputs over their geometric means, for targets without what is known."""
        logs = np.log(inputs) - np.log(inputs).mean(axis=1, keepdims=True)
        spans = np.ptp(logs, axis=1)
        count = 160 if len(self._powers) == 1 else 32
        axes = []
        for term in self._powers:
            falling = np.geomspace(SMALLEST, LARGEST, count) / spans[term.variable]
            axes.append(np.concatenate([-falling[::-1], [0.0], falling]) if self.signed_exponents else falling)
        logarithmic = any(term.kind == "log" for term in self.terms)

        def design(
            exponents: Float[np.ndarray, "candidates nonlinear"],
        ) -> Float[np.ndarray, "candidates columns points"]:
            columns, power = [], 0
            for term in self.terms:
                if term.kind == "power":
                    columns.append(np.exp(-exponents[:, power, None] * logs[term.variable]))
                    power += 1
                else:
                    column = logs[term.variable] if term.kind == "log" else np.ones(logs.shape[1])
                    columns.append(np.broadcast_to(column, (len(exponents), len(column))))
            return np.stack(columns, axis=1)

        return Separable(
            design,
            tuple(axes),
            tuple(term.exponent for term in self._powers),
            tuple(term.coefficient for term in self.terms),
            tuple(not logarithmic for _ in self.terms),
        )

    def natural(
        self,
        inputs: Float[np.ndarray, "variables points"],
        exponents: Float[np.ndarray, "fits nonlinear"],
        coefficients: Float[np.ndarray, "fits columns"],
        origin: float,
    ) -> Float[np.ndarray, "fits parameters"]:
        """Parameters of the inputs themselves from those of the inputs over their geometric means."""
        means = np.log(inputs).mean(axis=1)
        found = coefficients.copy()
        power = 0
        for column, term in enumerate(self.terms):
            if term.kind == "power":
                found[:, column] *= np.exp(exponents[:, power] * means[term.variable])
                power += 1
            elif term.kind == "constant":
                found[:, column] += origin
        for column, term in enumerate(self.terms):
            if term.kind == "log":
                found[:, 0] -= coefficients[:, column] * means[term.variable]
        return np.concatenate([exponents, found], axis=1)

    def predict(
        self,
        parameters: Float[np.ndarray, "fits parameters"],
        inputs: Float[np.ndarray, "variables points"],
        known: float,
    ) -> Float[np.ndarray, "fits points"]:
        """The law's values; `known` is the constant of a law that does not fit its own."""
        value = np.full((len(parameters), inputs.shape[1]), 0.0 if self.has_constant else known)
        powers = len(self._powers)
        power = 0
        for column, term in enumerate(self.terms):
            coefficient = parameters[:, powers + column, None]
            logs = np.log(inputs[term.variable])
            if term.kind == "power":
                value = value + coefficient * np.exp(-parameters[:, power, None] * logs)
                power += 1
            else:
                value = value + coefficient * (logs if term.kind == "log" else 1.0)
        return value


POWER = Law("power", "A x^-alpha", (Term("power", "A", "alpha"),), signed_exponents=True)
SATURATING = Law("saturating", "E + A x^-alpha", (Term("constant", "E"), Term("power", "A", "alpha")))
KNOWN_FLOOR = Law(
    "known-floor", "floor + A x^-alpha", (Term("power", "A", "alpha"),), signed_exponents=True, from_floor=True
)
LOG_LINEAR = Law("log-linear", "c + b ln x", (Term("constant", "c"), Term("log", "b")))
JOINT = Law(
    "joint",
    "E + A N^-alpha + B D^-beta",
    (Term("constant", "E"), Term("power", "A", "alpha"), Term("power", "B", "beta", 1)),
)
LAWS: Mapping[str, Law] = {law.name: law for law in (POWER, SATURATING, KNOWN_FLOOR, LOG_LINEAR, JOINT)}


def law_named(name: str) -> Law:
    """The law of that name; raises `ConfigError`."""
    if name not in LAWS:
        raise ConfigError(f"form: received {name!r}, expected one of {', '.join(LAWS)}")
    return LAWS[name]


def huber_of_logs(nonnegative: tuple[bool, ...], known: float, delta: float = HUBER_DELTA) -> Solver:
    """The solver of Chinchilla's third approach: sum_i w_i huber_delta(log f_i - log y_i) for given exponents.

    By iteratively reweighted least squares (Gauss-Newton in the coefficients): the exponents stay on the grid of the
    variable projection, so that no start decides, while L-BFGS needs hundreds of them. Targets are y - known.
    """
    squares = least_squares(nonnegative)

    def solve(
        design: Float[np.ndarray, "*candidates columns points"],
        targets: Float[np.ndarray, "*problems points"],
        weights: Float[np.ndarray, "*problems points"] | None,
    ) -> tuple[Float[np.ndarray, "*both columns"], Float[np.ndarray, "*both"]]:
        given = np.ones_like(targets) if weights is None else weights
        value = targets + known
        coefficients, _ = squares(design, targets, given / value**2)
        best, kept = np.full(coefficients.shape[:-1], np.inf), coefficients
        for _ in range(REWEIGHTINGS):
            fit = np.maximum(known + np.einsum("...p,...pn->...n", coefficients, design), 1e-6 * value)
            residual = np.log(fit / value)
            size = np.abs(residual)
            loss = np.where(size <= delta, residual**2 / 2, delta * (size - delta / 2))
            objective = np.einsum("...n,...n->...", np.broadcast_to(given, loss.shape), loss)
            better = objective < best
            going_on = np.any(objective < best * (1 - 1e-9))
            best = np.where(better, objective, best)
            kept = np.where(better[..., None], coefficients, kept)
            if not going_on:
                break
            share = given * np.minimum(1.0, delta / np.maximum(size, delta)) / fit**2
            working = fit * (1.0 - np.clip(residual, -0.5, 0.5)) - known
            coefficients, _ = squares(design, working, share)
        return kept, best

    return solve
