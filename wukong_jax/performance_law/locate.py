"""Where along depth and width a law is best: among the measured sizes, beyond them, or nowhere.

The sizes measured, and those that a lattice adds, are searched first; of an axis for which the lattice has one value
only that is. Where the best of them lies at the end of an axis, that axis is followed beyond it, to `REACH` times its
largest value or down to 1, until the law turns or does not.
"""

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from wukong_jax.performance_law.answers import Answer, Fixed, Flat, Inside, NoInterior, Outside, Side, Unbounded
from wukong_jax.performance_law.budgets import Budget
from wukong_jax.performance_law.lattice import Lattice
from wukong_jax.performance_law.search import Search, keeps
from wukong_jax.scaling.bootstrap import Interval, interval

REACH = 1024
"""An axis is followed to so many times its largest value."""
STEPS, STEPS_OF_DRAWS = 64, 16
"""Steps a doubling on that way, for the law and for its draws."""
MOST = 4_000_000
"""Predictions of draws on that way: as many values of the other axis are tried."""
SHRINKS = 0.999
"""Gains of successive doublings that shrink by this factor have a finite sum; those of a logarithm do not shrink."""
ENDS = 9
"""Values of an axis by which a curve without effect is known."""
FLAT = 1e-9
"""A difference below this share of the metric is none."""


