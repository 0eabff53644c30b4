"""Rows and their gradients between the devices that need them and the devices that own them, by all-to-all.

Every function here runs on each device for itself (inside `shard_map`), over the batch places and the block of stored
rows that are its own. A device asks each other one for at most `room` rows at a time. Where its distinct rows are more,
all devices exchange in several rounds, each for the rows of one residue class, so that no id is lost and every row
still gets all of its gradient at once. The number of rounds is found out in each step; it is 1 but for rare batches.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

Carry = TypeVar("Carry")
SMALLEST_ROOM = 8


class Wire(NamedTuple):
    """The devices that exchange, the rows that each owns, and how."""

    axes: tuple[str, ...]
    devices: int
    device_rows: int
    room: int
    """Rows that a device can ask of another in one round."""
    dtype: DTypeLike | None
    """Type on the way; None for that of the table."""

    @property
    def past_end(self) -> int:
        """The stored row that stands for no row."""
        return self.devices * self.device_rows


class Requests(NamedTuple):
    """The distinct stored rows that a device needs, ascending and so by owner, then `past_end`."""

    rows: Int[Array, "places"]
    entry: Int[Array, "places"]
    """Where each place's row stands in `rows`."""
    starts: Int[Array, "devices"]
    """The first entry of each owner."""
    rounds: Int[Array, ""]
    """Rounds of the exchange, a power of two; the same on all devices."""
    excess: Int[Array, ""]
    """Rows that did not fit one round, over all devices."""


def room_for(places: int, devices: int, capacity: float) -> int:
    """Rows that a device may ask of another at once: `capacity` times an even share of its places, at most all."""
    return min(places, max(SMALLEST_ROOM, math.ceil(capacity * places / devices)))


def request(ids: Int[Array, "places"], wire: Wire) -> Requests:
    """Merge equal ids and find how many rounds it takes to exchange them; ids from `past_end` on ask for nothing."""
    places = ids.shape[0]
    by_id = jnp.argsort(ids)
    in_order = jnp.minimum(ids[by_id], wire.past_end)
    first = jnp.concatenate([jnp.ones(1, bool), in_order[1:] != in_order[:-1]])
    number = jnp.cumsum(first, dtype=jnp.int32) - 1
    rows = jnp.full(places, wire.past_end, jnp.int32).at[number].set(in_order)
    entry = jnp.zeros(places, jnp.int32).at[by_id].set(number)
    bounds = jnp.searchsorted(rows, jnp.arange(wire.devices + 1, dtype=jnp.int32) * wire.device_rows)
    asked = jnp.diff(bounds)
    excess = jax.lax.psum(jnp.maximum(asked - wire.room, 0).sum(), wire.axes)
    most = asked.max().astype(jnp.int32)
    own_rounds, _ = jax.lax.while_loop(
        lambda found: found[1] > wire.room,
        lambda found: (2 * found[0], _largest_class(rows, 2 * found[0], wire)),
        (jnp.int32(1), most),
    )
    rounds = jax.lax.pmax(own_rounds, wire.axes)
    return Requests(rows, entry, bounds[:-1].astype(jnp.int32), rounds, excess.astype(jnp.int32))


def counted(before: Int[Array, ""], more: Int[Array, ""]) -> Int[Array, ""]:
    """Sum of two counts of rows; it stops at the largest int32, which a log of many large steps can reach."""
    return jnp.minimum(before, jnp.iinfo(jnp.int32).max - more) + more


def fetch(table: Float[Array, "device_rows width"], requests: Requests, wire: Wire) -> Float[Array, "places width"]:
    """The row of each place, zeros where it asks for none; `table` is this device's block."""

    def one_round(number: jax.Array, rows: jax.Array) -> jax.Array:
        room = _places_in_round(requests, number, wire)
        asked = _ids_asked_here(requests, room, wire)
        answers = _swap(table.at[asked].get(mode="fill", fill_value=0), wire).astype(table.dtype)
        return jnp.where((room < wire.devices * wire.room)[:, None], answers.at[room].get(mode="clip"), rows)

    rows = _every_round(requests, one_round, jnp.zeros((requests.rows.shape[0], table.shape[1]), table.dtype))
    return rows[requests.entry]


def send_back(
    gradients: Float[Array, "places width"],
    requests: Requests,
    wire: Wire,
    take: Callable[[Int[Array, "received"], Float[Array, "received width"], Carry], Carry],
    start: Carry,
) -> Carry:
    """Bring the gradients to the owners: `take` gets own rows (`device_rows` for none), their gradients, and the carry.

    In one round a row comes once from each device that needs it, and it comes in one round only.
    """
    summed = jnp.zeros_like(gradients).at[requests.entry].add(gradients)

    def one_round(number: jax.Array, carry: Carry) -> Carry:
        room = _places_in_round(requests, number, wire)
        letters = jnp.zeros((wire.devices * wire.room, summed.shape[1]), summed.dtype)
        received = _swap(letters.at[room].set(summed, mode="drop", unique_indices=True), wire).astype(summed.dtype)
        return take(_ids_asked_here(requests, room, wire), received, carry)

    return _every_round(requests, one_round, start)


def _every_round(requests: Requests, one_round: Callable[[jax.Array, Carry], Carry], carry: Carry) -> Carry:
    return jax.lax.fori_loop(1, requests.rounds, one_round, one_round(jnp.int32(0), carry))


def _places_in_round(requests: Requests, number: jax.Array, wire: Wire) -> Int[Array, "places"]:
    """Where each entry goes among the `devices` x `room` of a round; past these if it is of another round."""
    owner, own = requests.rows // wire.device_rows, requests.rows % wire.device_rows
    now = (requests.rows < wire.past_end) & ((own & (requests.rounds - 1)) == number)
    before = jnp.cumsum(now, dtype=jnp.int32) - now
    rank = before - before.at[requests.starts].get(mode="clip").at[owner].get(mode="clip")
    # each past one of its own, as scattering is told that indices are unique
    others = wire.devices * wire.room + jnp.arange(now.shape[0], dtype=jnp.int32)
    return jnp.where(now, owner * wire.room + rank, others)


def _ids_asked_here(requests: Requests, room: jax.Array, wire: Wire) -> Int[Array, "received"]:
    letters = jnp.full(wire.devices * wire.room, wire.device_rows, jnp.int32)
    letters = letters.at[room].set(requests.rows % wire.device_rows, mode="drop", unique_indices=True)
    return jax.lax.all_to_all(letters, wire.axes, 0, 0, tiled=True)


def _swap(letters: Float[Array, "received width"], wire: Wire) -> Float[Array, "received width"]:
    sent = letters if wire.dtype is None else letters.astype(wire.dtype)
    swapped: jax.Array = jax.lax.all_to_all(sent, wire.axes, 0, 0, tiled=True)
    return swapped


def _largest_class(rows: jax.Array, rounds: jax.Array, wire: Wire) -> jax.Array:
    """The most entries that one owner is asked for in one of so many rounds."""
    owner, own = rows // wire.device_rows, rows % wire.device_rows
    end = rows >= wire.past_end
    key = jnp.sort(jnp.where(end, wire.past_end, owner * wire.device_rows + (own & (rounds - 1))))
    order = jnp.arange(key.shape[0], dtype=jnp.int32)
    run = jnp.concatenate([jnp.ones(1, bool), key[1:] != key[:-1]])
    start = jax.lax.cummax(jnp.where(run, order, 0))
    return jnp.where(key < wire.past_end, order - start + 1, 0).max()
