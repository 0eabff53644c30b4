"""The peer's Wukong in PyTorch: the same maths and the same parameters as ours, written twice.

`fused`: one product for [Y | W_L | W_residual] on a transposed copy of X. `paper`: the products as the paper has them.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from benchmarks.side_by_side.cells import INIT_STDDEV, NUMERIC, Shape

Form = Literal["fused", "paper"]


class MLP(nn.Sequential):
    """Linear and ReLU for each hidden width, then a linear layer."""

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        super().__init__(*layers, nn.Linear(inputs, outputs))


class Layer(nn.Module):
    """X' = LN(concat(FMB(X), LCB(X)) + R(X)) with the low-rank FM X (X^T Y)."""

    def __init__(self, inputs: int, shape: Shape, form: Form) -> None:
        super().__init__()
        outputs = 2 * shape.blocks
        self.form, self.blocks, self.width = form, shape.blocks, shape.width
        self.sizes = [shape.rank, shape.blocks] + ([outputs] if inputs != outputs else [])
        self.projections = nn.ParameterList([nn.Parameter(torch.randn(inputs, m) / inputs**0.5) for m in self.sizes])
        self.fm_norm = nn.LayerNorm(inputs * shape.rank)
        self.mlp = MLP(inputs * shape.rank, shape.mlp, shape.blocks * shape.width)
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, n, d] -> [batch, n_F + n_L, d]."""
        batch, n, d = x.shape
        if self.form == "fused":
            products = x.transpose(1, 2).reshape(batch * d, n) @ torch.cat(list(self.projections), dim=1)
            compressed, *maps = products.view(batch, d, -1).split(self.sizes, dim=2)
            maps = [product.transpose(1, 2) for product in maps]
        else:
            compressed = torch.einsum("bnd,nk->bdk", x, self.projections[0])
            maps = [torch.einsum("bnd,nm->bmd", x, weight) for weight in list(self.projections)[1:]]
        interactions = torch.bmm(x, compressed).flatten(1)
        fmb = self.mlp(self.fm_norm(interactions)).view(batch, self.blocks, self.width)
        residual = maps[1] if len(maps) > 1 else x
        out: torch.Tensor = self.norm(torch.cat([fmb, maps[0]], dim=1) + residual)
        return out


class Tower(nn.Module):
    """Everything but the tables: gathered rows and numeric values to logits."""

    def __init__(self, shape: Shape, form: Form) -> None:
        super().__init__()
        self.numeric = nn.Linear(NUMERIC, NUMERIC * shape.width)
        inputs = [shape.embeddings] + [2 * shape.blocks] * (shape.layers - 1)
        self.layers = nn.ModuleList([Layer(n, shape, form) for n in inputs])
        self.head = MLP(2 * shape.blocks * shape.width, shape.mlp, 1)

    def forward(self, rows: torch.Tensor, numeric: torch.Tensor) -> torch.Tensor:
        """Rows [batch, fields, d] and numeric [batch, 13] -> logits [batch] in float32."""
        lifted = self.numeric(numeric).view(len(rows), NUMERIC, -1)
        x = torch.cat([rows, lifted], dim=1)
        for layer in self.layers:
            x = layer(x)
        logits: torch.Tensor = self.head(x.flatten(1))
        return logits[:, 0].float()

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over our dense parameters; raises `ValueError` where a name or a shape is not as expected."""
        unused = {name for name in arrays if name not in ("row_numbers", "rows")}
        for name, parameter, transposed in self._names():
            if name not in arrays:
                raise ValueError(f"the exported weights have no {name!r}, only {sorted(unused)}")
            unused.remove(name)
            value = torch.from_numpy(arrays[name].T.copy() if transposed else arrays[name])
            if value.shape != parameter.shape:
                raise ValueError(f"{name}: exported {tuple(value.shape)}, expected {tuple(parameter.shape)}")
            with torch.no_grad():
                parameter.copy_(value)
        if unused:
            raise ValueError(f"exported weights that the PyTorch model lacks: {sorted(unused)}")

    def _names(self) -> list[tuple[str, torch.Tensor, bool]]:
        """Our name of each parameter, and whether it is stored transposed."""
        names = _linear("embedding_layer/dense/output", self.numeric) + _mlp("head", self.head)
        for index, layer in enumerate(self.layers):
            prefix = f"layer_{index}"
            maps = ["fmb/projection", "lcb/weight", "residual/weight"]
            names += [
                (f"{prefix}/{name}", weight, False) for name, weight in zip(maps, layer.projections, strict=False)
            ]
            for norm, name in ((layer.fm_norm, "fmb/norm"), (layer.norm, "norm")):
                names += [(f"{prefix}/{name}/scale", norm.weight, False), (f"{prefix}/{name}/bias", norm.bias, False)]
            names += _mlp(f"{prefix}/fmb/mlp", layer.mlp)
        return names


def new_table(rows: int, width: int, device: str) -> torch.Tensor:
    """N(0, 0.01^2)."""
    return torch.empty(rows, width, device=device).normal_(0.0, INIT_STDDEV)


def _mlp(prefix: str, mlp: Any) -> list[tuple[str, torch.Tensor, bool]]:
    linears = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    names = [f"{prefix}/hidden_{index}" for index in range(len(linears) - 1)] + [f"{prefix}/output"]
    return [entry for name, linear in zip(names, linears, strict=True) for entry in _linear(name, linear)]


def _linear(name: str, linear: nn.Linear) -> list[tuple[str, torch.Tensor, bool]]:
    return [(f"{name}/kernel", linear.weight, True), (f"{name}/bias", linear.bias, False)]
