"""How each model grows: shapes in growing order, each with one width that is set freely from an entry value on.

The patterns are those of the paper's table 5. w is the width of all hidden layers of an MLP, whose number of layers,
activation, dropout and BatchNorm stay the base's; d is the embedding width, which never changes. Widths are multiples
of 2 up to 64 and of 8 from there on; where heads cut a width, of their number as well.

Wukong    layers l first: 1, 2, 4, 8; then n_F = n_L = k = 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ... The MLPs of the
          blocks and the head enter each step at w = 8/15 d n_F, the paper's ratio (8192 at d = 160, n_F = 96).
DLRM      top MLP. DNN, Wide & Deep, DeepFM: MLP.
DCNv2     low-rank cross layers: first one, then the base's number; rank 2, 4, 8, ... up to D/4, entering at w = 4 rank
          (the paper's 2048 and 512); then the MLP.
MaskNet   mask ratio 0.002, 0.005, 0.01, ... up to the base's, from one block to the base's number; then widths.
FinalMLP  streams w and w/4; gates of width w/2 (if the base has any) from w = 32 on. FinalNet: first block; gates from
          w = 16, second block from w = 32.
AutoInt+  attention width 2, 4, 8, ... up to 4 d, layers from one to the base's number, a head for every 32 values (at
          most 16); then the DNN. AutoInt, without DNN: attention width by steps of 1, from 64 on of 2.
AFN+      v/2 logarithmic neurons and an MLP of width v = 8, 16, 24, 32, 48, ...; a DNN of width v or more.
xDeepFM   1, 2, 3, 4, 6, 8, ... feature maps a layer, the first step with one layer; a DNN of 8 times as many or more.
          Without DNN: the feature maps.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from wukong_jax.config.baselines import (
    AFNConfig,
    AutoIntConfig,
    DCNv2Config,
    DeepFMConfig,
    DLRMConfig,
    DNNConfig,
    FinalMLPConfig,
    FinalNetConfig,
    MaskNetConfig,
    WideDeepConfig,
    XDeepFMConfig,
)
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import ModelConfig, WukongConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.errors import ConfigError
from wukong_jax.models.embedding_layer import count_embeddings

UNIT, FINE_UNIT = 8, 2
FINE_BELOW = 64
MASK_RATIOS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)


class Shape(NamedTuple):
    """A structure of a model and the width that fits it to a budget."""

    of_width: Callable[[int], ModelConfig]
    """The config of a width."""
    entry: int
    """The least width, a multiple of `fine`, and of `coarse` from the width on where the steps are coarse."""
    fine: int = FINE_UNIT
    coarse: int = UNIT

    def at(self, step: int) -> ModelConfig:
        """The config `step` widths above the entry: multiples of `fine`, from about 64 on of `coarse`."""
        turn = max(self.entry, math.ceil(FINE_BELOW / self.coarse) * self.coarse)
        small = (turn - self.entry) // self.fine
        width = self.entry + step * self.fine if step <= small else turn + (step - small) * self.coarse
        return self.of_width(width)


def shapes(model: ModelConfig, schema: DatasetSchema) -> Iterator[Shape]:
    """The shapes of a model's ladder, the smallest first; raises `ConfigError` for a model without one."""
    schedule = SCHEDULES.get(type(model))
    if schedule is None:
        names = ", ".join(sorted(known.__name__.removesuffix("Config") for known in SCHEDULES))
        raise ConfigError(
            f"model: received {type(model).__name__}, which has no size to grow besides its tables; models with a "
            f"ladder are {names}"
        )
    return schedule(model, schema)


