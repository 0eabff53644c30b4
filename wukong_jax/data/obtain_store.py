"""The store that a run asks for: opened if it is there, else obtained and prepared by its recipe."""

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import rich.console

from wukong_jax.config.codec import difference, to_plain
from wukong_jax.config.run import DataConfig
from wukong_jax.data.obtain import source_files
from wukong_jax.data.recipes import load_recipe
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.data.store import Store, open_store
from wukong_jax.errors import DataError


def store_path(config: DataConfig, schema: DatasetSchema) -> pathlib.Path:
    """Where the store lies: as configured, or <root>/<recipe>-<schema hash>."""
    return pathlib.Path(config.store or pathlib.Path(config.root) / f"{config.recipe}-{schema.hash()}")


def obtain_store(config: DataConfig, schema: DatasetSchema, console: rich.console.Console) -> Store:
    """Open the store, preparing it first if a recipe is named and it is not there yet.

    Raises `DataError` if there is neither a store nor a recipe, if the store's schema is not the config's, or if it was
    prepared from another source than the config names.
    """
    path = store_path(config, schema)
    source = None if config.source is None else pathlib.Path(config.source)
    if source is not None and not source.exists():
        raise DataError(f"data.source: {source} does not exist; name the folder or file with the raw data")
    recipe = None if config.recipe is None else load_recipe(config.recipe)
    with others_waiting(path) if recipe is not None else contextlib.nullcontext():
        if path.exists() or recipe is None:
            store = open_store(path, verify=config.verify)
            check_source(path, store.encoding.get("origin", {}), source)
        else:
            store = recipe.prepare(path, source=source, cache=pathlib.Path(config.root) / "downloads")
            rows = ", ".join(f"{split.rows:,} {name}" for name, split in store.splits.items())
            console.print(f"prepared {path}: {rows} rows", soft_wrap=True, markup=False)
    check_schema(store, schema)
    return store


@contextlib.contextmanager
def others_waiting(store: pathlib.Path) -> Iterator[None]:
    """Keep other processes from making the same store at the same time; raises `DataError` where none can be made."""
    if store.exists():
        yield
        return
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        lock = store.with_name(f".{store.name}.lock").open("w")
    except OSError as error:
        raise DataError(
            f"store {store} cannot be made ({error.strerror or error}); choose another --data.root or --data.store"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the system however the process ends
        yield


@runtime_checkable  # so that annotations can be checked in tests
class Prepared(Protocol):
    """Anything prepared that knows its schema."""

    @property
    def path(self) -> pathlib.Path:
        """Its folder."""

    @property
    def schema(self) -> Any:
        """What it holds."""


def check_schema(store: Prepared, schema: Any) -> None:
    """Raise `DataError` with the differences if the store's schema is another one."""
    lines = difference(to_plain(schema), to_plain(store.schema))
    if lines:
        raise DataError(
            f"store {store.path} does not have the schema of the config (config -> store):\n  "
            + "\n  ".join(lines)
            + "\n"
            "put the store's schema into the config (`prepare --write-config` writes one), or prepare the data again"
        )


def check_source(path: pathlib.Path, origin: Mapping[str, Any], source: pathlib.Path | None) -> None:
    """Raise `DataError` if the store at `path`, of this origin, was prepared from other files than `source` now holds.

    A store that does not know its files passes, as does every store where no source is given.
    """
    known = origin.get("source_files")
    if source is not None and known and known != source_files(source):
        raise DataError(
            f"store {path} was prepared from {known}, but data.source {source} holds {source_files(source)}; "
            "delete the store, or keep both with another --data.root"
        )