class Kind(enum.IntEnum):
    """What becomes of an axis, as a number for arrays of draws."""

    FLAT, INSIDE, BELOW, ABOVE, TO_SMALLER, TO_LARGER, UNBOUNDED = range(7)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Kind and value of the best place of one axis, for several curves."""

    kind: Int[np.ndarray, "curves"]
    value: Float[np.ndarray, "curves"]
    """Infinite where the axis runs to larger values, NaN where it has no effect."""


def locate(search: Search, lattice: Lattice, budgets: Sequence[Budget] = ()) -> tuple[Answer, Answer]:
    """The answers for depth and width; some size of the lattice must keep to the budgets."""
    measured = search.measured
    own = measured.whole()
    base = Lattice(
        *(a if len(a) == 1 else np.union1d(a, b) for a, b in ((lattice.layers, own.layers), (lattice.dims, own.dims)))
    )
    layers, dims = (axis.reshape(-1) for axis in base.pairs())
    kept = keeps(budgets, layers, dims)
    layers, dims = layers[kept], dims[kept]
    best = int(np.argmax(search.goodness(layers, dims)))
    of_draws = search.best_of_draws(layers, dims)[1]
    answers: list[Answer] = []
    for number, (low, high) in enumerate((measured.layers_range, measured.dims_range)):
        axis = _Axis(search, base, tuple(budgets), number, low, high)
        if len(axis.own) == 1:
            answers.append(Fixed(float(axis.own[0])))
            continue
        at = (layers, dims)[number]
        law = axis.places(at[[best]], draws=False)
        answers.append(_answer(axis, law, axis.places(at[of_draws], draws=True)))
    return answers[0], answers[1]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One axis of a search: 0 the layers, 1 the width; measured from `low` to `high`."""

    search: Search
    base: Lattice
    budgets: tuple[Budget, ...]
    number: int
    low: float
    high: float

    @property
    def own(self) -> Float[np.ndarray, "values"]:
        """The values searched first."""
        return (self.base.layers, self.base.dims)[self.number]

    @property
    def other(self) -> Float[np.ndarray, "values"]:
        """The values of the other axis."""
        return (self.base.dims, self.base.layers)[self.number]

    def values(
        self, own: Float[np.ndarray, "values"], other: Float[np.ndarray, "others"], *, draws: bool
    ) -> Float[np.ndarray, "curves values others"]:
        """Goodness of the law alone or of its draws; -inf where budgets forbid a size."""
        a, b = (grid.reshape(-1) for grid in np.meshgrid(own, other, indexing="ij"))
        sizes = (a, b) if self.number == 0 else (b, a)
        values = self.search.draws(*sizes) if draws else self.search.goodness(*sizes)[None]
        values = np.where(keeps(self.budgets, *sizes), values, -np.inf)
        return values.reshape(len(values), len(own), len(other))

    def places(self, best: Float[np.ndarray, "curves"], *, draws: bool) -> _Place:
        """Kind and value for curves whose best value among those searched first is `best`."""
        kind = np.where(best < self.low, Kind.BELOW, np.where(best > self.high, Kind.ABOVE, Kind.INSIDE))
        value = best
        for side, end in ((Side.SMALLER, self.own[0]), (Side.LARGER, self.own[-1])):
            at_end = best == end
            if at_end.any():
                followed = self._follow(side, float(end), draws=draws)
                kind = np.where(at_end, followed.kind, kind)
                value = np.where(at_end, followed.value, value)
        flat = self._flat(draws=draws)
        return _Place(np.where(flat, Kind.FLAT, kind), np.where(flat, np.nan, value))

    def forbidden(self, value: float) -> bool:
        """Whether no size with that value of the axis keeps to the budgets."""
        at = np.full_like(self.other, value)
        return not keeps(self.budgets, *((at, self.other) if self.number == 0 else (self.other, at))).any()

    def _flat(self, *, draws: bool) -> Bool[np.ndarray, "curves"]:
        """Of which curves the axis changes nothing."""
        free = dataclasses.replace(self, budgets=())
        values = free.values(_some(self.own, ENDS), self.other[:1], draws=draws)[..., 0]
        return np.ptp(values, axis=1) <= FLAT * np.abs(values).max(axis=1)

    def _follow(self, side: Side, end: float, *, draws: bool) -> _Place:
        """Kind and value of all curves on the way from an end of the axis."""
        steps = STEPS_OF_DRAWS if draws else STEPS
        if side is Side.LARGER:
            way = end * 2 ** (np.arange(steps * int(np.log2(REACH)) + 1) / steps)
        else:
            way = end * 2 ** (-np.arange(np.ceil(steps * np.log2(end)) + 1) / steps)
            way[-1] = 1.0
        other = self.other
        if side is Side.LARGER:  # what is too dear at the end is so beyond it
            at = np.full_like(other, end)
            other = other[keeps(self.budgets, *((at, other) if self.number == 0 else (other, at)))]
        if draws:
            other = _some(other, max(ENDS, MOST // (len(way) * self.search.count)))
        profile = self.values(way, other, draws=draws).max(axis=2)
        top, place = profile.max(axis=1), profile.argmax(axis=1)
        runs = top - profile[:, -1] <= FLAT * (top - profile[:, 0])
        turns = np.array([self._kind_of(value) for value in way])[place]
        if side is Side.SMALLER:
            return _Place(np.where(runs, Kind.TO_SMALLER, turns), np.where(runs, 1.0, np.round(way[place])))
        with np.errstate(invalid="ignore"):  # budgets leave -inf where curves do not run on
            first, second = np.diff(profile[:, [-1 - 2 * steps, -1 - steps, -1]], axis=1).T
        endless = second > np.maximum(SHRINKS * first, FLAT * np.abs(top))
        kinds = np.where(endless, Kind.UNBOUNDED, Kind.TO_LARGER)
        return _Place(np.where(runs, kinds, turns), np.where(runs, np.inf, np.round(way[place])))

    def _kind_of(self, value: float) -> Kind:
        return Kind.BELOW if value < self.low else Kind.ABOVE if value > self.high else Kind.INSIDE


def _answer(axis: _Axis, law: _Place, draws: _Place) -> Answer:
    kind = Kind(int(law.kind[0]))
    share = float(np.mean(draws.kind == kind))
    if kind is Kind.FLAT:
        return Flat(share)
    if kind is Kind.UNBOUNDED:
        return Unbounded(share)
    if kind in (Kind.TO_SMALLER, Kind.TO_LARGER):
        return NoInterior(Side.SMALLER if kind is Kind.TO_SMALLER else Side.LARGER, share)
    known = draws.value[~np.isnan(draws.value)]
    value = float(law.value[0])
    at = interval(value, known, axis.search.law.level) if len(known) else Interval(value, value, value)
    if kind is Kind.INSIDE:
        return Inside(at, share)
    below = kind is Kind.BELOW
    ended = not below and axis.forbidden(max([value * 2 ** (1 / STEPS) + 1, *axis.own[axis.own > value][:1]]))
    return Outside(Side.SMALLER if below else Side.LARGER, axis.low if below else axis.high, at, share, ended)


def _some(axis: Float[np.ndarray, "values"], count: int) -> Float[np.ndarray, "some"]:
    """At most so many of the values, the ends among them."""
    return axis[np.unique(np.linspace(0, len(axis) - 1, min(count, len(axis))).round().astype(int))]
