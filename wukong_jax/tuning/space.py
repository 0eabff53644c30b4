"""Search spaces: Python files whose `suggest(trial, config)` gives the config that a trial trains."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optuna

from wukong_jax.comparison.records import protocol
from wukong_jax.config.codec import difference, from_plain, to_plain
from wukong_jax.config.command_line import line_in, load_python_file
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import UserError

Suggest = Callable[[optuna.Trial, RunConfig], RunConfig]


class Space(NamedTuple):
    """A loaded space."""

    path: pathlib.Path
    suggest: Suggest
    starts: Callable[[RunConfig], list[dict[str, Any]]]
    """Parameters of the first trials: the settings that others found good."""


def load_space(path: pathlib.Path) -> Space:
    """The file's `suggest` and, where it has one, `starts`; raises `ConfigError` if there is no `suggest`."""
    example = "configs/spaces/wukong_small.py"
    return load_python_file(
        path,
        "--space",
        "suggest",
        example,
        lambda module: Space(path, module.suggest, getattr(module, "starts", lambda config: [])),
    )


def for_model(spaces: Mapping[type, Suggest], config: RunConfig) -> Suggest:
    """The entry of the config's model; raises `UserError` naming those that there are."""
    kind = type(config.model)
    if kind not in spaces:
        known = ", ".join(known.__name__ for known in spaces)
        raise UserError(
            f"--space: it has no entry for {kind.__name__}, only for {known}; add one, or name another file"
        )
    return spaces[kind]


def propose(space: Space, trial: optuna.Trial, base: RunConfig) -> RunConfig:
    """The trial's config; raises `ConfigError` for a combination that cannot be run, `UserError` for a faulty space."""
    try:
        config = space.suggest(trial, base)
    except UserError:
        raise
    except Exception as error:  # whatever the file's code may raise
        raise UserError(
            f"--space: {space.path}{line_in(space.path, error)}: {type(error).__name__}: {error}; "
            "mend it, or take another --study if its ranges were changed"
        ) from error
    if not isinstance(config, RunConfig):
        raise UserError(f"--space: suggest() of {space.path} returned {type(config).__name__}, expected RunConfig")
    lines = difference(protocol(base), protocol(config))
    if config.train.seed != base.train.seed:
        lines.append(f"train.seed: {base.train.seed} -> {config.train.seed}")
    if lines:
        raise UserError(
            f"--space: suggest() of {space.path} changes what all trials must share:\n  "
            + "\n  ".join(lines)
            + "\nset it in the config instead"
        )
    return from_plain(RunConfig, to_plain(config))
