"""The default synthetic data set: 250,000 rows, 16 fields of 100 values, interactions of orders 1 to 3.

Other sizes and structures: `wukong_jax.data.synthetic.write_synthetic` with a `SyntheticConfig` of your own.
"""

import pathlib

from wukong_jax.data.store import Store
from wukong_jax.data.synthetic import SyntheticConfig, schema, write_synthetic
from wukong_jax.errors import DataError

NAME = "synthetic"
TERMS = "Made by this program from a seed: no terms."
CONFIG = SyntheticConfig()
SCHEMA = schema(CONFIG)


def prepare(out: pathlib.Path, *, source: pathlib.Path | None, cache: pathlib.Path) -> Store:
    """Generate the store; raises `DataError` if a source is given, for there is nothing to read."""
    if source is not None:
        raise DataError(
            f"recipe synthetic: received the source {source}, but it makes its own data; leave the source out"
        )
    return write_synthetic(CONFIG, out)
