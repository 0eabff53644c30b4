"""Sizes (N, d) that a search may choose from, and what of them was measured."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from wukong_jax.errors import ConfigError

MOST_VALUES = 256
"""Depths, or widths without a multiple, that a lattice takes one by one; of more it takes multiples of a power of 2."""
STEPS = 32
"""Values a doubling beyond the measured range, and where multiples are far apart, where not all are taken."""
FAR_APART = 8
"""Multiples below so many times the power of two are far apart for their size."""
MOST_SIZES = 200_000
"""Sizes that a lattice may have: each is predicted by every draw of the bootstrap."""


@dataclasses.dataclass(frozen=True)
class Lattice:
    """All pairs of some layers and some widths, each increasing whole numbers."""

    layers: Float[np.ndarray, "layers"]
    dims: Float[np.ndarray, "dims"]

    def __post_init__(self) -> None:
        """Raise `ConfigError` where an axis is empty, does not increase or has a size below 1."""
        for name, axis in (("layers", self.layers), ("dims", self.dims)):
            if not len(axis) or axis[0] < 1 or np.any(np.diff(axis) <= 0) or np.any(axis != np.round(axis)):
                raise ConfigError(f"lattice: {name} are {axis[:5]}..., expected increasing whole numbers from 1 on")

    def pairs(self) -> tuple[Float[np.ndarray, "layers dims"], Float[np.ndarray, "layers dims"]]:
        """The layers and the widths of all sizes."""
        layers, dims = np.meshgrid(self.layers, self.dims, indexing="ij")
        return layers, dims

    @property
    def searched(self) -> str:
        """Both axes in words."""
        return f"depths searched: {_axis_text(self.layers)}; widths searched: {_axis_text(self.dims)}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """The sizes that were measured: their ranges, and the polygon around them in (log N, log d)."""

    layers: Float[np.ndarray, "runs"]
    dims: Float[np.ndarray, "runs"]
    data_within: bool = True
    """Whether the amount of data asked about, if any, lies between the measured ones."""

    @property
    def layers_range(self) -> tuple[float, float]:
        """Fewest and most layers."""
        return float(self.layers.min()), float(self.layers.max())

    @property
    def dims_range(self) -> tuple[float, float]:
        """Smallest and largest width."""
        return float(self.dims.min()), float(self.dims.max())

    def within(self, layers: Float[np.ndarray, "sizes"], dims: Float[np.ndarray, "sizes"]) -> Bool[np.ndarray, "sizes"]:
        """Whether a prediction interpolates: sizes lie in the polygon around the measured ones, data among theirs."""
        corners = _hull(np.unique(np.log(np.stack([self.layers, self.dims], axis=1)), axis=0))
        at = np.log(np.stack([layers, dims], axis=1))
        inside = np.ones(len(at), bool)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside &= _turn(start, end, at) >= -1e-12
        lowest, highest = corners.min(axis=0), corners.max(axis=0)
        return inside & np.all((at >= lowest - 1e-12) & (at <= highest + 1e-12), axis=1) & self.data_within

    def whole(self) -> Lattice:
        """Depths and widths within the measured ranges, however many sizes they make."""
        return Lattice(
            _between(*_range("layers_range", self.layers_range), self.layers),
            _between(*_range("dim_range", self.dims_range), self.dims),
        )

    def lattice(
        self,
        layers: tuple[int, int] | None = None,
        dims: tuple[int, int] | None = None,
        multiple: int | None = None,
    ) -> Lattice:
        """All layers and widths, or the widths of a multiple, within the ranges given, by default those measured.

        Of more than `MOST_VALUES` of an axis: the measured ones, both ends, multiples of a power of two within the
        measured range, and steps that grow with the value where these are far apart and beyond that range. Raises
        `ConfigError`.
        """
        widths = _range("dim_range", dims or self.dims_range)
        if multiple is not None and multiple < 1:
            raise ConfigError(f"dim_multiple: received {multiple}, expected 1 or more")
        depths = _between(*_range("layers_range", layers or self.layers_range), self.layers)
        searched = _between(*widths, self.dims) if multiple is None else _multiples(*widths, multiple)
        if not len(searched):
            raise ConfigError(f"dim_multiple: no multiple of {multiple} lies between {widths[0]} and {widths[1]}")
        if len(depths) * len(searched) > MOST_SIZES:
            raise ConfigError(
                f"layers_range and dim_range: received {len(depths):,} depths x {len(searched):,} widths, expected at "
                f"most {MOST_SIZES:,} sizes; narrow a range, or give a larger --dim-multiple"
            )
        return Lattice(depths, searched)


def _between(low: int, high: int, measured: Float[np.ndarray, "runs"]) -> Float[np.ndarray, "values"]:
    """The values of an axis from low to high, where they are too many some of them."""
    if high - low < MOST_VALUES:
        return _multiples(low, high, 1)
    own = measured[(measured >= low) & (measured <= high)]
    found = [np.array([low, high], float), own[own == np.round(own)]]
    inner = max(low, int(np.ceil(measured.min()))), min(high, int(np.floor(measured.max())))
    multiple = 1
    while (inner[1] - inner[0]) / multiple >= MOST_VALUES:
        multiple *= 2
    found.append(_multiples(*inner, multiple))
    for start, end in ((low, min(high, max(inner[0], FAR_APART * multiple))), (max(low, inner[1]), high)):
        if start < end:
            steps = int(np.ceil(STEPS * np.log2(end / start))) + 1
            found.append(np.geomspace(start, end, steps).round())
    return np.unique(np.concatenate(found))


def _multiples(low: int, high: int, multiple: int) -> Float[np.ndarray, "multiples"]:
    return np.arange(-(-low // multiple) * multiple, high + 1, multiple, dtype=float)


def _axis_text(axis: Float[np.ndarray, "values"]) -> str:
    ends = f"{axis[0]:.0f} to {axis[-1]:.0f}"
    steps = np.unique(np.diff(axis))
    if len(steps) == 0:
        return f"{axis[0]:.0f} alone"
    if len(steps) > 1:
        return f"{len(axis)} from {ends}, in steps of {steps[0]:.0f} to {steps[-1]:.0f}"
    return f"all from {ends}" if steps[0] == 1 else f"{len(axis)} from {ends}, in steps of {steps[0]:.0f}"


def _range(name: str, ends: tuple[float | int, float | int]) -> tuple[int, int]:
    low, high = int(np.ceil(ends[0])), int(np.floor(ends[1]))
    if not 1 <= low <= high:
        raise ConfigError(f"{name}: received {ends[0]:g} to {ends[1]:g}, expected two whole sizes from 1 on, in order")
    return low, high


def _turn(
    start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"], at: Float[np.ndarray, "sizes 2"]
) -> Float[np.ndarray, "sizes"]:
    """Above 0 left of the way from start to end."""
    way, off = end - start, at - start
    return way[0] * off[:, 1] - way[1] * off[:, 0]


def _hull(points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "corners 2"]:
    """Corners counterclockwise, by Andrew's monotone chain; `points` are distinct and in order."""
    corners: list[np.ndarray] = []
    for way in (points, points[::-1]):
        chain: list[np.ndarray] = []
        for point in way:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point[None])[0] <= 1e-12:
                chain.pop()
            chain.append(point)
        corners += chain[:-1]
    return np.array(corners or points)
