"""Loss spikes in a training curve: found while the run goes on, and again from its history.

Definition. Each point of the curve is the mean loss over `log_every_steps` steps. With m the median of the `WINDOW`
points before and s = 1.4826 MAD, their median absolute deviation scaled to a normal standard deviation, a point is
*high* if its loss > m + max(DEVIATIONS s, RISE m). `POINTS` high points in a row are a spike; it lasts until a point is
not high, and counts once. A level that stays high becomes the typical one after half a window.

A falling curve only lowers its points against m, a straight rise of any slope stays below 1.4 s: neither is a spike.
"""

import collections
import dataclasses
import statistics
from collections.abc import Iterable
from typing import Any

WINDOW, FEWEST = 32, 10
"""Points before that a point is compared with: at most, and at least."""
POINTS = 2
DEVIATIONS = 8.0
RISE = 0.01
"""Share of the typical loss below which nothing counts, however quiet the curve."""
_MAD_TO_DEVIATION = 1.4826


@dataclasses.dataclass(frozen=True)
class Spike:
    """Its first step on the curve, its highest loss, and the typical loss (the median) when it began."""

    step: int
    loss: float
    typical: float


class SpikeDetector:
    """Reads a training curve point by point."""

    def __init__(self) -> None:
        """Start before the first point."""
        self.spikes: list[Spike] = []
        self._before: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self._high: list[Spike] = []
        """The high points in a row up to now, merged into one once they are a spike."""

    def see(self, step: int, loss: float) -> Spike | None:
        """Take the next point; the spike that it makes certain, once, else None."""
        typical, bound = self._typical()
        self._before.append(loss)
        if not loss > bound:
            self._high = []
            return None
        self._high.append(Spike(step, loss, typical))
        first = self._high[0]
        spike = Spike(first.step, max(point.loss for point in self._high), first.typical)
        if len(self._high) < POINTS:
            return None
        if self.spikes and self.spikes[-1].step == spike.step:
            self.spikes[-1] = spike
            return None
        self.spikes.append(spike)
        return spike

    def _typical(self) -> tuple[float, float]:
        """Median of the points before, and the bound above which the next one is high."""
        if len(self._before) < FEWEST:
            return float("nan"), float("inf")
        median = statistics.median(self._before)
        deviation = _MAD_TO_DEVIATION * statistics.median(abs(loss - median) for loss in self._before)
        return median, median + max(DEVIATIONS * deviation, RISE * abs(median))


def detector_after(history: Iterable[dict[str, Any]], log_every_steps: int) -> SpikeDetector:
    """A detector that has read a run's history up to now.

    The last point of a run, where it is the mean of fewer steps than the others, is left out.
    """
    detector = SpikeDetector()
    for point in history:
        if point["split"] == "train" and point["step"] % log_every_steps == 0:
            detector.see(point["step"], point["logloss"] if "logloss" in point else point["loss"])
    return detector


def find_spikes(history: Iterable[dict[str, Any]], log_every_steps: int) -> list[dict[str, Any]]:
    """The spikes of a run's history, each as {"step", "loss", "typical"}."""
    return [dataclasses.asdict(spike) for spike in detector_after(history, log_every_steps).spikes]
