"""What every engine is asked for, and what runs the parts of a sharded one."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from wukong_jax.data.spec import IngestSpec

Progress = Callable[[str, int], None]
"""Called with the name of the phase ("read", "fit", "encode"; "merge" after shards) and the rows done in it so far."""

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class IngestTask:
    """A store to make: where, of which columns, and whether bad rows are set aside or an error."""

    out: pathlib.Path
    spec: IngestSpec
    skip_bad_rows: bool
    origin: dict[str, Any] | None
    tell: Progress


@runtime_checkable
class Engine(Protocol):
    """Something that calls a function of one argument for many, in other processes."""

    @property
    def workers(self) -> int:
        """How many calls run at a time."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Results in the order of `items`; the `UserError` raised is that of the first item that has one.

        Function, items and results are pickled. A call may be made again where its process died.
        """
