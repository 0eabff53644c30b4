"""The forms of a performance law and their parameters: goodness = constant of the panel + depth + width + data.

Goodness is the metric, negated where it falls as a model gets better. What is free, and what is given:

- `released`: w1 (-w3 ln N - p1 N^-w3) + w2 (-w4 ln d - p1 d^-w4) + b, the authors' program, whose p1 is 1/2. Free: w1,
  w2, w3, w4 and one b a panel. Its D, w5 and b act through their sum alone in one panel, so that only b is kept.
- `performance-law`: w1 (ln N + p1 N^-w3) + w2 (ln d + p1 d^-w4) + c, the paper's text. Free: the same. p1 is not
  printed anywhere; for w1 > 0 a maximum needs p1 < 0 (a p1 > 0 bends upwards), so that p1 = -1/2 unless given. It then
  spans nearly the curves of `released`, whose p1 / w3 stands for this form's p1.
- Data term: the paper's ln D' + p2 D'^-w5 has the weight 1, as if the metric grew by ln 2 where the data double. Here
  it has the free weight w_data, p2 is p1, and w5 is free only where three differences of D' show within panels; with
  fewer the term is w_data ln D'. Where D' varies only between panels it is part of their constants and is left out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from wukong_jax.errors import ConfigError
from wukong_jax.performance_law.runs import Runs
from wukong_jax.performance_law.terms import Bend, Line, Parabola, Power, Range, Term
from wukong_jax.scaling.variable_projection import Separable

Kind = Literal["released", "arxiv", "quadratic", "power", "log"]
GRID = {0: 0, 2: 40, 3: 14}
"""Values of each exponent that are searched, of each sign, by the number of exponents."""


@dataclasses.dataclass(frozen=True)
class Form:
    """A form of the law."""

    name: str
    formula: str
    kind: Kind
    constant: str = "c"
    p1: float | None = None
    """Its p1 unless the user gives one; None for a form without."""
    interaction: bool = False

    @property
    def levels(self) -> int:
        """Distinct values of an input that its term needs."""
        return 2 if self.kind == "log" else 3

    def term(self, variable: str, place: int, values: Float[np.ndarray, "runs"], p1: float) -> Term:
        """The term of the input number `place` (0 depth, 1 width, 2 data), for runs with these values."""
        logs = np.log(values)
        bounds = Range(float(logs.min()), float(logs.max()))
        if self.kind == "released" or self.kind == "arxiv":
            return Bend(variable, (("w1", "w2", "w_data")[place],), ("w3", "w4", "w5")[place], bounds, p1, self.kind)
        if self.kind == "quadratic":
            return Parabola(variable, ("ab"[place] + "1", "ab"[place] + "2"), None, bounds)
        if self.kind == "power":
            return Power(variable, ("AB"[place],), ("alpha", "beta")[place], bounds)
        return Line(variable, ("ab"[place],), None, bounds)


FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form("performance-law", "w1 (ln N + p1 N^-w3) + w2 (ln d + p1 d^-w4) + c", "arxiv", p1=-0.5),
        Form("released", "w1 (-w3 ln N - p1 N^-w3) + w2 (-w4 ln d - p1 d^-w4) + b", "released", "b", p1=0.5),
        Form("quadratic", "a1 ln N + a2 ln^2 N + b1 ln d + b2 ln^2 d + c", "quadratic"),
        Form(
            "quadratic-interaction",
            "a1 ln N + a2 ln^2 N + b1 ln d + b2 ln^2 d + g ln N ln d + c",
            "quadratic",
            interaction=True,
        ),
        Form("power", "c - A N^-alpha - B d^-beta, A >= 0, B >= 0", "power"),
        Form("log-linear", "a ln N + b ln d + c", "log"),
    )
}


def form_named(name: str) -> Form:
    """The form of that name; raises `ConfigError`."""
    if name not in FORMS:
        raise ConfigError(f"form: received {name!r}, expected one of {', '.join(FORMS)}")
    return FORMS[name]


def p1_of(form: Form, p1: float | None) -> float | None:
    """The form's p1, or the one given; raises `ConfigError` where it makes no sense, None for a form without."""
    if form.p1 is None or p1 is None:
        return form.p1
    if not 1e-6 <= abs(p1) <= 1e6:
        raise ConfigError(
            f"p1: received {p1:g}, expected a number from 1e-6 to 1e6 or their negatives; 0 would bend nothing, and "
            "others leave what floats hold"
        )
    if form.kind == "released" and (p1 < 0 or p1 == 1):
        raise ConfigError(
            f"p1: received {p1:g}, expected a positive number other than 1 for the form {form.name}, whose optimum is "
            "p1^(1/w3): at p1 = 1 it is one layer whatever the runs say"
        )
    return p1


