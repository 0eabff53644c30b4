"""A run's settings as the source of a configuration file."""

import dataclasses
import json
from typing import Any

from wukong_jax.config.run import RunConfig

LINE = 120


def run_source(config: RunConfig, docstring: str) -> str:
    """Python source, as the formatter has it, whose `get_config()` returns an equal config; defaults are left out."""
    modules: dict[str, set[str]] = {}
    _collect(config, modules)
    imports = "\n".join(_import(module, sorted(names)) for module, names in sorted(modules.items()))
    return (
        f'"""{docstring}"""\n\n{imports}\n\n\ndef get_config() -> RunConfig:\n    """The settings."""\n'
        f"    return {_source(config, 4, len('    return '))}\n"
    )


def _collect(value: Any, modules: dict[str, set[str]]) -> None:
    """The classes of all written values, by module."""
    if dataclasses.is_dataclass(value):
        modules.setdefault(type(value).__module__, set()).add(type(value).__name__)
        for _, inner in _written(value):
            _collect(inner, modules)
    elif isinstance(value, tuple):
        for inner in value:
            _collect(inner, modules)


def _written(value: Any) -> list[tuple[str, Any]]:
    """Fields that differ from their defaults."""
    fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return [(field.name, inner) for field, inner in fields if inner != field.default]


def _source(value: Any, indent: int, before: int, after: int = 0) -> str:
    """The value on one line where it fits between `before` and `after` characters, else one part a line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        parts, opening, closing = [("", inner) for inner in value], "(", ")"
    elif dataclasses.is_dataclass(value):
        parts, opening = [(f"{name}=", inner) for name, inner in _written(value)], f"{type(value).__name__}("
        closing = ")"
    else:
        return repr(value)
    flat = [label + _source(inner, 0, -LINE * LINE) for label, inner in parts]
    single = "," if isinstance(value, tuple) and len(value) == 1 else ""
    line = f"{opening}{', '.join(flat)}{single}{closing}"
    if before + len(line) + after <= LINE:
        return line
    inside = indent + 4
    lines = [f"{' ' * inside}{label}{_source(inner, inside, inside + len(label), 1)},\n" for label, inner in parts]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing}"


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= LINE:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
