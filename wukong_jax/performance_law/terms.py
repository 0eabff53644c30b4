"""The terms of a performance law: how the metric changes with the logarithm of one input.

Columns are written about the middle of the fitted runs and scaled, so that no exponent overflows and none is lost
beside the constant; `natural` gives the coefficients of the formula as it is printed.
"""

import abc
import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

STRAIGHT = 1e-4
"""Least |exponent| x ln(largest input / smallest) that is searched: a straight line to 0.01 %."""
STEEPEST = 3.0
"""Largest |exponent|: N^-3 is an eighth after a doubling; steeper is a step that one size alone decides."""
FINE, SAMPLES = 1000, 17
LARGEST_POWER = 700.0
"""Above this e^x overflows; a curve so far outside the runs is -infinite in all but name."""

Fits = Float[np.ndarray, "fits"]
Curves = Float[np.ndarray, "fits points"]


@dataclasses.dataclass(frozen=True)
class Range:
    """Smallest and largest logarithm of an input in the fitted runs."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Where columns are zero."""
        return (self.low + self.high) / 2

    @property
    def span(self) -> float:
        """Length in units of the natural logarithm."""
        return self.high - self.low


@dataclasses.dataclass(frozen=True)
class Term(abc.ABC):
    """One input's share of a law: coefficients times columns, which may depend on one exponent."""

    variable: str
    """The input, for the reader: layers, dim or data."""
    coefficients: tuple[str, ...]
    exponent: str | None
    range: Range

    @property
    def nonnegative(self) -> bool:
        """Whether coefficients must be >= 0."""
        return False

    def axis(self, count: int) -> Float[np.ndarray, "_"]:
        """Increasing exponents to search, `count` of each sign; none for a term without exponent."""
        return np.zeros(0)

    @property
    def grows_straight(self) -> bool:
        """Whether coefficient and constant grow without end as the exponent nears 0 and the curve a straight line."""
        return False

    def straight(self, exponent: Fits) -> Bool[np.ndarray, "fits"]:
        """Whether an exponent is at the inner end of its range, where the curve is a straight line."""
        return np.abs(exponent) * self.range.span < 1.01 * STRAIGHT

    def at_limit(self, exponent: Fits) -> Bool[np.ndarray, "fits"]:
        """Whether an exponent is at an end of its range: a straight line, or as steep as is allowed."""
        return self.straight(exponent) | (np.abs(exponent) > 0.99 * STEEPEST)

    def limit(self, exponent: float) -> str:
        """What the curve is at an exponent at its limit."""
        if abs(exponent) < 0.99 * STEEPEST:
            return "a straight line in the logarithm"
        return f"hardly more than a step at the {'first' if exponent > 0 else 'last'} size"

    @abc.abstractmethod
    def columns(self, exponent: Fits, logs: Float[np.ndarray, "points"]) -> list[Curves]:
        """One curve for each coefficient, zero at the middle of the runs."""

    @abc.abstractmethod
    def natural(self, exponent: Fits, found: list[Fits]) -> tuple[list[Fits], Fits]:
        """The formula's own coefficients, and what its constant is more than that of the columns."""

    @abc.abstractmethod
    def maximum(self, exponent: Fits, found: list[Fits]) -> Fits:
        """The logarithm of the input at the only maximum; infinite, with the sign of the better end, where none is."""

    def _evenly(self, exponents: Float[np.ndarray, "fine"], count: int) -> Float[np.ndarray, "count"]:
        """`count` of the exponents between which the curve's shape (of length 1 about its mean) changes equally.

        So that no bend falls between two of them, however narrow the range of exponents is in which it happens.
        """
        curve = self.columns(exponents, np.linspace(self.range.low, self.range.high, SAMPLES))[0]
        shape = curve - curve.mean(axis=1, keepdims=True)
        shape = shape / np.linalg.norm(shape, axis=1, keepdims=True)
        steps = np.linalg.norm(np.diff(shape, axis=0), axis=1)
        length = np.concatenate([[0.0], np.cumsum(steps)])
        return np.interp(np.linspace(0.0, length[-1], count), length, exponents)

    def _better_end(self, exponent: Fits, found: list[Fits]) -> Fits:
        ends = np.array([self.range.low, self.range.high])
        value = sum(
            (c[:, None] * column for c, column in zip(found, self.columns(exponent, ends), strict=True)),
            np.zeros((len(exponent), 2)),
        )
        return np.where(value[:, 1] >= value[:, 0], np.inf, -np.inf)


class Line(Term):
    """a x, with x the logarithm of the input."""

    def columns(self, exponent: Fits, logs: Float[np.ndarray, "points"]) -> list[Curves]:
        """The distance from the middle."""
        return [np.broadcast_to(logs - self.range.middle, (len(exponent), len(logs)))]

    def natural(self, exponent: Fits, found: list[Fits]) -> tuple[list[Fits], Fits]:
        """The slope is the same."""
        return found, -found[0] * self.range.middle

    def maximum(self, exponent: Fits, found: list[Fits]) -> Fits:
        """Always at an end."""
        return self._better_end(exponent, found)


