"""Users' items in time order, one user after the other in flat arrays."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32, Int64, Shaped

from wukong_jax.errors import DataError

Names = Shaped[np.ndarray, "names"]
"""Original ids as text, an array of `numpy.dtypes.StringDType`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """Items of all users: those of user u are items[offsets[u]:offsets[u + 1]], the oldest first.

    Items are numbered 0 to num_items - 1. All of them occur in what a reader returns; `last` and `users` keep the
    numbering, so that a part of the data fits the same item table, and in a part some may not occur. A user may have
    no items. Raises `DataError` where the arrays do not fit each other.
    """

    items: Int32[np.ndarray, "events"]
    offsets: Int64[np.ndarray, "users_plus_1"]
    num_items: int
    user_names: Shaped[np.ndarray, "users"]
    """Original id of every user, as text."""
    item_names: Shaped[np.ndarray, "items"]
    """Original id of every item, as text."""
    times: Int64[np.ndarray, "events"] | None = None
    """Time of every event, not falling within a user, in the source's unit; None where only the order is known."""
    origin: str = ""
    """Where the data is from."""

    def __post_init__(self) -> None:
        """Check that the arrays fit each other; raises `DataError`."""
        offsets, events = self.offsets, len(self.items)
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != events or (np.diff(offsets) < 0).any():
            raise DataError(f"sequences: offsets must rise from 0 to the number of events, {events}")
        if events and not (self.items.min() >= 0 and self.items.max() < self.num_items):
            raise DataError(f"sequences: items must be numbered 0 to {self.num_items - 1} (num_items - 1)")
        if self.times is not None:
            if len(self.times) != events:
                raise DataError(f"sequences: received {len(self.times)} times for {events} events")
            falls = np.flatnonzero(np.diff(self.times) < 0) + 1
            if not np.isin(falls, offsets).all():
                raise DataError("sequences: times fall within a user; sort each user's events by time")
        if len(self.user_names) != len(offsets) - 1 or len(self.item_names) != self.num_items:
            raise DataError(
                f"sequences: {len(self.user_names)} user names for {len(offsets) - 1} users, "
                f"{len(self.item_names)} item names for {self.num_items} items"
            )

    @property
    def num_users(self) -> int:
        """Number of users, those without items included."""
        return len(self.offsets) - 1

    @property
    def num_events(self) -> int:
        """Number of events of all users."""
        return len(self.items)

    @property
    def lengths(self) -> Int64[np.ndarray, "users"]:
        """Number of items of each user."""
        return np.diff(self.offsets)

    @property
    def event_users(self) -> Int64[np.ndarray, "events"]:
        """The user of each event."""
        return np.repeat(np.arange(self.num_users), self.lengths)

    def of(self, user: int) -> Int32[np.ndarray, "length"]:
        """The items of one user, as a view."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def last(self, n: int) -> "Sequences":
        """Each user's last `n` items, n >= 1."""
        if n < 1:
            raise DataError(f"last: received {n}, expected 1 or more items")
        kept = np.minimum(self.lengths, n)
        return self._select(self.offsets[1:] - kept, kept, np.arange(self.num_users))

    def without_last(self, n: int) -> "Sequences":
        """Each user's items but the last `n`."""
        kept = np.maximum(self.lengths - n, 0)
        return self._select(self.offsets[:-1], kept, np.arange(self.num_users))

    def users(self, users: Int[np.ndarray, "chosen"]) -> "Sequences":
        """The given users in the given order; one may be given several times."""
        if len(users) and not (users.min() >= 0 and users.max() < self.num_users):
            raise DataError(f"users: received {users.min()} to {users.max()}, expected 0 to {self.num_users - 1}")
        return self._select(self.offsets[users], self.lengths[users], users)

    def by_start(self) -> "Sequences":
        """The users in the order of their first event's time, those without items last; as they are without times."""
        if self.times is None:
            return self
        some = np.flatnonzero(self.lengths)
        starts = self.times[self.offsets[some]]
        return self.users(np.concatenate([some[np.argsort(starts, kind="stable")], np.flatnonzero(self.lengths == 0)]))

    def _select(
        self, starts: Int[np.ndarray, "chosen"], lengths: Int[np.ndarray, "chosen"], users: Int[np.ndarray, "chosen"]
    ) -> "Sequences":
        """The events starts[i] to starts[i] + lengths[i] - 1 as the i-th user."""
        offsets = offsets_of(lengths)
        events = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return dataclasses.replace(
            self,
            items=self.items[events],
            offsets=offsets,
            user_names=self.user_names[users],
            times=None if self.times is None else self.times[events],
        )


def offsets_of(lengths: Int[np.ndarray, "users"]) -> Int64[np.ndarray, "users_plus_1"]:
    """0 and the running sums of the lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def from_lists(lists: Sequence[Sequence[int]], origin: str = "") -> Sequences:
    """Sequences of item numbers, one list a user; the names are the numbers."""
    items = np.array([item for one in lists for item in one], np.int32)
    num_items = int(items.max()) + 1 if len(items) else 0
    return Sequences(
        items,
        offsets_of(np.array([len(one) for one in lists], np.int64)),
        num_items,
        as_names([str(user) for user in range(len(lists))]),
        as_names([str(item) for item in range(num_items)]),
        origin=origin,
    )


def as_names(texts: Sequence[str]) -> Shaped[np.ndarray, "names"]:
    """Texts as an array of variable width."""
    return np.array(texts, dtype=np.dtypes.StringDType())
