import signal

import pytest

from wukong_jax.training import stopping
from wukong_jax.training.stopping import ASK_SECONDS, GROWTH, Stop, StoppedBySignal, caught_signals


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""
    times = [0.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: times[0])
    return times


class Others:
    """Another process besides this one: what it has caught, and how many steps it would wait."""

    def __init__(self, monkeypatch, *, leads=True):
        self.caught, self.steps, self.asked, self.now = [], 1, [], 0
        monkeypatch.setattr(stopping, "process_count", lambda: 2)

        def exchange(action):
            own, other = action(), [self.caught[:1], self.steps]
            self.asked.append(self.now)
            return [own, other] if leads else [other, own]

        monkeypatch.setattr(stopping, "exchange", exchange)

    def after(self, stop, step, *, ask=False):
        self.now = step
        return stop.after(step, ask=ask)


def test_a_single_process_stops_at_once():
    caught = []
    stop = Stop(caught, 0)
    assert stop.after(1, ask=False) is None
    caught.append(signal.SIGINT)
    assert stop.after(2, ask=False) == signal.SIGINT


def test_questions_become_as_rare_as_the_steps_are_quick(monkeypatch, clock):
    others, stop = Others(monkeypatch), Stop([], 0)
    for step in range(1, 2001):
        clock[0] += ASK_SECONDS / 100
        assert others.after(stop, step) is None
    gaps = [later - earlier for earlier, later in zip(others.asked, others.asked[1:], strict=False)]
    assert gaps[:3] == [GROWTH, GROWTH**2, GROWTH**3]
    assert set(gaps[4:]) <= {99, 100}


def test_slow_steps_are_each_followed_by_a_question(monkeypatch, clock):
    others, stop = Others(monkeypatch), Stop([], 10)
    for step in range(11, 16):
        clock[0] += 3 * ASK_SECONDS
        others.after(stop, step)
    assert others.asked == [11, 12, 13, 14, 15]


def test_a_signal_of_another_process_counts_and_process_0_sets_the_pace(monkeypatch, clock):
    others, stop = Others(monkeypatch, leads=False), Stop([], 0)
    others.steps = 7
    assert others.after(stop, 1) is None
    others.caught = [signal.SIGTERM]
    assert [others.after(stop, step) for step in range(2, 9)] == [None] * 6 + [signal.SIGTERM]
    assert others.asked == [1, 8]


def test_a_step_that_takes_longer_asks_out_of_turn(monkeypatch, clock):
    caught = []
    others, stop = Others(monkeypatch), Stop(caught, 0)
    others.after(stop, 1)
    caught.append(signal.SIGINT)
    assert others.after(stop, 2) is None
    assert others.after(stop, 3, ask=True) == signal.SIGINT


def test_signals_are_noted_once_and_handlers_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with caught_signals() as caught:
        signal.raise_signal(signal.SIGTERM)
        assert caught == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before
    assert str(StoppedBySignal(signal.SIGTERM, 7)) == "stopped by SIGTERM after step 7"
