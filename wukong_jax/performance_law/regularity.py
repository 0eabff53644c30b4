"""What counts alone, and a general compressor, say about sequences."""

import math
import zlib

import numpy as np
from jaxtyping import Bool, Int

from wukong_jax.sequential.sequences import Sequences


def shannon_entropy(items: Int[np.ndarray, "events"]) -> float:
    """-sum p log2 p over the items, in bits; NaN for no event."""
    if not len(items):
        return math.nan
    counts = np.unique(items, return_counts=True)[1]
    shares = counts / len(items)
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no -0


def compression_ratio(items: Int[np.ndarray, "events"]) -> float:
    """Bytes after zlib over bytes before, the items as 4-byte little-endian numbers; smaller is more regular."""
    content = items.astype("<i4").tobytes()
    return len(zlib.compress(content)) / len(content) if content else math.nan


def repeats(sequences: Sequences) -> Bool[np.ndarray, "events"]:
    """Whether the user of each event had its item before."""
    pairs = sequences.event_users * sequences.num_items + sequences.items
    first = np.zeros(len(pairs), np.bool_)
    first[np.unique(pairs, return_index=True)[1]] = True
    return ~first