@dataclasses.dataclass(frozen=True)
class Law:
    """A form with the ranges of the runs that it is fitted to: its design and its own parameters."""

    form: Form
    terms: tuple[Term, ...]
    """Of depth, width and, where it has one, data."""
    panels: tuple[str, ...]

    @property
    def exponents(self) -> tuple[str, ...]:
        """Names of the nonlinear parameters."""
        return tuple(term.exponent for term in self.terms if term.exponent)

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the panels' constants."""
        constant = self.form.constant
        return (constant,) if len(self.panels) == 1 else tuple(f"{constant}[{name}]" for name in self.panels)

    @property
    def linear(self) -> tuple[str, ...]:
        """Names of the coefficients, in the order of the design's columns."""
        weights = (name for term in self.terms for name in term.coefficients)
        return (*self.constants, *weights, *("g",) * self.form.interaction)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Exponents, then coefficients."""
        return (*self.exponents, *self.linear)

    def separable(self, inputs: Float[np.ndarray, "variables points"], panel: Int[np.ndarray, "points"]) -> Separable:
        """The numerical problem at these inputs (layers, dim and, with a data term, D')."""
        count = GRID[len(self.exponents)]
        axes = tuple(term.axis(count) for term in self.terms if term.exponent)
        signs = (
            *(False for _ in self.panels),
            *(term.nonnegative for term in self.terms for _ in term.coefficients),
            *(False,) * self.form.interaction,
        )
        return Separable(
            lambda e: np.stack(self._columns(e, inputs, panel), axis=1), axes, self.exponents, self.linear, signs
        )

    def values(
        self,
        exponents: Float[np.ndarray, "fits nonlinear"],
        linear: Float[np.ndarray, "fits columns"],
        inputs: Float[np.ndarray, "variables points"],
        panel: Int[np.ndarray, "points"],
    ) -> Float[np.ndarray, "fits points"]:
        """What each solution of the numerical problem predicts for any inputs."""
        total = np.zeros((len(linear), inputs.shape[1]))
        for place, column in enumerate(self._columns(exponents, inputs, panel)):
            total += linear[:, place, None] * column
        return total

    def natural(
        self, exponents: Float[np.ndarray, "fits nonlinear"], linear: Float[np.ndarray, "fits columns"]
    ) -> Float[np.ndarray, "fits parameters"]:
        """The formula's own parameters, in the order of `parameters`."""
        constants = linear[:, : len(self.panels)].copy()
        found = []
        for term, exponent, coefficients in self.split(exponents, linear):
            natural, shift = term.natural(exponent, coefficients)
            found += natural
            constants += shift[:, None]
        if self.form.interaction:
            product = linear[:, -1]
            depth, width = (term.range.middle for term in self.terms[:2])
            found[0] = found[0] - product * width
            found[2] = found[2] - product * depth
            constants += (product * depth * width)[:, None]
            found.append(product)
        return np.concatenate([exponents, constants, np.stack(found, axis=1)], axis=1)

    def split(
        self, exponents: Float[np.ndarray, "fits nonlinear"], linear: Float[np.ndarray, "fits columns"]
    ) -> list[tuple[Term, Float[np.ndarray, "fits"], list[Float[np.ndarray, "fits"]]]]:
        """Each term with its exponents (zeros where it has none) and its coefficients."""
        parts = []
        place, power = len(self.panels), 0
        for term in self.terms:
            exponent = np.zeros(len(linear))
            if term.exponent:
                exponent = exponents[:, power]
                power += 1
            width = len(term.coefficients)
            parts.append((term, exponent, [linear[:, place + k] for k in range(width)]))
            place += width
        return parts

    def _columns(
        self,
        exponents: Float[np.ndarray, "fits nonlinear"],
        inputs: Float[np.ndarray, "variables points"],
        panel: Int[np.ndarray, "points"],
    ) -> list[Float[np.ndarray, "fits points"]]:
        logs = np.log(inputs)
        shape = (len(exponents), logs.shape[1])
        columns = [np.broadcast_to((panel == number).astype(float), shape) for number in range(len(self.panels))]
        power = 0
        for term, values in zip(self.terms, logs, strict=True):
            exponent = np.zeros(len(exponents))
            if term.exponent:
                exponent = exponents[:, power]
                power += 1
            columns += term.columns(exponent, values)
        if self.form.interaction:
            depth, width = (values - term.range.middle for term, values in zip(self.terms, logs[:2], strict=False))
            columns.append(np.broadcast_to(depth * width, shape))
        return columns


def law_of(form: Form, runs: Runs, p1: float | None) -> Law:
    """The form for these runs; with a data term where D' varies within panels."""
    p1 = p1_of(form, p1)
    terms = [form.term("layers", 0, runs.layers, p1 or 0.0), form.term("dim", 1, runs.dim, p1 or 0.0)]
    freedom = data_freedom(runs)
    if runs.data is not None and freedom:
        if p1 is not None and freedom >= 3:
            terms.append(form.term("data", 2, runs.data, p1))
        else:
            logs = np.log(runs.data)
            terms.append(Line("data", ("w_data",), None, Range(float(logs.min()), float(logs.max()))))
    return Law(form, tuple(terms), runs.panels)


def data_freedom(runs: Runs) -> int:
    """How many differences between values of D' the runs show beside the constants of their panels."""
    if runs.data is None:
        return 0
    panels = runs.panel[:, None] == np.unique(runs.panel)
    values = runs.data[:, None] == np.unique(runs.data)
    both = np.linalg.matrix_rank(np.concatenate([panels, values], axis=1).astype(float))
    return int(both) - panels.shape[1]


def inputs_of(law: Law, runs: Runs) -> Float[np.ndarray, "variables runs"]:
    """The runs' inputs in the order of the law's terms."""
    named = {"layers": runs.layers, "dim": runs.dim, "data": runs.data}
    return np.stack([values for term in law.terms if (values := named[term.variable]) is not None])
