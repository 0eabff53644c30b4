"""Sizes (N, d) that a search may choose from, and what of them was measured."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from wukong_jax.errors import ConfigError

MOST_WIDTHS = 256
"""Widths that a lattice has at most where no multiple is given: it then takes multiples of a power of two."""


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


@dataclasses.dataclass(frozen=True)
class Measured:
    """The sizes that were measured: their ranges, and the polygon around them in (log N, log d)."""

    layers: Float[np.ndarray, "runs"]
    dims: Float[np.ndarray, "runs"]

    @property
    def layers_range(self) -> tuple[float, float]:
        """Fewest and most layers."""
        return float(self.layers.min()), float(self.layers.max())

    @property
    def dims_range(self) -> tuple[float, float]:
        """Smallest and largest width."""
        return float(self.dims.min()), float(self.dims.max())

    def within(self, layers: Float[np.ndarray, "sizes"], dims: Float[np.ndarray, "sizes"]) -> Bool[np.ndarray, "sizes"]:
        """Whether a prediction there interpolates: the size lies in the polygon around the measured ones."""
        corners = _hull(np.unique(np.log(np.stack([self.layers, self.dims], axis=1)), axis=0))
        at = np.log(np.stack([layers, dims], axis=1))
        inside = np.ones(len(at), bool)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside &= _turn(start, end, at) >= -1e-12
        lowest, highest = corners.min(axis=0), corners.max(axis=0)
        return inside & np.all((at >= lowest - 1e-12) & (at <= highest + 1e-12), axis=1)

    def lattice(
        self,
        layers: tuple[int, int] | None = None,
        dims: tuple[int, int] | None = None,
        multiple: int | None = None,
    ) -> Lattice:
        """All layers and the widths of a multiple within the ranges given, by default those measured."""
        widths = _range("dim_range", dims or self.dims_range)
        if multiple is None:
            multiple = 1
            while (widths[1] - widths[0]) / multiple >= MOST_WIDTHS:
                multiple *= 2
        elif multiple < 1:
            raise ConfigError(f"dim_multiple: received {multiple}, expected 1 or more")
        low, high = _range("layers_range", layers or self.layers_range)
        first = -(-widths[0] // multiple) * multiple
        if first > widths[1]:
            raise ConfigError(f"dim_multiple: no multiple of {multiple} lies between {widths[0]} and {widths[1]}")
        return Lattice(np.arange(low, high + 1, dtype=float), np.arange(first, widths[1] + 1, multiple, dtype=float))


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
