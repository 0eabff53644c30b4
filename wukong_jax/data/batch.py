"""One batch of examples, on the host or on a device."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Batch(NamedTuple):
    """Arrays of one batch in the column order of the schema; a pytree for jax.

    `ids` are local to their feature; -1 marks an unused place of a multi-hot feature.
    `weights` is 0 for the rows that fill up the last batch of an evaluation.
    """

    ids: Int[np.ndarray, "batch id_columns"]
    numeric: Float[np.ndarray, "batch numeric"]
    vectors: Float[np.ndarray, "batch vector_columns"]
    labels: Float[np.ndarray, "batch labels"]
    weights: Float[np.ndarray, "batch"]
