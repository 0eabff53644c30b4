"""The store that a run asks for: opened if it is there, else obtained and prepared by its recipe."""

import pathlib

import rich.console

from wukong_jax.config.codec import difference, to_plain
from wukong_jax.config.run import DataConfig
from wukong_jax.data.recipes import load_recipe
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.data.store import Store, open_store
from wukong_jax.errors import DataError


def store_path(config: DataConfig, schema: DatasetSchema) -> pathlib.Path:
    """Where the store lies: as configured, or <root>/<recipe>-<schema hash>."""
    return pathlib.Path(config.store or pathlib.Path(config.root) / f"{config.recipe}-{schema.hash()}")


def obtain_store(config: DataConfig, schema: DatasetSchema, console: rich.console.Console) -> Store:
    """Open the store, preparing it first if a recipe is named and it is not there yet.

    Raises `DataError` if there is neither a store nor a recipe, or if the store's schema is not the config's.
    """
    path = store_path(config, schema)
    if path.exists() or config.recipe is None:
        store = open_store(path, verify=config.verify)
    else:
        recipe = load_recipe(config.recipe)
        source = None if config.source is None else pathlib.Path(config.source)
        store = recipe.prepare(path, source=source, cache=pathlib.Path(config.root) / "downloads")
        rows = ", ".join(f"{split.rows:,} {name}" for name, split in store.splits.items())
        console.print(f"prepared {path}: {rows} rows", soft_wrap=True, markup=False)
    lines = difference(to_plain(schema), to_plain(store.schema))
    if lines:
        raise DataError(
            f"store {path} does not have the schema of the config (config -> store):\n  " + "\n  ".join(lines) + "\n"
            "put the store's schema into the config (`prepare --write-config` writes one), or prepare the data again"
        )
    return store
