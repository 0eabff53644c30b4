"""Agreement of processes, here threads of one process around a stand-in of JAX's coordination service."""

import concurrent.futures
import itertools
import threading
import time

import jax
import pytest

from wukong_jax import agreement
from wukong_jax.agreement import SharedError, exchange, lead, leads, process_index, together
from wukong_jax.errors import ConfigError, DataError

PROCESSES = 3


class Service:
    """Keys and values; a wait of no more than a moment for those that are missing."""

    def __init__(self):
        self.values, self.changed, self.ends = {}, threading.Condition(), time.monotonic() + 10

    def key_value_set(self, key, value):
        with self.changed:
            assert key not in self.values
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            if self.changed.wait_for(lambda: key in self.values, timeout=min(milliseconds, 20) / 1000):
                return self.values[key]
        if time.monotonic() > self.ends:
            raise AssertionError(f"nobody has set {key}")
        raise jax.errors.JaxRuntimeError(f"DEADLINE_EXCEEDED: {key}")

    def key_value_delete(self, prefix):
        with self.changed:
            for key in [key for key in self.values if key.startswith(prefix)]:
                del self.values[key]


class OwnNumbers:
    """A counter for each thread."""

    def __init__(self):
        self.own = threading.local()

    def __next__(self):
        if not hasattr(self.own, "numbers"):
            self.own.numbers = itertools.count()
        return next(self.own.numbers)


@pytest.fixture
def service(monkeypatch):
    made, own = Service(), threading.local()
    monkeypatch.setattr(agreement, "_client", lambda: made)
    monkeypatch.setattr(agreement, "_numbers", OwnNumbers())
    monkeypatch.setattr(agreement, "process_count", lambda: PROCESSES)
    monkeypatch.setattr(agreement, "process_index", lambda: own.process)
    made.own = own
    return made


def in_all(service, work):
    """What the work gives or raises in each process."""

    def of(process):
        service.own.process = process
        try:
            return work(process)
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(of, range(PROCESSES), timeout=30))


def test_one_process_only_asks_itself():
    assert leads()
    assert exchange(lambda: {"a": 1}) == [{"a": 1}]
    own = object()
    assert lead(lambda: own) is own
    assert together(lambda: own) is own
    with pytest.raises(ConfigError, match="mine"):
        lead(lambda: (_ for _ in ()).throw(ConfigError("mine")))


def test_every_process_gets_the_results_of_all_in_order(service):
    found = in_all(service, lambda process: exchange(lambda: [process, str(process)]))
    assert found == [[[0, "0"], [1, "1"], [2, "2"]]] * PROCESSES


def test_only_process_0_acts_when_it_leads(service):
    called = []

    def act(process):
        called.append(process)
        return process + 10

    assert in_all(service, lambda process: lead(lambda: act(process))) == [10] * PROCESSES
    assert called == [0]


def test_each_process_keeps_its_own_result_of_a_common_action(service):
    assert in_all(service, lambda process: together(lambda: {process})) == [{0}, {1}, {2}]


@pytest.mark.parametrize("call", [exchange, together])
@pytest.mark.parametrize(("failing", "message"), [((1,), "process 1: bad 1"), ((0, 2), "bad 0"), ((2, 1), "process 1")])
def test_an_error_of_one_is_raised_in_all_as_that_of_the_first(service, call, failing, message):
    def act(process):
        if process in failing:
            raise DataError(f"bad {process}")

    errors = in_all(service, lambda process: call(lambda: act(process)))
    assert [type(error) for error in errors] == [SharedError] * PROCESSES
    assert len({str(error) for error in errors}) == 1
    assert str(errors[0]).startswith(message)


def test_an_error_of_process_0_when_it_leads_reaches_all(service):
    def act():
        raise ConfigError("no")

    assert [str(error) for error in in_all(service, lambda process: lead(act))] == ["no"] * PROCESSES


def test_many_rounds_agree_and_leave_little_behind(service):
    def work(process):
        return [exchange(lambda number=number: [process, number]) for number in range(50)]

    rounds = [[[process, number] for process in range(PROCESSES)] for number in range(50)]
    assert in_all(service, work) == [rounds] * PROCESSES
    assert len(service.values) == PROCESSES


def test_a_wait_goes_on_until_the_slowest_has_answered(service):
    slow = threading.Event()

    def work(process):
        if process == 0:
            slow.wait(0.2)  # longer than the service waits at a time
        return lead(lambda: "ready")

    assert in_all(service, work) == ["ready"] * PROCESSES


def test_a_broken_service_is_no_reason_to_wait(service, monkeypatch):
    def gone(key, milliseconds):
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: socket closed")

    monkeypatch.setattr(service, "blocking_key_value_get", gone)
    errors = in_all(service, lambda process: exchange(process_index))
    assert all(isinstance(error, jax.errors.JaxRuntimeError) for error in errors)
