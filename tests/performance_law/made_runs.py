"""Runs of planted laws, and published ones."""

import pathlib

import numpy as np
import pytest

from wukong_jax.performance_law.runs import Runs

LAYERS, DIMS = (4, 8, 12, 16, 24, 32), (25, 50, 75, 100)
GRID = pathlib.Path(__file__).resolve().parents[3] / "shared" / "papers" / "performance_law_grid.csv"
PANELS = {"a": 0.0, "b": 0.02, "c": -0.03}


def grid(layers=LAYERS, dims=DIMS, repeats=1):
    """Depths and widths of all combinations."""
    return tuple(np.repeat(axis.ravel().astype(float), repeats) for axis in np.meshgrid(layers, dims, indexing="ij"))


def released(layers, dim, best_layers=17.8, best_dim=51.7, w1=0.3, w2=2.0, p1=0.5, b=0.3):
    """The released form, written by its optimum: p1^(1/w3) = best_layers."""
    w3, w4 = np.log(p1) / np.log(best_layers), np.log(p1) / np.log(best_dim)
    depth = -w3 * np.log(layers) - p1 * layers**-w3
    width = -w4 * np.log(dim) - p1 * dim**-w4
    return w1 * depth + w2 * width + b


def arxiv(layers, dim, w1=0.3, w2=1.0, w3=-0.49, w4=-0.405, p1=-0.5, c=0.1):
    """The form of the paper's text."""
    return w1 * (np.log(layers) + p1 * layers**-w3) + w2 * (np.log(dim) + p1 * dim**-w4) + c


def quadratic(layers, dim, a1=0.2, a2=-0.035, b1=0.8, b2=-0.1, g=0.0, c=-1.5):
    """A parabola in both logarithms; g for their product."""
    x, z = np.log(layers), np.log(dim)
    return a1 * x + a2 * x**2 + b1 * z + b2 * z**2 + g * x * z + c


def power(layers, dim, c=0.4, A=0.2, alpha=0.8, B=1.5, beta=0.7):
    """Gains that shrink."""
    return c - A * layers**-alpha - B * dim**-beta


def log_linear(layers, dim, a=0.02, b=0.03, c=0.1):
    """No bend at all."""
    return a * np.log(layers) + b * np.log(dim) + c


def runs_of(law, *, noise=0.0, seed=0, rising=True, layers=LAYERS, dims=DIMS, repeats=1):
    """Runs of a law with Gaussian noise; of minus it where the metric falls."""
    n, d = grid(layers, dims, repeats)
    y = law(n, d) + noise * np.random.default_rng(seed).normal(size=len(n))
    return Runs("hr10" if rising else "loss", rising, n, d, y if rising else -y, np.zeros(len(n), int))


def pooled(law, *, noise=0.0, seed=0, data=None):
    """Three panels of 12 runs of one law, each with its own constant; `data` gives D' of each run."""
    n, d = grid((4, 8, 16, 32), (25, 50, 100))
    n, d, panel = np.tile(n, 3), np.tile(d, 3), np.repeat(np.arange(3), len(n))
    y = law(n, d) + np.array(list(PANELS.values()))[panel]
    y = y + noise * np.random.default_rng(seed).normal(size=len(n))
    return Runs("hr10", True, n, d, y, panel, tuple(PANELS), data)


@pytest.fixture(scope="session")
def published_grid():
    """The measurements read from the paper's figures; skips where the file is not there."""
    if not GRID.is_file():
        pytest.skip(f"no published grid: {GRID} does not exist")
    return GRID
