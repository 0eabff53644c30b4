"""The sequences that a run asks for: opened if they are there, else obtained and prepared."""

import contextlib
import pathlib

import rich.console

from wukong_jax.config.run import DataConfig
from wukong_jax.data.obtain import origin_of
from wukong_jax.data.obtain_store import check_source, others_waiting
from wukong_jax.errors import DataError
from wukong_jax.sequential.schema import SequenceSchema
from wukong_jax.sequential.store import SequenceStore, open_sequence_store, write_sequence_store


def sequence_store_path(config: DataConfig, schema: SequenceSchema) -> pathlib.Path:
    """Where the store lies: as configured, or <root>/<recipe>-sequences-<schema hash>."""
    return pathlib.Path(config.store or pathlib.Path(config.root) / f"{config.recipe}-sequences-{schema.hash()}")


def obtain_sequences(config: DataConfig, schema: SequenceSchema, console: rich.console.Console) -> SequenceStore:
    """Open the store, preparing it first if a recipe is named and it is not there yet.

    Raises `DataError` if there is neither a store nor a recipe, or if the store was prepared from another source than
    the config names.
    """
    path = sequence_store_path(config, schema)
    source = None if config.source is None else pathlib.Path(config.source)
    if source is not None and not source.exists():
        raise DataError(f"data.source: {source} does not exist; name the folder or file with the raw data")
    with others_waiting(path) if config.recipe is not None else contextlib.nullcontext():
        if path.exists() or config.recipe is None:
            store = open_sequence_store(path, verify=config.verify)
            origin = store.encoding["origin"]
            recipe = origin.get("recipe")
            if None not in (recipe, config.recipe) and recipe != config.recipe:
                raise DataError(
                    f"store {path} was prepared by the recipe {recipe!r}, but data.recipe is {config.recipe!r}; name "
                    "another --data.store"
                )
            check_source(path, origin, source)
        else:
            from wukong_jax.sequential.datasets import load_sequences

            sequences = load_sequences(config.recipe, source, pathlib.Path(config.root) / "downloads")
            origin = origin_of(config.recipe, source, source=sequences.origin)
            store = write_sequence_store(path, sequences, origin)
            text = f"prepared {path}: {sequences.num_events:,} events of {sequences.num_users:,} users"
            console.print(text, soft_wrap=True, markup=False)
    return store
