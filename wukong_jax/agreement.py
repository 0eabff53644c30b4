"""What the processes of a job tell each other on the host: results, errors, decisions. One process only asks itself.

It goes over JAX's coordination service and not over the devices, so that a process may take its time (to prepare data,
to check files) while the others wait, and so that it mixes with no collective of a program. A process that dies
meanwhile is noticed by the service, which ends the others.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from wukong_jax.errors import UserError

T = TypeVar("T")

WAIT_MILLISECONDS = 2000
"""How long a wait may keep Python from seeing a signal."""
_numbers = itertools.count()


class SharedError(UserError):
    """Bad input of a job, raised in all its processes at the same place: they can end together."""


def process_count() -> int:
    """Processes of the job; 1 without one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Number of this process, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def leads() -> bool:
    """Whether this is process 0, which alone prints and writes."""
    return process_index() == 0


def exchange(action: Callable[[], Any]) -> list[Any]:
    """Each process's own result of the action, as JSON, by process and in all of them; waits for every process.

    A `UserError` of any of them is raised as a `SharedError` in all of them. The action must not wait for others.
    """
    if process_count() == 1:
        return [action()]
    try:
        said = {"result": action()}
    except UserError as error:
        said = {"error": str(error)}
    answers = [json.loads(text) for text in _gather(json.dumps(said))]
    for process, answer in enumerate(answers):
        if "error" in answer:
            raise SharedError(f"process {process}: {answer['error']}" if process else answer["error"])
    return [answer["result"] for answer in answers]


def lead(action: Callable[[], Any]) -> Any:
    """The result, as JSON, that the action has in process 0, where alone it is called; its `UserError` too."""
    return exchange(lambda: action() if leads() else None)[0]


def together(action: Callable[[], T]) -> T:
    """This process's result of the action, once it has worked in every process; a `UserError` of any is raised in all.

    The action must not wait for other processes.
    """
    results: list[T] = []

    def act() -> None:
        results.append(action())

    exchange(act)
    return results[0]


def _gather(text: str) -> list[str]:
    """Every process's text, by process."""
    client, own, number = _client(), process_index(), next(_numbers)
    client.key_value_set(f"wukong_jax/{number}/{own}", text)
    texts = [_value(client, f"wukong_jax/{number}/{process}") for process in range(process_count())]
    if number and own == 0:  # all have answered this time, so all have read the last answers
        client.key_value_delete(f"wukong_jax/{number - 1}/")
    return texts


def _value(client: Any, key: str) -> str:
    while True:
        try:
            value: str = client.blocking_key_value_get(key, WAIT_MILLISECONDS)
            return value
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _client() -> Any:
    # JAX has no public way to its coordination service; Orbax takes the same one
    return jax._src.distributed.global_state.client
