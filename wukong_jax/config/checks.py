"""Checks of single settings, with one form of message."""

import math
import re
from collections.abc import Sequence

from wukong_jax.errors import ConfigError


def check_positive(field: str, value: int | float) -> None:
    """Raise `ConfigError` unless `value` is above zero and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{field}: received {value}, expected a number above 0")


def check_not_negative(field: str, value: int | float) -> None:
    """Raise `ConfigError` unless `value` is zero or above and finite."""
    if not (value >= 0 and math.isfinite(value)):
        raise ConfigError(f"{field}: received {value}, expected 0 or more")


def check_between(field: str, value: int | float, low: float, high: float) -> None:
    """Raise `ConfigError` unless low <= value < high."""
    if not low <= value < high:
        raise ConfigError(f"{field}: received {value}, expected at least {low} and below {high}")


def check_unique(field: str, values: Sequence[str]) -> None:
    """Raise `ConfigError` that lists the values that occur more than once."""
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ConfigError(f"{field}: {twice} named more than once; keep one of each")


def check_pattern(field: str, pattern: str) -> None:
    """Raise `ConfigError` unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"{field}: received the pattern {pattern!r}, which is no regular expression ({error})"
        ) from error
