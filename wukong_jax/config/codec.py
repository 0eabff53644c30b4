"""Frozen dataclasses to JSON and back, a stable hash, and a readable difference of two."""

import dataclasses
import hashlib
import json
import types
import typing
from typing import Any

from wukong_jax.errors import ConfigError

TYPE_KEY = "type"


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts with their class name under "type", tuples as lists; plain values as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {TYPE_KEY: type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def from_plain(expected: Any, value: Any, path: str = "") -> Any:
    """Inverse of `to_plain`; raises `ConfigError` naming the path of a value that does not fit."""
    origin = typing.get_origin(expected)
    if origin is typing.Annotated:
        return from_plain(typing.get_args(expected)[0], value, path)
    if origin in (typing.Union, types.UnionType):
        return _from_union(typing.get_args(expected), value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _mismatch(path, value, "a list")
        arguments = typing.get_args(expected)
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise _mismatch(path, value, f"{len(kinds)} items")
        items = (
            from_plain(kind, item, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
        return tuple(items)
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(path, value, "an object")
        kind = typing.get_args(expected)[1]
        return {key: from_plain(kind, item, f"{path}.{key}") for key, item in value.items()}
    if origin is typing.Literal:
        if value not in typing.get_args(expected):
            raise _mismatch(path, value, f"one of {list(typing.get_args(expected))}")
        return value
    if dataclasses.is_dataclass(expected):
        return _from_dataclass(expected, value, path)
    if expected is float and type(value) is int:
        return float(value)
    if expected in (int, float, str, bool, type(None)) and type(value) is not expected:
        raise _mismatch(path, value, expected.__name__)
    return value


def stable_hash(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON; equal on every machine and version."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """Lines `path: old -> new` for every leaf in which two plain trees (see `to_plain`) differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in dict.fromkeys([*old, *new]):
            inner = f"{path}.{key}" if path else str(key)
            if key not in old:
                lines.append(f"{inner}: (absent) -> {_short(new[key])}")
            elif key not in new:
                lines.append(f"{inner}: {_short(old[key])} -> (absent)")
            else:
                lines += difference(old[key], new[key], inner)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line for i, (a, b) in enumerate(zip(old, new, strict=True)) for line in difference(a, b, f"{path}[{i}]")
        ]
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def _from_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    classes: dict[str, Any] = {
        option.__name__: option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)
    }
    if classes and isinstance(value, dict):
        name = value.get(TYPE_KEY)
        if name not in classes:
            raise _mismatch(f"{path}.{TYPE_KEY}", name, f"one of {sorted(classes)}")
        return from_plain(classes[name], value, path)
    for option in options:
        try:
            return from_plain(option, value, path)
        except ConfigError:
            continue
    raise _mismatch(path, value, " or ".join(getattr(option, "__name__", str(option)) for option in options))


def _from_dataclass(expected: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(path, value, f"an object with the fields of {expected.__name__}")
    if value.get(TYPE_KEY, expected.__name__) != expected.__name__:
        raise _mismatch(f"{path}.{TYPE_KEY}" if path else TYPE_KEY, value[TYPE_KEY], expected.__name__)
    hints = typing.get_type_hints(expected, include_extras=True)
    known = {field.name: field for field in dataclasses.fields(expected)}
    unknown = sorted(set(value) - set(known) - {TYPE_KEY})
    if unknown:
        raise ConfigError(f"{path or expected.__name__}: unknown fields {unknown}; expected some of {sorted(known)}")
    arguments = {}
    for name, field in known.items():
        inner = f"{path}.{name}" if path else name
        if name in value:
            arguments[name] = from_plain(hints[name], value[name], inner)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{inner}: missing; {expected.__name__} needs it")
    return expected(**arguments)


def _mismatch(path: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{path or 'value'}: received {_short(value)}, expected {expected}")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
