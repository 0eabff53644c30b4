"""A config file plus command-line overrides; imports no jax, so that `--help` is fast."""

import dataclasses
import importlib.util
import pathlib
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from wukong_jax.config.codec import from_plain, to_plain
from wukong_jax.config.distributed import DistributedConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError, UserError

T = TypeVar("T")
A = TypeVar("A", bound="RunArguments")


def load_config_file(path: pathlib.Path) -> RunConfig:
    """What the file's `get_config()` returns, types checked; raises `ConfigError` naming what and where."""
    example = "configs/movielens_100k.py"
    config = load_python_file(path, "--config", "get_config", example, lambda module: module.get_config())
    if not isinstance(config, RunConfig):
        raise ConfigError(f"--config: get_config() of {path} returned {type(config).__name__}, expected RunConfig")
    # dataclasses do not check types; this does, and makes 1 of a float field 1.0, so that equal settings hash equally
    return from_plain(RunConfig, to_plain(config))


def load_python_file(path: pathlib.Path, option: str, function: str, example: str, use: Callable[[Any], T]) -> T:
    """What `use` makes of the module in the file, which must define `function`; raises `ConfigError`."""
    kind = option.strip("-")
    if not path.is_file():
        near = sorted(str(other) for other in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise ConfigError(f"{option}: {path} does not exist; {kind}s there: {', '.join(near) or 'none'}")
    spec = importlib.util.spec_from_file_location(f"{kind}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{option}: {path} is no Python file; expected one that defines {function}()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, function):
            raise ConfigError(f"{option}: {path} defines no {function}(); see {example} for the form")
        return use(module)
    except UserError:
        raise
    except Exception as error:  # whatever the file's code may raise
        raise ConfigError(f"{option}: {path}{line_in(path, error)}: {type(error).__name__}: {error}") from error


def line_in(path: pathlib.Path, error: Exception) -> str:
    """`, line 12` for the line of the file that raised the error; empty where none did."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if pathlib.Path(frame.filename) == path
    ]
    return f", line {lines[-1]}" if lines else ""


@dataclasses.dataclass(frozen=True)
class RunArguments:
    """A config file and overrides of its fields."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    config: pathlib.Path = pathlib.Path("configs/movielens_100k.py")
    """Python file whose get_config() gives the defaults of the options below."""


@dataclasses.dataclass(frozen=True)
class TrainArguments(RunArguments):
    """Train a recommender: the config file decides everything, every field of it can be overridden here.

    The run folder holds config.json, record.jsonl, curves.png and checkpoints; the same command resumes a stopped run.
    """

    run_dir: pathlib.Path | None = None
    """Run folder; by default runs/<name>/<hash of the settings>."""
    fresh: bool = False
    """Start anew instead of resuming what the run folder holds."""
    force: bool = False
    """With --fresh: delete the run that the folder holds."""
    distributed: DistributedConfig = DistributedConfig()
    """Several processes for one run."""


def parse_run_arguments(kind: type[A], arguments: Sequence[str], program: str) -> A:
    """Arguments of a command that takes a config; a mistake exits with 2 and names the nearest option."""
    config_file = _config_option(arguments)
    return parse(kind, arguments, program, default=kind(load_config_file(config_file), config_file))


def parse(kind: type[T], arguments: Sequence[str], program: str, default: T | None = None) -> T:
    """Options of one command as a dataclass."""
    extra: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, args=list(arguments), prog=program, config=(tyro.conf.AvoidSubcommands,), **extra)


def _config_option(arguments: Sequence[str]) -> pathlib.Path:
    """The value of --config, which must be read first: the file decides which other options there are."""
    given = []
    for index, argument in enumerate(arguments):
        if argument.startswith("--config="):
            given.append(argument.partition("=")[2])
        elif argument == "--config" and index + 1 < len(arguments):
            given.append(arguments[index + 1])
    if len(given) > 1:
        raise ConfigError(f"--config: received {' and '.join(given)}, expected one")
    return pathlib.Path(given[0]) if given else RunArguments.config
