"""Sequences: flat arrays behave as lists of lists, parts keep the numbering, and what does not fit is refused."""

import dataclasses

import numpy as np
import pytest

from wukong_jax.errors import DataError
from wukong_jax.sequential.sequences import as_names, from_lists

LISTS = [[3, 1, 4], [], [1], [5, 0, 2, 5, 3]]


@pytest.fixture
def sequences():
    made = from_lists(LISTS, "made")
    return dataclasses.replace(made, times=np.arange(9) * 10, user_names=as_names(["a", "b", "c", "d"]))


def lists_of(sequences):
    return [sequences.of(user).tolist() for user in range(sequences.num_users)]


def test_users_are_the_lists_they_were_made_of(sequences):
    assert lists_of(sequences) == LISTS
    assert (sequences.num_users, sequences.num_events, sequences.num_items) == (4, 9, 6)
    assert sequences.lengths.tolist() == [3, 0, 1, 5]
    assert sequences.event_users.tolist() == [0, 0, 0, 2, 3, 3, 3, 3, 3]
    assert sequences.item_names.tolist() == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_last_keeps_the_end_of_each_user_and_the_numbering(sequences, n):
    part = sequences.last(n)
    assert lists_of(part) == [one[-n:] for one in LISTS]
    assert part.num_items == sequences.num_items
    assert part.user_names.tolist() == ["a", "b", "c", "d"]
    assert part.times.tolist() == [10 * event for event in [*range(3)[-n:], 3, *range(4, 9)[-n:]]]
    assert part.origin == "made"


def test_users_are_chosen_in_order_and_may_be_repeated(sequences):
    part = sequences.users(np.array([3, 1, 0, 3]))
    assert lists_of(part) == [LISTS[3], [], LISTS[0], LISTS[3]]
    assert part.user_names.tolist() == ["d", "b", "a", "d"]
    assert part.times.tolist() == [40, 50, 60, 70, 80, 0, 10, 20, 40, 50, 60, 70, 80]
    assert lists_of(sequences.users(np.array([], np.int64))) == []


def test_users_can_be_put_in_the_order_of_their_first_event(sequences):
    times = np.array([50, 60, 70, 10, 50, 51, 52, 53, 54])
    ordered = dataclasses.replace(sequences, times=times).by_start()
    assert ordered.user_names.tolist() == ["c", "a", "d", "b"]
    assert lists_of(ordered) == [LISTS[2], LISTS[0], LISTS[3], LISTS[1]]
    without = dataclasses.replace(sequences, times=None)
    assert without.by_start() is without


def test_no_users_at_all_are_sequences_too():
    nothing = from_lists([])
    assert (nothing.num_users, nothing.num_events, nothing.num_items) == (0, 0, 0)
    assert nothing.last(3).num_events == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 3, 2, 4, 9])}, "offsets must rise from 0 to the number of events, 9"),
        ({"offsets": np.array([0, 3, 3, 4, 8])}, "offsets must rise"),
        ({"offsets": np.array([1, 3, 3, 4, 9])}, "offsets must rise"),
        ({"num_items": 5}, r"items must be numbered 0 to 4 \(num_items - 1\)"),
        ({"items": np.full(9, -1, np.int32)}, "items must be numbered"),
        ({"user_names": as_names(["a"])}, "1 user names for 4 users"),
        ({"item_names": as_names(["a"])}, "1 item names for 6 items"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(sequences, changes, message):
    with pytest.raises(DataError, match=message):
        dataclasses.replace(sequences, **changes)


def test_a_part_of_nothing_is_refused(sequences):
    with pytest.raises(DataError, match="last: received 0, expected 1 or more"):
        sequences.last(0)
    with pytest.raises(DataError, match="users: received -1 to 4, expected 0 to 3"):
        sequences.users(np.array([-1, 4]))
