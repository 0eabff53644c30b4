"""One batch of examples, on the host or on a device."""

from typing import Any, NamedTuple

from jaxtyping import Float, Int


class Batch(NamedTuple):
    """Arrays of one batch in the column order of the schema: NumPy on the host, jax on a device. A pytree.

    `ids` are local to their feature; -1 marks an unused place of a multi-hot feature.
    `weights` is 0 for the rows that fill up the last batch of an evaluation.
    """

    ids: Int[Any, "batch id_columns"]
    numeric: Float[Any, "batch numeric"]
    vectors: Float[Any, "batch vector_columns"]
    labels: Float[Any, "batch labels"]
    weights: Float[Any, "batch"]
