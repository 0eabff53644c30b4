"""Laws that are linear in known curves of ln N and ln d, with draws of their coefficients: an oracle for searches."""

import dataclasses

import numpy as np

from wukong_jax.performance_law.fit import Quality
from wukong_jax.performance_law.runs import Runs

CURVES = {
    "quadratic": lambda x, z: (x, x**2, z, z**2),
    "interaction": lambda x, z: (x, x**2, z, z**2, x * z),
    "released": lambda x, z: (0.8 * x - 0.5 * np.exp(0.8 * x), 0.4 * z - 0.5 * np.exp(0.4 * z)),
    "log-linear": lambda x, z: (x, z),
    "power": lambda x, z: (-np.exp(-0.5 * x), -np.exp(-0.3 * z)),
}
"""`released` has w3 = -0.8, w4 = -0.4 and p1 = 1/2: N* = 2^(1/0.8), d* = 2^(1/0.4) times the units."""


def grid_runs(layers=(4, 8, 12, 16, 24, 32), dims=(25, 50, 75, 100), *, y=None, rising=True, repeats=1):
    """Runs of a grid, the metric a function of (layers, dims) or zeros."""
    n, d = (np.repeat(axis.reshape(-1).astype(float), repeats) for axis in np.meshgrid(layers, dims, indexing="ij"))
    y = np.zeros(len(n)) if y is None else y(n, d)
    return Runs("hr10", rising, n, d, y, np.zeros(len(n), int))


@dataclasses.dataclass(frozen=True)
class PlantedLaw:
    """Constant and coefficients of curves; logarithms are of N / unit and d / unit."""

    runs: Runs
    curves: str
    coefficients: np.ndarray
    drawn: np.ndarray
    """One set of coefficients a draw."""
    units: tuple[float, float] = (1.0, 1.0)
    level: float = 0.95
    deviation: float = 0.002

    @property
    def quality(self):
        nan = float("nan")
        return Quality(nan, nan, nan, nan, self.deviation, nan, None, {})

    def features(self, layers, dim):
        x, z = np.broadcast_arrays(np.log(layers / self.units[0]), np.log(dim / self.units[1]))
        return np.stack([np.ones_like(x), *CURVES[self.curves](x, z)])

    def predict(self, layers, dim, *, panel=0, data=None):
        return np.tensordot(self.coefficients, self.features(layers, dim), 1)

    def predict_draws(self, layers, dim, *, panel=0, data=None):
        return np.tensordot(self.drawn, self.features(layers, dim), 1)


def certain(runs, curves, coefficients, units=(1.0, 1.0), draws=20, spread=0.0, seed=0):
    """A law whose draws differ by `spread` of each coefficient."""
    coefficients = np.asarray(coefficients, float)
    drawn = coefficients * (1 + spread * np.random.default_rng(seed).standard_normal((draws, len(coefficients))))
    return PlantedLaw(runs, curves, coefficients, drawn, units)


def peak(n, d, top=0.33, depth=0.01, width=0.02):
    """Coefficients of `quadratic` with the maximum `top` at (n, d) and these curvatures."""
    x, z = np.log(n), np.log(d)
    return np.array([top - depth * x**2 - width * z**2, 2 * depth * x, -depth, 2 * width * z, -width])


def least_squares_law(runs, curves="quadratic", sigma=0.002, draws=400, seed=0):
    """The law fitted to its runs, with draws from the coefficients' normal distribution under known noise."""
    bare = PlantedLaw(runs, curves, np.zeros(0), np.zeros((0, 0)))
    design = bare.features(runs.layers, runs.dim).T
    found = np.linalg.lstsq(design, runs.y, rcond=None)[0]
    covariance = sigma**2 * np.linalg.pinv(design.T @ design)
    drawn = np.random.default_rng(seed).multivariate_normal(found, covariance, draws, method="eigh")
    return dataclasses.replace(bare, coefficients=found, drawn=drawn, deviation=sigma)
