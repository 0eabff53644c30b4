"""A sweep: a named list of runs, and pure functions that make such lists; needs no jax.

Every builder takes points and gives points, so they can be put in a row:

    points = points_of("data", {"Wukong": wukong, "DLRM": dlrm})
    points = over_seeds(over_examples(points, (1_000_000, 4_000_000)), (0, 1, 2))
"""

import dataclasses
import difflib
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from wukong_jax.config.checks import check_positive, check_unique
from wukong_jax.config.codec import TYPE_KEY, from_plain, to_plain
from wukong_jax.config.command_line import load_python_file
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError

Points = tuple["Point", ...]


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep and what it stands for in the fits and figures."""

    series: str
    """The curve that the run belongs to, such as Wukong or DLRM."""
    study: str
    """ladder, knob, ablation, data or another word."""
    varied: Mapping[str, Any]
    """What was varied besides the seed, such as {"num_layers": 4}; JSON values."""
    config: RunConfig
    """All settings, the seed among them."""

    def __post_init__(self) -> None:
        """Check names and values; raises `ConfigError`."""
        for name in ("series", "study"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name}: received {getattr(self, name)!r}, expected a name")
        try:
            json.dumps(to_plain(dict(self.varied)), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"varied: received {self.varied}, expected what JSON can hold ({error})") from error

    def __str__(self) -> str:
        """`Wukong, num_layers 4, seed 0`."""
        values = [f"{name} {json.dumps(value)}" for name, value in to_plain(dict(self.varied)).items()]
        return ", ".join([self.series, *values, f"seed {self.config.train.seed}"])


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep file's get_sweep() returns; the runs are trained in this order."""

    name: str
    """Names the folders of runs and records."""
    points: Points

    def __post_init__(self) -> None:
        """Check the name, and that every run is another one; raises `ConfigError`."""
        if not re.fullmatch(r"[\w.-]*\w[\w.-]*", self.name):
            raise ConfigError(f"sweep: received the name {self.name!r}, expected letters, digits, '.', '_' and '-'")
        if not self.points:
            raise ConfigError(f"sweep {self.name}: it has no points; give it at least one")
        known: dict[str, int] = {}
        for number, point in enumerate(self.points, 1):
            first = known.setdefault(point.config.identity_hash(), number)
            if first != number:
                raise ConfigError(
                    f"sweep {self.name}: points {first} ({self.points[first - 1]}) and {number} ({point}) are one run, "
                    f"named {point.config.name!r}; keep one of them, or give one another name if they differ in where "
                    "their data lies (data.store, data.root), which tells no runs apart"
                )


def load_sweep(path: pathlib.Path, source: str | None = None) -> Sweep:
    """What the file's `get_sweep()` returns, with `source` as every run's data.source; raises `ConfigError`."""
    sweep = load_python_file(path, "--sweep", "get_sweep", "docs/sweeps.md", lambda module: module.get_sweep())
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"--sweep: get_sweep() of {path} returned {type(sweep).__name__}, expected Sweep")
    points = []
    for point in sweep.points:
        config = from_plain(RunConfig, to_plain(point.config))  # dataclasses do not check types; this does
        if source is not None:
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=source))
        points.append(dataclasses.replace(point, config=config))
    return dataclasses.replace(sweep, points=tuple(points))


def points_of(study: str, configs: Mapping[str, RunConfig]) -> Points:
    """One point a config; the keys are the series."""
    return tuple(Point(series, study, {}, config) for series, config in configs.items())


def grid(points: Sequence[Point], fields: Mapping[str, Sequence[Any]]) -> Points:
    """Every combination of the values of dotted config fields, the last field fastest, for each point.

        grid(points, {"model.num_layers": (1, 2, 4), "tables.rules.0.learning_rate": (0.01, 0.1)})

    `varied` has each field's value under the end of its name: num_layers, learning_rate. Raises `ConfigError` naming a
    field that there is none of, a value that does not fit it, or one given twice.
    """
    names = _check_fields(fields)
    return tuple(
        _vary(point, dict(zip(fields, values, strict=True)), names)
        for point in points
        for values in itertools.product(*fields.values())
    )


