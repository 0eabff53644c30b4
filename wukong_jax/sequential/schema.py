"""What a store of sequences holds, and what one batch made from it looks like."""

import dataclasses

from wukong_jax.config.codec import stable_hash
from wukong_jax.data.schema import DatasetSchema, MultiHotFeature
from wukong_jax.errors import ConfigError

ITEMS, TIMES, SEGMENTS, NEGATIVES = "item", "time", "segment", "negative"
"""Features of a batch: items in time order, filled up with -1; their times; which user of the row each is of, where
rows hold several; items drawn for the loss."""
ITEM_TABLE = "item"
MAX_TIME = 2**31 - 1
"""Seconds since a user's first event that int32 ids hold: 68 years."""


@dataclasses.dataclass(frozen=True)
class SequenceSchema:
    """Users' items in time order; ids 0 to num_items - 1."""

    num_items: int
    times: bool = False
    """Whether every event has a time, in seconds."""

    def __post_init__(self) -> None:
        """Check the size; raises `ConfigError`."""
        if self.num_items < 2:
            raise ConfigError(f"schema: received num_items={self.num_items}, expected at least 2 items to rank")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Items, and their times where there are any."""
        return (ITEMS, TIMES) if self.times else (ITEMS,)

    @property
    def labels(self) -> tuple[str, ...]:
        """None: what is learned is the next item."""
        return ()

    def hash(self) -> str:
        """Stable hash of the whole schema; a store, a config and a checkpoint must agree on it."""
        return stable_hash(self)

    def of_batch(self, max_length: int, negatives: int, *, packed: bool = False) -> DatasetSchema:
        """A batch's columns: `max_length` items and the one after them, their times, segments, a step's negatives."""
        features = [MultiHotFeature(ITEMS, self.num_items, max_length + 1)]
        if self.times:
            features.append(MultiHotFeature(TIMES, MAX_TIME, max_length + 1))
        if packed:
            features.append(MultiHotFeature(SEGMENTS, max_length + 1, max_length + 1))
        if negatives:
            features.append(MultiHotFeature(NEGATIVES, self.num_items, negatives))
        return DatasetSchema(multi_hot=tuple(features), labels=("next_item",))
