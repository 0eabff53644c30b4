"""Columns of users, items and times to sequences: numbered, sorted, without duplicates."""

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int32, Shaped

from wukong_jax.sequential.event_times import Times
from wukong_jax.sequential.sequences import Sequences, as_names, offsets_of

INTEGER = r"^-?[0-9]{1,18}$"


class Arranged(NamedTuple):
    """Sequences, and what had to be put in order."""

    sequences: Sequences
    duplicates: int = 0
    """Rows dropped: user, item and time are those of an earlier row."""
    out_of_order: int = 0
    """Rows with an earlier time than the row of the same user before."""
    ties: int = 0
    """Events with the time of the user's event before: they keep the order of the rows."""


def arrange(users: pl.Series, items: pl.Series, times: Times, origin: str) -> Arranged:
    """Sequences of rows (user, item, time); users and items are integers or text, and no cell is missing."""
    user, user_names = number_ids(users)
    item, item_names = number_ids(items)
    key = times.keys.to_numpy()
    by_user = np.argsort(user, kind="stable")
    same_user = user[by_user][1:] == user[by_user][:-1]
    out_of_order = int((same_user & (np.diff(key[by_user]) < 0)).sum())
    order = by_user[np.lexsort((key[by_user], user[by_user]))]  # stable
    rows = pl.DataFrame({"user": user[order], "item": item[order], "key": key[order]})
    kept = rows.filter(pl.struct("user", "item", "key").is_first_distinct())
    user, key = kept["user"].to_numpy(), kept["key"].to_numpy()
    ties = int(((user[1:] == user[:-1]) & (key[1:] == key[:-1])).sum())
    sequences = Sequences(
        kept["item"].to_numpy(),
        offsets_of(np.bincount(user, minlength=len(user_names))),
        len(item_names),
        user_names,
        item_names,
        np.floor_divide(key, times.per_unit),
        origin,
    )
    return Arranged(sequences, rows.height - kept.height, out_of_order, ties)


def in_order(users: pl.Series, items: pl.Series, origin: str, known: pl.Series | None = None) -> Sequences:
    """Sequences without times of rows (user, item), each user's in time order; `known`: all users, with rows or not."""
    user, user_names = number_ids(users if known is None else pl.concat([known, users]))
    user = user[len(user) - len(users) :]
    item, item_names = number_ids(items)
    offsets = offsets_of(np.bincount(user, minlength=len(user_names)))
    ordered = item[np.argsort(user, kind="stable")]
    return Sequences(ordered, offsets, len(item_names), user_names, item_names, None, origin)


def number_ids(ids: pl.Series) -> tuple[Int32[np.ndarray, "rows"], Shaped[np.ndarray, "names"]]:
    """A number from 0 for each id, and the ids by their numbers as text.

    In rising order where all ids are integers, of at most 18 digits; else in the order of their first appearance.
    """
    known = pl.DataFrame({"id": ids.unique(maintain_order=True)}).with_columns(text=pl.col("id").cast(pl.String))
    if known["text"].str.contains(INTEGER).all():
        known = known.sort(pl.col("text").cast(pl.Int64), "text")
    numbered = known.with_columns(number=pl.int_range(pl.len(), dtype=pl.Int32))
    joined = pl.DataFrame({"id": ids}).join(numbered, on="id", how="left", maintain_order="left")
    return joined["number"].to_numpy(), as_names(known["text"].to_list())
