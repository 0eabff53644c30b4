"""What is measured: model shapes, and cells of shape x batch x rows x pass. Imports neither jax nor torch."""

import dataclasses
from typing import Any

NUMERIC = 13
INIT_STDDEV = 0.01
TABLE_RATE, DENSE_RATE, INITIAL_ACCUMULATOR = 1e-2, 1e-3, 0.1
# Ids of the 26 categorical fields of the Criteo Kaggle data.
CRITEO = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """A Wukong: l layers of n_F = n_L = `blocks` embeddings of width d, rank k; FMB and head MLPs of one shape."""

    layers: int
    blocks: int
    rank: int
    mlp: tuple[int, ...]
    width: int
    fields: int = 26

    @property
    def embeddings(self) -> int:
        """Embeddings n0 that enter the first layer: one a categorical field and one a numeric feature."""
        return self.fields + NUMERIC


SHAPES = {
    "S": Shape(2, 8, 8, (64,), 16),
    "M": Shape(4, 16, 16, (256,) * 2, 64),
    "L": Shape(8, 32, 24, (512,) * 3, 64),
    "L+": Shape(8, 96, 96, (8192,) * 3, 160, fields=707),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One line of the table."""

    shape_name: str
    batch: int
    rows: int
    mode: str
    """train or infer."""
    optimizer: str = "rowwise_adagrad"
    """Of the tables: rowwise_adagrad, or adam (lazy Adam)."""
    dtype: str = "float32"
    ours_only: bool = False

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return SHAPES[self.shape_name]

    @property
    def label(self) -> str:
        """Words that select the cell on the command line and name it in the results."""
        return f"{self.shape_name} {self.batch} {in_words(self.rows)} {self.mode} {self.optimizer} {self.dtype}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a worker."""
        return dataclasses.asdict(self)


def in_words(rows: int) -> str:
    """1M for 1,000,000."""
    return f"{rows // 10**6}M" if rows % 10**6 == 0 else f"{rows // 1000}k"


def grid(*, gpu: bool) -> list[Cell]:
    """Every cell, in the order of the table."""
    cells = []
    for mode in ("train", "infer"):
        for shape in ("S", "M", "L"):
            for batch in (4096, 16384):
                cells += [Cell(shape, batch, rows, mode) for rows in (10**6, 10**7)]
    cells += [Cell(shape, 4096, 5 * 10**7, "train", ours_only=True) for shape in ("S", "M")]
    cells += [Cell("M", 4096, rows, "train", optimizer="adam") for rows in (10**6, 10**7)]
    cells += [Cell(shape, 4096, 10**6, mode, dtype="bfloat16") for mode in ("train", "infer") for shape in "SML"]
    if gpu:
        dtypes = ("float32", "bfloat16")
        cells += [Cell("L+", 4096, 100_000, mode, dtype=dtype) for mode in ("train", "infer") for dtype in dtypes]
    return cells


def select(cells: list[Cell], selections: tuple[str, ...]) -> list[Cell]:
    """Cells of which some selection names only words of the label, such as "M 16384 1M"; all without a selection."""
    wanted = [set(selection.split()) for selection in selections] or [set()]
    return [cell for cell in cells if any(words <= set(cell.label.split()) for words in wanted)]


def field_sizes(rows: int, fields: int) -> list[int]:
    """Ids of each field: Criteo's, the large ones cut (past Criteo's 34M: all stretched) so that they sum to `rows`."""
    ids = [CRITEO[field % len(CRITEO)] for field in range(fields)]
    if rows <= sum(ids):
        low, high = 1, max(ids)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if sum(min(size, middle) for size in ids) <= rows else (low, middle - 1)
        sizes = [min(size, low) for size in ids]
    else:
        sizes = [size * rows // sum(ids) for size in ids]
    sizes[sizes.index(max(sizes))] += rows - sum(sizes)
    return sizes
