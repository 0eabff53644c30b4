"""A block of checked rows to the columns of the store."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from wukong_jax.data import numeric
from wukong_jax.data.fit import Statistics, id_parts
from wukong_jax.data.readers.blocks import SPLITS
from wukong_jax.data.spec import IngestSpec


def padded_ids(ids: Int[np.ndarray, "codes"]) -> Int[np.ndarray, "codes_and_one"]:
    """The id of every code, and in the last place that of code -1, an unused place of a multi-hot feature: -1."""
    return np.append(ids, np.int32(-1))


def encoded_splits(
    spec: IngestSpec,
    id_of: Mapping[str, np.ndarray],
    statistics: Statistics,
    block: Mapping[str, np.ndarray],
    kinds: Sequence[str],
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(split, the store's matrices by kind) for every split that has rows in the block.

    `id_of[feature]` are padded ids by the codes of the block.
    """
    columns = {kind: values for kind, values in block.items() if kind in kinds}
    if "ids" in columns:
        ids = np.empty_like(columns["ids"])
        for name, part in id_parts(spec):
            ids[:, part] = id_of[name][block["ids"][:, part]]
        columns["ids"] = ids
    if spec.numeric:
        columns["numeric"] = transformed(spec, block, statistics, len(block["split"]))
    for number, split in enumerate(SPLITS):
        chosen = block["split"] == number
        if chosen.any():
            yield split, {kind: values[chosen] for kind, values in columns.items()}


def transformed(
    spec: IngestSpec, raw: Mapping[str, np.ndarray], statistics: Statistics, rows: int
) -> Float[np.ndarray, "rows columns"]:
    """The numeric features of some rows, float32."""
    parts = [numeric.transform(c, raw["numeric"][:, i], statistics[c.name]) for i, c in enumerate(spec.numeric)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((rows, 0), np.float32)
