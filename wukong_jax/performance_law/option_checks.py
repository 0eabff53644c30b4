"""Checks of the command line's options before anything is fitted, and messages that name options."""

import os
import pathlib
from typing import Any

from wukong_jax.errors import ConfigError

BLOCKS = ("budget_parameters", "budget_total", "budget_flops")
NEEDS = {
    "backbone": BLOCKS,
    "length": BLOCKS,
    "ffn_ratio": BLOCKS,
    "items": ("budget_total",),
    "candidates": ("budget_flops",),
}
"""Options that count only with one of some budgets."""


def check_counted(options: Any) -> None:
    """Raise `ConfigError` for an option that no budget given needs."""
    for name, budgets in NEEDS.items():
        value = getattr(options, name)
        if value not in (None, 0) and all(getattr(options, budget) is None for budget in budgets):
            needed = " or ".join(map(option_name, budgets))
            raise ConfigError(f"{option_name(name)}: received {value}, which counts for nothing without {needed}")


def check_writable(option: str, folder: pathlib.Path) -> None:
    """Raise `ConfigError` unless files can be written to the folder, or it can be made."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "cannot be written to" if there.is_dir() else "is no folder"
        raise ConfigError(f"{option}: {there} {why}; choose a folder that can be written")


def with_options(options: Any, message: str) -> str:
    """The message, with fields that it begins with written as the options that set them."""
    head, colon, rest = message.partition(":")
    names = head.split(" and ")
    if not colon or not all(hasattr(options, name) or name == "form" for name in names):
        return message
    if head == "form" and not getattr(options, "form", None):
        names = ["forms"]
    elif head == "data":
        names = ["at_data"]
    return f"{' and '.join(map(option_name, names))}:{rest}"


def option_name(field: str) -> str:
    """The option of a field."""
    return f"--{field.replace('_', '-')}"
