"""Training steps timed in turn in one process, so that a machine's ups and downs meet all of them alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax


def rates_in_turn(
    arms: Sequence[tuple[Callable[..., Any], Any]], batches: Sequence[Any], examples: int, rounds: int, steps: int
) -> list[list[float]]:
    """Examples per second of each round of each (step, first state), after a round that compiles and warms up.

    Batches of `examples` lie on the device; the order of the arms turns round with every round.
    """
    states = [state for _, state in arms]
    rates: list[list[float]] = [[] for _ in arms]
    for number in range(-1, rounds):
        order = range(len(arms)) if number % 2 else reversed(range(len(arms)))
        for place in order:
            step, state = arms[place][0], states[place]
            start = time.perf_counter()
            for i in range(steps):
                state = step(state, batches[i % len(batches)])
            jax.block_until_ready(state)
            states[place] = state
            if number >= 0:
                rates[place].append(steps * examples / (time.perf_counter() - start))
    return rates


def shown(rates: Sequence[float]) -> str:
    """The median (lowest to highest)."""
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
