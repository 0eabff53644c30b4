"""The prepared data of a run: a store of examples, or users' sequences cut into training, validation and test."""

import pathlib

import rich.console

from wukong_jax.agreement import exchange, lead, leads
from wukong_jax.config.run import RunConfig
from wukong_jax.data.obtain_store import obtain_store, store_path
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.data.store import Store, open_store
from wukong_jax.errors import DataError


def data_path(config: RunConfig) -> pathlib.Path:
    """Where the prepared data lie: as configured, or below `data.root`."""
    if isinstance(config.schema, DatasetSchema):
        return store_path(config.data, config.schema)
    from wukong_jax.sequential.obtain import sequence_store_path

    return sequence_store_path(config.data, config.schema)


def obtain_data(config: RunConfig, console: rich.console.Console) -> Store:
    """Open the prepared data, obtaining and preparing them first where they are not there; raises `DataError`.

    Of several processes, process 0 obtains and checks them while the others wait; then these open the same.
    """
    store: list[Store] = []

    def obtain() -> str:
        store.append(_obtain(config, console))
        return store[0].digest

    def open_same() -> None:
        if not leads():
            store.append(open_data(config, data_path(config), verify=False))
            if store[0].digest != digest:
                raise DataError(f"{store[0].path} is another store than process 0 opened there; share its folder")

    digest = lead(obtain)
    exchange(open_same)
    return store[0]


def _obtain(config: RunConfig, console: rich.console.Console) -> Store:
    if isinstance(config.schema, DatasetSchema):
        return obtain_store(config.data, config.schema, console)
    from wukong_jax.sequential.examples import as_examples
    from wukong_jax.sequential.obtain import obtain_sequences

    return as_examples(obtain_sequences(config.data, config.schema, console), config)


def open_data(config: RunConfig, path: pathlib.Path, *, verify: bool = True) -> Store:
    """Open prepared data that are there; raises `DataError`."""
    if isinstance(config.schema, DatasetSchema):
        return open_store(path, verify=verify)
    from wukong_jax.sequential.examples import as_examples
    from wukong_jax.sequential.store import open_sequence_store

    return as_examples(open_sequence_store(path, verify=verify), config)
