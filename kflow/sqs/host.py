"""What the engines of SQS need of whoever hosts them: the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from kflow.broker.folder import DataFolder
from kflow.errors import KflowError
from kflow.interfaces import Cancellable

T = TypeVar("T")


class Host(Protocol):
    """Everything here belongs to the loop's thread, and never waits for a disk.

    Attributes:
        folder: the data folder.
    """

    folder: DataFolder

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def call_later(self, seconds: float, call: Callable[[], object]) -> Cancellable:
        """Call once, `seconds` from now, on the loop."""
        ...

    def submit(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do file work in a thread; `then` is called on the loop. Any exception becomes a `KflowError`."""
        ...

    def notice(self, level: str, text: str) -> None:
        """Tell people something."""
        ...
