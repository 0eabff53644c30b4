"""Where a law has its best depth, or its best width: the answers, most of which are no number."""

import dataclasses
import enum
import math
from typing import Any

from wukong_jax.scaling.bootstrap import Interval


class Side(enum.StrEnum):
    """The way along an axis that a metric still gets better."""

    SMALLER = "smaller"
    LARGER = "larger"


@dataclasses.dataclass(frozen=True)
class Inside:
    """The best value lies among those measured."""

    at: Interval
    """Its interval may end beyond the measured ones, at infinity where that many draws have no best value."""
    share: float
    """Share of the bootstrap's draws with this kind of answer."""

    @property
    def kind(self) -> str:
        """The answer in a few words."""
        return "inside the measured range"

    @property
    def short(self) -> str:
        """The answer as a cell of a table."""
        return interval_text(self.at)

    def text(self, symbol: str) -> str:
        """The answer as a sentence without its end."""
        return f"{symbol}* = {interval_text(self.at)}, {_share(self.share)}"


@dataclasses.dataclass(frozen=True)
class Outside:
    """The law turns beyond the measured values: where, is an extrapolation."""

    side: Side
    edge: float
    """The last measured value on that side."""
    at: Interval
    """Where the extrapolated law turns, or where the budget ends."""
    share: float
    by_budget: bool = False
    """Whether the budget allows nothing beyond, so that where the law turns is not seen."""

    @property
    def kind(self) -> str:
        """The answer in a few words."""
        return "outside the measured range"

    @property
    def short(self) -> str:
        """The answer as a cell of a table."""
        beyond = "above" if self.side is Side.LARGER else "below"
        end = ", where the budget ends" if self.by_budget else " extrapolated"
        return f"{beyond} {self.edge:g}; {interval_text(self.at)}{end}"

    def text(self, symbol: str) -> str:
        """The answer as a sentence without its end."""
        beyond = "above" if self.side is Side.LARGER else "below"
        end = "the budget ends at" if self.by_budget else "the extrapolated law turns at"
        return (
            f"{symbol}* is outside the measured range, {beyond} {self.edge:g} ({end} {interval_text(self.at)}; measure "
            f"there before trusting it), {_share(self.share)}"
        )


@dataclasses.dataclass(frozen=True)
class NoInterior:
    """The metric gets better all the way to one end, though less and less."""

    side: Side
    share: float

    @property
    def kind(self) -> str:
        """The answer in a few words."""
        return f"no interior optimum: {self.side} is always better"

    @property
    def short(self) -> str:
        """The answer as a cell of a table."""
        return f"none: {self.side} is better"

    def text(self, symbol: str) -> str:
        """The answer as a sentence without its end."""
        end = "ever more slowly" if self.side is Side.LARGER else "down to the smallest there is"
        return f"{symbol}* does not exist: no interior optimum, {self.side} is better, {end}, {_share(self.share)}"


@dataclasses.dataclass(frozen=True)
class Unbounded:
    """The law rises without end as the axis grows; no metric does that, so it cannot hold far beyond the runs."""

    share: float

    @property
    def kind(self) -> str:
        """The answer in a few words."""
        return "unbounded"

    @property
    def short(self) -> str:
        """The answer as a cell of a table."""
        return "none: unbounded"

    def text(self, symbol: str) -> str:
        """The answer as a sentence without its end."""
        endless = f"unbounded, the law gets better without end as {symbol} grows"
        return f"{symbol}* does not exist: {endless}, {_share(self.share)}"


@dataclasses.dataclass(frozen=True)
class Flat:
    """The law does not change along the axis."""

    share: float

    @property
    def kind(self) -> str:
        """The answer in a few words."""
        return "no effect"

    @property
    def short(self) -> str:
        """The answer as a cell of a table."""
        return "none: no effect"

    def text(self, symbol: str) -> str:
        """The answer as a sentence without its end."""
        return f"{symbol}* does not exist: {symbol} has no effect on the law, {_share(self.share)}"


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Only one value was searched."""

    value: float

    @property
    def kind(self) -> str:
        """The answer in a few words."""
        return "fixed"

    @property
    def short(self) -> str:
        """The answer as a cell of a table."""
        return f"{self.value:g}, fixed"

    def text(self, symbol: str) -> str:
        """The answer as a sentence without its end."""
        return f"{symbol} = {self.value:g} is the only value searched"


Answer = Inside | Outside | NoInterior | Unbounded | Flat | Fixed


def interval_text(value: Interval, digits: int = 4) -> str:
    """`17.8 [15, 25.5]`; an end at infinity is said in a word."""
    low, high = (_end(end, digits) for end in (value.low, value.high))
    return f"{_end(value.value, digits)} [{low}, {high}]"


def plain_answer(answer: Answer) -> dict[str, Any]:
    """The answer for JSON: its kind, and numbers only where there are any."""
    return {"answer": answer.kind, **dataclasses.asdict(answer)}


def _end(value: float, digits: int) -> str:
    if math.isinf(value):
        return "unbounded"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _share(share: float) -> str:
    return f"as in {share:.0%} of the draws"
