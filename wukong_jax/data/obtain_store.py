"""The store that a run asks for: opened if it is there, else obtained and prepared by its recipe."""

import pathlib

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
    if path.exists() or recipe is None:
        store = open_store(path, verify=config.verify)
        _check_source(store, source)
    else:
        store = recipe.prepare(path, source=source, cache=pathlib.Path(config.root) / "downloads")
        rows = ", ".join(f"{split.rows:,} {name}" for name, split in store.splits.items())
        console.print(f"prepared {path}: {rows} rows", soft_wrap=True, markup=False)
    check_schema(store, schema)
    return store


def check_schema(store: Store, schema: DatasetSchema) -> None:
    """Raise `DataError` with the differences if the store's schema is another one."""
    lines = difference(to_plain(schema), to_plain(store.schema))
    if lines:
        raise DataError(
            f"store {store.path} does not have the schema of the config (config -> store):\n  "
            + "\n  ".join(lines)
            + "\n"
            "put the store's schema into the config (`prepare --write-config` writes one), or prepare the data again"
        )


def _check_source(store: Store, source: pathlib.Path | None) -> None:
    """Raise `DataError` if the store was prepared from other files than `source` now holds."""
    known = store.encoding.get("origin", {}).get("source_files")
    if source is not None and known is not None and known != source_files(source):
        raise DataError(
            f"store {store.path} was prepared from {known}, but data.source {source} holds {source_files(source)}; "
            "delete the store, or keep both with another --data.root"
        )