class Parabola(Term):
    """a1 x + a2 x^2."""

    def columns(self, exponent: Fits, logs: Float[np.ndarray, "points"]) -> list[Curves]:
        """The distance from the middle and its square."""
        shifted = np.broadcast_to(logs - self.range.middle, (len(exponent), len(logs)))
        return [shifted, shifted**2]

    def natural(self, exponent: Fits, found: list[Fits]) -> tuple[list[Fits], Fits]:
        """By expanding the square."""
        slope, square = found
        middle = self.range.middle
        return [slope - 2 * square * middle, square], square * middle**2 - slope * middle

    def maximum(self, exponent: Fits, found: list[Fits]) -> Fits:
        """-a1 / (2 a2) where a2 < 0."""
        slope, square = found
        with np.errstate(divide="ignore", invalid="ignore"):
            top = self.range.middle - slope / (2 * square)
        return np.where(square < 0, top, self._better_end(exponent, found))


class Power(Term):
    """-A e^(-alpha x) with A >= 0 and alpha > 0: gains that shrink and never turn."""

    @property
    def nonnegative(self) -> bool:
        """A >= 0."""
        return True

    @property
    def grows_straight(self) -> bool:
        """A alpha is the slope."""
        return True

    def axis(self, count: int) -> Float[np.ndarray, "_"]:
        """Positive exponents only."""
        return self._evenly(np.geomspace(STRAIGHT / self.range.span, STEEPEST, FINE), count)

    def columns(self, exponent: Fits, logs: Float[np.ndarray, "points"]) -> list[Curves]:
        """1 - e^(-alpha (x - middle))."""
        power = -exponent[:, None] * (logs - self.range.middle)
        return [-np.expm1(np.minimum(power, LARGEST_POWER))]

    def natural(self, exponent: Fits, found: list[Fits]) -> tuple[list[Fits], Fits]:
        """A is the coefficient at x = 0 instead of the middle."""
        with np.errstate(over="ignore"):
            return [found[0] * np.exp(exponent * self.range.middle)], found[0]

    def maximum(self, exponent: Fits, found: list[Fits]) -> Fits:
        """It rises for ever."""
        return np.full(len(exponent), np.inf)


@dataclasses.dataclass(frozen=True)
class Bend(Term):
    """The Performance Law's block: a straight line in x and an exponential that bends it.

    `released`: w (-v x - p1 e^(-v x)), as in the authors' program; its maximum, for w > 0, is at x = log(p1) / v.
    `arxiv`: w (x + p1 e^(-v x)), as in the paper's text; its maximum, for w p1 < 0, is at x = log(p1 v) / v.
    """

    p1: float
    kind: Literal["released", "arxiv"]

    @property
    def grows_straight(self) -> bool:
        """`released`: w v (p1 - 1) is the slope; `arxiv`: w is."""
        return self.kind == "released"

    def axis(self, count: int) -> Float[np.ndarray, "_"]:
        """Both signs: near 0 and far above it the block is a straight line, far below 0 a drop at the last size."""
        positive = np.geomspace(STRAIGHT / self.range.span, STEEPEST, FINE)
        return np.concatenate([self._evenly(-positive[::-1], count), self._evenly(positive, count)])

    def columns(self, exponent: Fits, logs: Float[np.ndarray, "points"]) -> list[Curves]:
        """The block less its value at the middle, times `_scale`."""
        line, bend = self._factors(exponent)
        shifted = logs - self.range.middle
        scale, largest = self._scale(exponent)
        power = np.minimum(-exponent[:, None] * shifted, LARGEST_POWER)
        exponential = np.exp(-exponent * self.range.middle - largest)
        return [(line * scale)[:, None] * shifted + (bend * exponential)[:, None] * np.expm1(power)]

    def limit(self, exponent: float) -> str:
        """As of any term; but towards large exponents the exponential vanishes beside the line."""
        return super().limit(min(exponent, 0.0))

    def natural(self, exponent: Fits, found: list[Fits]) -> tuple[list[Fits], Fits]:
        """The weight without the scale; the constant without the block's value at the middle."""
        line, bend = self._factors(exponent)
        scale, largest = self._scale(exponent)
        middle = self.range.middle
        at_middle = line * middle * scale + bend * np.exp(-exponent * middle - largest)
        return [found[0] * scale], -found[0] * at_middle

    def maximum(self, exponent: Fits, found: list[Fits]) -> Fits:
        """Where the slope is zero, if the block is concave there and the exponent not at its limit."""
        line, bend = self._factors(exponent)
        with np.errstate(divide="ignore", invalid="ignore"):
            top = -np.log(line / (bend * exponent)) / exponent
        turns = (found[0] * bend < 0) & (bend * exponent * line > 0)
        return np.where(turns, top, self._better_end(exponent, found))

    def _factors(self, exponent: Fits) -> tuple[Fits, Fits]:
        """Factors of x and of e^(-v x)."""
        if self.kind == "released":
            return -exponent, np.full_like(exponent, -self.p1)
        return np.ones_like(exponent), np.full_like(exponent, self.p1)

    def _scale(self, exponent: Fits) -> tuple[Fits, Fits]:
        """e^-m and m, the largest power of e in the block over the runs, so that no column exceeds 1 by orders."""
        largest = np.maximum(0.0, np.maximum(-exponent * self.range.low, -exponent * self.range.high))
        return np.exp(-largest), largest
