"""The peer's embedding tables: fbgemm's TBE, sparse gradients, or (naive) dense ones."""

import importlib
import importlib.util
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from benchmarks.side_by_side.cells import INITIAL_ACCUMULATOR, TABLE_RATE, Cell, field_sizes
from benchmarks.side_by_side.torch_model import new_table


class Tables(Protocol):
    """Rows of a batch, and the update once their gradient has been propagated."""

    kind: str
    same_updates: bool
    """Whether the update is ours to rounding, so that losses can be compared after some steps."""

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows [batch, fields, width] of ids [batch, fields]."""

    def update(self) -> None:
        """Update what the backward pass touched."""

    def load(self, row_numbers: np.ndarray, rows: np.ndarray) -> None:
        """Set rows of the stacked table."""


def make_tables(cell: Cell, offsets: np.ndarray, device: str) -> Tables:
    """The fastest that is there and does the cell's update."""
    if cell.optimizer == "rowwise_adagrad" and importlib.util.find_spec("fbgemm_gpu"):
        return FusedTables(cell, offsets, device)
    return SparseTables(cell, offsets, device)


class FusedTables:
    """fbgemm's table-batched embedding: the backward pass itself updates the touched rows (row-wise Adagrad)."""

    kind = "fbgemm TBE, row-wise Adagrad"
    same_updates = True

    def __init__(self, cell: Cell, offsets: np.ndarray, device: str) -> None:
        common = importlib.import_module("fbgemm_gpu.split_table_batched_embeddings_ops_common")
        training = importlib.import_module("fbgemm_gpu.split_table_batched_embeddings_ops_training")
        optimizers = importlib.import_module("fbgemm_gpu.split_embedding_configs").EmbOptimType
        places, devices = common.EmbeddingLocation, training.ComputeDevice
        gpu = device == "cuda"
        place = (places.DEVICE, devices.CUDA) if gpu else (places.HOST, devices.CPU)
        sizes = field_sizes(cell.rows, cell.shape.fields)
        self.starts = offsets
        self.tables: Any = training.SplitTableBatchedEmbeddingBagsCodegen(
            embedding_specs=[(size, cell.shape.width, *place) for size in sizes],
            optimizer=optimizers.EXACT_ROWWISE_ADAGRAD,
            learning_rate=TABLE_RATE,
            eps=1e-8,
            device=torch.device(device),
        )
        for weight in self.tables.split_embedding_weights():
            weight.copy_(new_table(len(weight), cell.shape.width, device))
        for state, *_ in self.tables.split_optimizer_states():
            state.fill_(INITIAL_ACCUMULATOR)
        self.bags = torch.arange(cell.batch * len(sizes) + 1, device=device)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """One bag of one id for each field and example, field after field."""
        bags = self.bags[: ids.numel() + 1]
        rows: torch.Tensor = self.tables(ids.T.reshape(-1), bags).view(*ids.shape, -1)
        return rows

    def update(self) -> None:
        """Nothing: done in the backward pass."""

    def load(self, row_numbers: np.ndarray, rows: np.ndarray) -> None:
        """Set rows, table by table."""
        weights = self.tables.split_embedding_weights()
        fields = np.searchsorted(self.starts, row_numbers, side="right") - 1
        for field, weight in enumerate(weights):
            mine = fields == field
            places = torch.from_numpy(row_numbers[mine] - self.starts[field]).to(weight.device)
            weight[places] = torch.from_numpy(rows[mine]).to(weight.device)


class StackedTables:
    """One nn.Embedding for all fields."""

    kind = "nn.Embedding, dense gradients, Adam"
    same_updates = False

    def __init__(self, cell: Cell, offsets: np.ndarray, device: str, *, sparse: bool = False) -> None:
        weight = new_table(cell.rows, cell.shape.width, device)
        self.module = nn.Embedding.from_pretrained(weight, freeze=False, sparse=sparse)
        self.starts = torch.from_numpy(offsets).to(device)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Plain lookup."""
        rows: torch.Tensor = self.module(ids + self.starts)
        return rows

    def update(self) -> None:
        """Nothing: the naive peer's one Adam has the table among its parameters."""

    def load(self, row_numbers: np.ndarray, rows: np.ndarray) -> None:
        """Set rows."""
        with torch.no_grad():
            self.module.weight[torch.from_numpy(row_numbers)] = torch.from_numpy(rows).to(self.module.weight.device)


class SparseTables(StackedTables):
    """nn.Embedding(sparse=True) with SparseAdam, or with Adagrad element by element where fbgemm is missing."""

    def __init__(self, cell: Cell, offsets: np.ndarray, device: str) -> None:
        super().__init__(cell, offsets, device, sparse=True)
        self.optimizer: torch.optim.Optimizer
        if cell.optimizer == "adam":
            # its epsilon meets moments without bias correction: seen in the first steps, where gradients are small
            self.kind = "nn.Embedding(sparse), SparseAdam (with its own epsilon)"
            self.optimizer = torch.optim.SparseAdam(self.module.parameters(), lr=TABLE_RATE)
        else:
            self.kind = "nn.Embedding(sparse), element-wise Adagrad (fbgemm_gpu is not installed)"
            self.optimizer = torch.optim.Adagrad(
                self.module.parameters(), lr=TABLE_RATE, initial_accumulator_value=INITIAL_ACCUMULATOR
            )

    def update(self) -> None:
        """Update the touched rows."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
