"""Look for the Wukong of the paper's table 3: which of our settings have its parameter counts on three data sets?

    python benchmarks/paper_sizes.py

The paper prints the counts of its tuned models on Frappe, MovieLens and Criteo Terabyte, not their settings. This
counts a grid of settings and prints, for each set, those that have just the paper's count. That alone proves little,
for a dense grid hits any integer: how many settings have a count by chance is the mean over the counts around it. The
tables are those that the counts of the paper's other models imply
(tests/models/test_paper_sizes.py), of width 128.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

WIDTH = 128
LAYERS = range(1, 9)
EMBEDDINGS = (2, 4, 8, 10, 12, 16, 20, 24, 32, 40)
RANKS = (4, 8, 10, 12, 16, 20, 24, 32)
MLP_WIDTHS = (64, 100, 128, 200, 256, 400, 500, 512, 800, 1000, 1024, 2048)
MLPS = ((), *(depth * (width,) for depth in (1, 2, 3) for width in MLP_WIDTHS))
AROUND = 2000


class Published(NamedTuple):
    """A column of table 3, without its tables."""

    fields: int
    dense: int
    mflop: float
    bottom: int
    """Parameters of the MLP over the numeric values."""
    bottom_products: int


PUBLISHED = {
    "Frappe": Published(10, 7_769_589 - 5_399 * WIDTH, 44.09, 0, 0),
    "MovieLens": Published(3, 17_734_369 - 90_242 * WIDTH, 37.49, 0, 0),
    "Criteo Terabyte": Published(
        27, 26_163_636_001 - 204_184_585 * WIDTH, 173.73,
        14 * 512 + 513 * 256 + 257 * WIDTH, 13 * 512 + 512 * 256 + 256 * WIDTH,
    ),
}  # fmt: skip


class Count(NamedTuple):
    """Dense parameters, and multiply-adds of matrix products for an example."""

    parameters: int
    products: int


def mlp(*widths: int) -> Count:
    """Linear layers with biases."""
    pairs = list(itertools.pairwise(widths))
    return Count(sum((a + 1) * b for a, b in pairs), sum(a * b for a, b in pairs))


def layer(n: int, fmb: int, lcb: int, rank: int, hidden: tuple[int, ...]) -> Count:
    """An interaction layer over n embeddings: LCB, residual, Y, LayerNorm and MLP of the FMB, LayerNorm."""
    outputs = fmb + lcb
    inner = mlp(n * rank, *hidden, fmb * WIDTH)
    linear = n * lcb + (n != outputs) * n * outputs
    parameters = linear + n * rank + 2 * n * rank + inner.parameters + 2 * WIDTH
    return Count(parameters, WIDTH * linear + 2 * WIDTH * n * rank + inner.products)


def stacks(published: Published) -> Iterator[tuple[tuple[int, int, int, int, tuple[int, ...]], Count]]:
    """All stacks of interaction layers of the grid: (l, n_F, n_L, k, MLP of the FMB)."""
    for fmb, lcb, rank, hidden in itertools.product(EMBEDDINGS, EMBEDDINGS, RANKS, MLPS):
        first, later = (layer(n, fmb, lcb, rank, hidden) for n in (published.fields, fmb + lcb))
        for layers in LAYERS:
            yield (
                (layers, fmb, lcb, rank, hidden),
                Count(*(a + (layers - 1) * b for a, b in zip(first, later, strict=True))),
            )


def heads(outputs: int) -> list[tuple[tuple[int, ...], bool, Count]]:
    """All heads over `outputs` embeddings: hidden layers, BatchNorm or not."""
    found: list[tuple[tuple[int, ...], bool, Count]] = []
    for hidden in MLPS:
        plain = mlp(outputs * WIDTH, *hidden, 1)
        found.append((hidden, False, plain))
        if hidden:
            found.append((hidden, True, Count(plain.parameters + 2 * sum(hidden), plain.products)))
    return found


def search(published: Published) -> tuple[int, int, list[str]]:
    """How many settings there are, how many lie `AROUND` the paper's count, and those that have it."""
    tops = {outputs: heads(outputs) for outputs in {a + b for a in EMBEDDINGS for b in EMBEDDINGS}}
    counts = {outputs: np.array([count.parameters for _, _, count in found]) for outputs, found in tops.items()}
    tried, around, exact = 0, 0, []
    for stack, below in stacks(published):
        outputs = stack[1] + stack[2]
        off = counts[outputs] + below.parameters + published.bottom - published.dense
        tried += len(off)
        around += int(np.count_nonzero(np.abs(off) <= AROUND))
        for index in np.flatnonzero(off == 0):
            hidden, norm, top = tops[outputs][index]
            mflop = 6 * (below.products + top.products + published.bottom_products) / 1e6
            exact.append(
                "l={} n_F={} n_L={} k={} FMB {}".format(*stack)
                + f" head {hidden}{' with BatchNorm' if norm else ''}: {mflop:.2f} MFLOP"
            )
    return tried, around, exact


def main() -> int:
    """Print what was found for each set."""
    for name, published in PUBLISHED.items():
        tried, around, exact = search(published)
        print(f"{name}: {published.dense:,} dense parameters, {published.mflop} MFLOP in the paper")
        print(f"  {tried:,} settings; {len(exact)} have this count, {around / (2 * AROUND + 1):.1f} would by chance")
        for line in exact:
            print(f"  {line}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