def _grid() -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, 24, ...: steps of a half and a third."""
    yield 1
    for power in itertools.count(1):
        yield 2**power
        yield 3 * 2 ** (power - 1)


def _fine_grid(value: int) -> Iterator[int]:
    """Steps of a quarter of the power of two below: 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ..."""
    while True:
        yield value
        value += 2 ** (value.bit_length() - 3)


def _down(numerator: int, denominator: int = 1, *, unit: int = UNIT) -> int:
    """The multiple of `unit` not above the quotient, at least one."""
    return max(unit, numerator // denominator // unit * unit)


def _wide(mlp: MLPConfig, width: int) -> MLPConfig:
    """As many hidden layers, all of one width; at least one."""
    return dataclasses.replace(mlp, widths=(width,) * max(1, len(mlp.widths)))


def _wukong(base: WukongConfig, schema: DatasetSchema) -> Iterator[Shape]:
    def sized(layers: int, embeddings: int, width: int) -> WukongConfig:
        head = dataclasses.replace(base.head, widths=(width,) * len(base.head.widths))
        attentive = dataclasses.replace(base.attentive, compressed=None, mlp=_wide(base.attentive.mlp, width))
        return dataclasses.replace(
            base,
            num_layers=layers,
            num_fmb=embeddings,
            num_lcb=embeddings,
            rank=embeddings,
            fmb_mlp=_wide(base.fmb_mlp, width),
            head=head,
            attentive=attentive if base.fm == "attentive" else base.attentive,
            layers=(),
        )

    deep = ((8, embeddings) for embeddings in _fine_grid(8))
    for layers, embeddings in itertools.chain(((1, 2), (1, 4), (2, 4), (2, 6), (2, 8), (4, 8)), deep):
        entry = UNIT if embeddings == 2 else _down(8 * base.width * embeddings, 15)
        yield Shape(functools.partial(sized, layers, embeddings), entry)


def _by_mlp(field: str) -> Callable[[Any, DatasetSchema], Iterator[Shape]]:
    def schedule(base: Any, schema: DatasetSchema) -> Iterator[Shape]:
        mlp = getattr(base, field)
        yield Shape(lambda width: dataclasses.replace(base, **{field: _wide(mlp, width)}), UNIT)

    return schedule


def _dcnv2(base: DCNv2Config, schema: DatasetSchema) -> Iterator[Shape]:
    if base.structure == "cross_only":
        raise ConfigError(
            "model.structure: received 'cross_only', whose ladder would end at a rank of D; use 'stacked' or "
            "'parallel', which grow by their MLP"
        )
    cross = "low_rank" if base.cross == "full" else base.cross

    def sized(layers: int, rank: int, width: int) -> DCNv2Config:
        return dataclasses.replace(base, cross=cross, num_layers=layers, rank=rank, mlp=_wide(base.mlp, width))

    size = count_embeddings(schema, base.embedding) * base.width
    yield Shape(functools.partial(sized, 1, 2), UNIT)
    rank = 4
    while rank <= max(4, size // 4):
        yield Shape(functools.partial(sized, base.num_layers, rank), _down(4 * rank))
        rank *= 2


def _masknet(base: MaskNetConfig, schema: DatasetSchema) -> Iterator[Shape]:
    size = count_embeddings(schema, base.embedding) * base.width

    def sized(blocks: int, ratio: float, width: int) -> MaskNetConfig:
        mlp = base.mlp if base.structure == "serial" else _wide(base.mlp, width)
        return dataclasses.replace(base, blocks=(width,) * blocks, mask_ratio=ratio, mlp=mlp)

    ratios = [ratio for ratio in MASK_RATIOS if size * ratio >= 1 and ratio < base.mask_ratio]
    for step, (multiple, ratio) in enumerate(zip(_grid(), [*ratios, base.mask_ratio], strict=False)):
        blocks = min(len(base.blocks), 1 + step)
        # a later mask of serial blocks is made for `width` values and must keep one of them
        if base.structure == "serial" and UNIT * multiple * ratio < 1:
            blocks = 1
        yield Shape(functools.partial(sized, blocks, ratio), UNIT * multiple)


def _finalmlp(base: FinalMLPConfig, schema: DatasetSchema) -> Iterator[Shape]:
    fine, coarse = math.lcm(FINE_UNIT, base.num_heads), math.lcm(UNIT, base.num_heads)

    def sized(width: int) -> FinalMLPConfig:
        mlp2 = _wide(base.mlp2, _down(width, 4, unit=fine))
        return dataclasses.replace(base, mlp1=_wide(base.mlp1, width), mlp2=mlp2)

    first = math.ceil(UNIT / fine) * fine
    yield Shape(
        lambda width: dataclasses.replace(sized(width), gates=None, context1=(), context2=()), first, fine, coarse
    )
    if base.gates is not None:
        gates = base.gates
        yield Shape(
            lambda width: dataclasses.replace(sized(width), gates=_wide(gates, _down(width, 2, unit=FINE_UNIT))),
            4 * first, fine, coarse,
        )  # fmt: skip


def _finalnet(base: FinalNetConfig, schema: DatasetSchema) -> Iterator[Shape]:
    def sized(width: int) -> FinalNetConfig:
        block1 = _wide(base.block1, width)
        return dataclasses.replace(base, gates=False, block1=block1, block2=None, self_distillation=False)

    yield Shape(sized, UNIT)
    if base.gates:
        yield Shape(lambda width: dataclasses.replace(sized(width), gates=True), 2 * UNIT)
    if base.block2 is not None:
        second = base.block2

        def of_two(width: int) -> FinalNetConfig:
            block1, block2 = _wide(base.block1, width), _wide(second, width)
            return dataclasses.replace(base, block1=block1, block2=block2)

        yield Shape(of_two, 4 * UNIT)


def _autoint(base: AutoIntConfig, schema: DatasetSchema) -> Iterator[Shape]:
    def sized(layers: int, attention: int) -> AutoIntConfig:
        heads = next(heads for heads in (16, 8, 4, 2, 1) if heads == 1 or not attention % (32 * heads))
        return dataclasses.replace(base, num_layers=layers, attention_width=attention, num_heads=heads)

    if base.dnn is None:
        for layers in range(1, base.num_layers + 1):
            yield Shape(functools.partial(sized, layers), 2 if layers == 1 else 4 * layers, 1, 2)
        return
    dnn, steps = base.dnn, [(1, 2), (1, 4), *((layers, 8) for layers in range(1, base.num_layers + 1))]

    def with_dnn(layers: int, attention: int, width: int) -> AutoIntConfig:
        return dataclasses.replace(sized(layers, attention), dnn=_wide(dnn, width))

    widths = itertools.takewhile(lambda width: width <= 4 * base.width, (2**power for power in itertools.count(4)))
    for layers, attention in itertools.chain(steps, ((base.num_layers, width) for width in widths)):
        yield Shape(functools.partial(with_dnn, layers, attention), max(UNIT, attention))


def _afn(base: AFNConfig, schema: DatasetSchema) -> Iterator[Shape]:
    def sized(size: int, width: int) -> AFNConfig:
        if base.dnn is None:
            return dataclasses.replace(base, log_neurons=size // 2, mlp=_wide(base.mlp, width))
        return dataclasses.replace(base, log_neurons=size // 2, mlp=_wide(base.mlp, size), dnn=_wide(base.dnn, width))

    for multiple in _grid():
        size = UNIT * multiple
        yield Shape(functools.partial(sized, size), size)


def _xdeepfm(base: XDeepFMConfig, schema: DatasetSchema) -> Iterator[Shape]:
    def alone(layers: int, maps: int) -> XDeepFMConfig:
        return dataclasses.replace(base, cin=(maps,) * layers)

    depth = len(base.cin)
    if base.dnn is None:
        for layers in range(1, depth + 1):
            yield Shape(functools.partial(alone, layers), 1 if layers == 1 else 2 * layers, 1, 1)
        return
    dnn = base.dnn

    def with_dnn(maps: int, width: int) -> XDeepFMConfig:
        return dataclasses.replace(alone(1 if maps == 1 else depth, maps), dnn=_wide(dnn, width))

    for maps in _grid():
        yield Shape(functools.partial(with_dnn, maps), 8 * maps)


SCHEDULES: dict[type, Callable[[Any, DatasetSchema], Iterator[Shape]]] = {
    WukongConfig: _wukong,
    DNNConfig: _by_mlp("mlp"),
    WideDeepConfig: _by_mlp("mlp"),
    DeepFMConfig: _by_mlp("mlp"),
    DLRMConfig: _by_mlp("top_mlp"),
    DCNv2Config: _dcnv2,
    MaskNetConfig: _masknet,
    FinalMLPConfig: _finalmlp,
    FinalNetConfig: _finalnet,
    AutoIntConfig: _autoint,
    AFNConfig: _afn,
    XDeepFMConfig: _xdeepfm,
}