def one_at_a_time(points: Sequence[Point], fields: Mapping[str, Sequence[Any]]) -> Points:
    """Each point itself, then each other value of each field with the other fields left as they are.

    `varied` has the values of all the fields, so that the point itself can be told as the one that every other differs
    from in one field. Raises `ConfigError` as `grid` does.
    """
    names = _check_fields(fields)
    found = []
    for point in points:
        base = {field: _value(to_plain(point.config), field) for field in fields}
        found.append(_vary(point, base, names))
        for field, values in fields.items():
            others = [value for value in values if to_plain(value) != base[field]]
            found += [_vary(point, base | {field: value}, names) for value in others]
    return tuple(found)


def over_examples(points: Sequence[Point], examples: Sequence[int]) -> Points:
    """One-pass training on the first so many examples, rounded down to whole batches: `varied["examples"]`.

    Sets train.max_steps = examples // batch size and train.epochs = 1. Runs of one seed read the same examples in the
    same order, a shorter one those that a longer one reads first, whatever their batch sizes; with data.shuffle False
    so do runs of all seeds. Each is a run of its own: a learning-rate schedule ends where the run does.
    """
    found = []
    for point, count in itertools.product(points, examples):
        size = point.config.train.batch_size
        if count < size:
            raise ConfigError(f"examples: received {count}, expected at least one batch of {size} ({point})")
        steps = count // size
        found.append(_vary(point, {"train.max_steps": steps, "train.epochs": 1}, {}, {"examples": steps * size}))
    return tuple(found)


def over_seeds(points: Sequence[Point], seeds: Sequence[int]) -> Points:
    """All points with the first seed, then all with the second: what is finished early compares all of them."""
    return tuple(_vary(point, {"train.seed": seed}, {}) for seed in seeds for point in points)


def with_fields(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config with dotted fields replaced, all at once; raises `ConfigError` as `grid` does."""
    plain = to_plain(config)
    for field, value in values.items():
        _value(plain, field)  # the field must be there
        *path, last = field.split(".")
        node = plain
        for part in path:
            node = node[int(part) if isinstance(node, list) else part]
        node[int(last) if isinstance(node, list) else last] = to_plain(value)
    return from_plain(RunConfig, plain)


def examples_of(config: RunConfig, rows: int | None) -> int | None:
    """Examples that the run trains on, repeats counted; None where it takes the rows of the split and they are unknown.

    A run that stops early on a plateau trains on fewer.
    """
    train = config.train
    if rows is None:
        return None if train.max_steps is None else train.max_steps * train.batch_size
    return min(config.epochs * (rows // train.batch_size), train.max_steps or sys.maxsize) * train.batch_size


def _vary(
    point: Point, values: Mapping[str, Any], names: Mapping[str, str], more: Mapping[str, Any] | None = None
) -> Point:
    """The point with dotted fields set, and in `varied` those that have a name, and `more`."""
    added = {names[field]: to_plain(value) for field, value in values.items() if field in names} | dict(more or {})
    check_unique("varied", [*point.varied, *added])
    return dataclasses.replace(point, varied={**point.varied, **added}, config=with_fields(point.config, values))


def _check_fields(fields: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """The shortest end of each dotted field that no other has; raises `ConfigError` for values given twice."""
    for field, values in fields.items():
        check_positive(f"values of {field}", len(values))
        check_unique(f"values of {field}", [json.dumps(to_plain(value)) for value in values])
    names = {}
    for field in fields:
        parts = field.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        names[field] = next(
            end for end in ends if sum(other == end or other.endswith(f".{end}") for other in fields) <= 1
        )
    return names


def _value(plain: Any, field: str) -> Any:
    """The value of a dotted field in a plain tree; raises `ConfigError` naming the part that there is none of."""
    node, path = plain, ""
    for part in field.split("."):
        if isinstance(node, list):
            known = [str(index) for index in range(len(node))]
        else:
            known = [name for name in node if name != TYPE_KEY] if isinstance(node, dict) else []
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            there = f"has {', '.join(known)}" if known else f"is {json.dumps(node)} and has no fields"
            raise ConfigError(f"{field}: the config has no such field, {path or 'it'} {there}{hint}")
        node = node[int(part) if isinstance(node, list) else part]
        path = f"{path}.{part}" if path else part
    return node
