"""Made data for scaling laws: interactions of orders 2 to 8 over power-law ids, with a known best possible LogLoss.

2,000,000 rows for one pass, 12 fields of 30 values, 8 terms an order whose weights decay. The latents have a mean, so
that every order casts its shadow on the lower ones and can be found step by step (`wukong_jax/data/planted.py`); what
a model misses is left as its gap to the floor.
"""

import pathlib

from wukong_jax.data.store import Store
from wukong_jax.data.synthetic import SyntheticConfig, schema, write_synthetic
from wukong_jax.errors import DataError

NAME = "planted"
TERMS = "Made by this program from a seed: no terms."
CONFIG = SyntheticConfig(
    train=2_000_000,
    valid=50_000,
    test=200_000,
    vocabulary_sizes=(30,) * 12,
    orders=(2, 3, 4, 5, 6, 7, 8),
    terms_per_order=8,
    latent_width=2,
    latent_mean=0.6,
    term_decay=0.5,
    strength=2.5,
)
SCHEMA = schema(CONFIG)


def prepare(out: pathlib.Path, *, source: pathlib.Path | None, cache: pathlib.Path) -> Store:
    """Generate the store; raises `DataError` if a source is given, for there is nothing to read."""
    if source is not None:
        raise DataError(
            f"recipe planted: received the source {source}, but it makes its own data; leave the source out"
        )
    return write_synthetic(CONFIG, out)
