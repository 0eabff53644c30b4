"""Users' sequences as training, validation and test examples: one user a row, padded on the right with -1.

Rows of training may hold several users instead (`packing.py`).

    holdout last_two: train  s_1 .. s_{n-2}      valid  ... -> s_{n-1}      test  ... -> s_n
    holdout last:     train  s_1 .. s_{n-1}                                 test  ... -> s_n

A row holds up to L + 1 items, the last ones of its part: in training each is the target of those before it, in an
evaluation the last item of the row is the target. Users with a single item in a part have no row there.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Int, Int64

from wukong_jax.config.run import RunConfig
from wukong_jax.config.sequences import TrainingPart
from wukong_jax.data.batch import Batch
from wukong_jax.data.order import permuted_rows
from wukong_jax.data.store import Split, Store
from wukong_jax.errors import DataError
from wukong_jax.sequential.packing import packed_split
from wukong_jax.sequential.schema import MAX_TIME, SequenceSchema
from wukong_jax.sequential.sequences import Sequences
from wukong_jax.sequential.store import SequenceStore

POOL = 64
"""Batches among which users are grouped by length."""


@dataclasses.dataclass(frozen=True, eq=False)
class SequenceSplit(Split):
    """Rows of one split, made when they are read; it has no columns of its own."""

    sequences: Sequences
    users: Int64[np.ndarray, "rows"]
    stops: Int64[np.ndarray, "rows"]
    """Position after each row's last item in `sequences.items`."""
    lengths: tuple[int, ...]
    """Lengths to which a batch may be cut, the longest last."""

    @functools.cached_property
    def sizes(self) -> Int64[np.ndarray, "rows"]:
        """Items of each row."""
        return np.minimum(self.stops - self.sequences.offsets[self.users], self.lengths[-1] + 1)

    @property
    def shape_varies(self) -> bool:
        """Whether batches may be cut."""
        return len(self.lengths) > 1

    def take(
        self,
        rows: slice | Int[np.ndarray, "chosen"],
        *,
        shape_of: slice | Int[np.ndarray, "batch"] | None = None,
    ) -> Batch:
        """The given rows, cut to the shortest of `lengths` that holds them all, and those of `shape_of` where given.

        Times count from a row's first item.
        """
        sizes, stops = self.sizes[rows], self.stops[rows]
        longest = int((sizes if shape_of is None else self.sizes[shape_of]).max(initial=0)) - 1
        width = next(length for length in self.lengths if length >= longest) + 1
        places = np.arange(width)
        used = places < sizes[:, None]
        events = np.where(used, (stops - sizes)[:, None] + places, 0)
        ids = np.where(used, self.sequences.items[events], -1)
        if self.sequences.times is not None:
            times = self.sequences.times[events]
            since = np.clip(times - times[:, :1], 0, MAX_TIME - 1)
            ids = np.concatenate([ids, np.where(used, since, -1)], axis=1)
        count = len(sizes)
        nothing = np.zeros((count, 0), np.float32)
        labels = np.zeros((count, 1), np.float32)
        return Batch(ids.astype(np.int32), nothing, nothing, labels, np.ones(count, np.float32))

    def training_rows(
        self, start: int, stop: int, *, batch_size: int, seed: int, epoch: int
    ) -> Int64[np.ndarray, "chosen"]:
        """Rows at the places start to stop - 1 of an epoch's order, within one batch.

        Where batches may be cut, users of like length share one: `POOL` batches of the seeded order are sorted by
        length, and the batches taken in a seeded order of their own.
        """
        if len(self.lengths) == 1:
            return permuted_rows(np.arange(start, stop), size=self.rows, seed=seed, epoch=epoch)
        step, first = divmod(start, batch_size)
        pool, step = divmod(step, POOL)
        batches = min(POOL, self.rows // batch_size - pool * POOL)
        begin = pool * POOL * batch_size
        places = np.arange(begin, begin + batches * batch_size)
        rows = permuted_rows(places, size=self.rows, seed=seed, epoch=epoch)
        rows = rows[np.argsort(self.sizes[rows], kind="stable")].reshape(batches, batch_size)
        chosen = permuted_rows(np.array([step]), size=batches, seed=seed, epoch=epoch * 2**20 + pool)[0]
        return rows[chosen, first : first + stop - start]


def as_examples(store: SequenceStore, config: RunConfig) -> Store:
    """The store seen as the splits of a run, by the config's protocol and length; raises `DataError`.

    Times of the store are left aside where the config has none.
    """
    protocol, schema = config.sequences, config.schema
    assert protocol is not None, "a config of sequences has a protocol"
    assert isinstance(schema, SequenceSchema)
    sequences, held = store.sequences, store.schema
    if held.num_items != schema.num_items or (schema.times and not held.times):
        raise DataError(
            f"store {store.path} does not have the schema of the config: it holds {held}, the config has {schema}; put "
            "the store's into the config, or name other data (--data.store, --data.source)"
        )
    if not schema.times:
        sequences = dataclasses.replace(sequences, times=None)
    cuts = {"train": 1, "test": 0} if protocol.holdout == "last" else {"train": 2, "valid": 1, "test": 0}
    longest = config.batch_schema.multi_hot[0].max_length - 1
    splits: dict[str, Split] = {}
    for name, left_out in cuts.items():
        own, shorter = sequences, []
        if name == "train":
            shorter = [length for length in protocol.lengths if length < longest]
            if protocol.training != TrainingPart():
                own, left_out = training_part(sequences.without_last(left_out), protocol.training), 0
        stops = own.offsets[1:] - left_out
        users = np.flatnonzero(stops - own.offsets[:-1] >= 2)
        if not len(users):
            raise DataError(
                f"store {store.path}: no user has the {left_out + 2} events that the split {name!r} takes with "
                f"sequences.holdout={protocol.holdout!r}; expected longer histories"
                + (", or more of them with sequences.training" if own is not sequences else "")
            )
        if name == "train" and protocol.packing:
            sizes = np.minimum(stops - own.offsets[:-1], longest + 1)[users]
            starts = stops[users] - sizes
            splits[name] = packed_split(name, config.batch_schema, own, starts, sizes, longest + 1)
            continue
        lengths = (*shorter, longest)
        splits[name] = SequenceSplit(name, len(users), config.batch_schema, {}, own, users, stops[users], lengths)
    return Store(store.path, config.batch_schema, store.encoding, splits, store.digest, store.encoding_digest)


def training_part(sequences: Sequences, part: TrainingPart) -> Sequences:
    """Of training sequences those that a run trains on: a share of the users, their last items, copies."""
    count = math.ceil(part.users * sequences.num_users)
    users = np.sort(permuted_rows(np.arange(count), size=sequences.num_users, seed=0, epoch=0))
    kept = sequences.users(np.tile(users, part.copies))
    return kept if part.last is None else kept.last(part.last)


def all_users(split: SequenceSplit) -> SequenceSplit:
    """Every user with an item, all of whose items are history; a row for each, as of the test split."""
    users = np.flatnonzero(split.sequences.lengths > 0)
    stops = split.sequences.offsets[1:][users]
    return dataclasses.replace(split, name="all", rows=len(users), users=users, stops=stops)
