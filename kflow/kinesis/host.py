"""What the engines and the service of Kinesis need of whoever hosts them: the node, or a client without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from kflow.broker.encode import Part
from kflow.broker.folder import DataFolder
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError
from kflow.interfaces import Loop


class Stored(NamedTuple):
    """Where a part of a put was stored.

    Attributes:
        first_counter: counter of its first record.
        arrival_ms: arrival of all its records, milliseconds since the epoch.
    """

    first_counter: int
    arrival_ms: int


PutResult = Stored | KflowError
Told = Callable[[Any], object]
"""Called once, on the loop, with the result or with the `KflowError` that says why there is none."""


class Watch(Protocol):
    """A reader that wants to know of news."""

    def close(self) -> None:
        """Tell no more."""
        ...


class Host(Loop, Protocol):
    """Everything here belongs to the loop's thread, and never waits for a disk.

    Attributes:
        folder: the data folder.
        transition_s: how long visible transitions take, seconds.
    """

    folder: DataFolder
    transition_s: float

    def put(
        self, stream: StreamMap, parts: Sequence[Part], done: Callable[[list[PutResult]], object]
    ) -> list[PutResult] | None:
        """Append the parts of one call.

        Returns:
            The results, in the order of the parts, where all was quick: `done` is not called then. None: it will be.
            `StaleMap` among the results: the stream's shards have changed; encode these records again and put again.
        """
        ...

    def stream_by_id(self, stream_id: int) -> StreamMap | None:
        """The current map of a stream; None where it is gone."""
        ...

    def streams(self) -> Sequence[StreamMap]:
        """The current maps of all streams of all places, from memory."""
        ...

    def watch(self, stream: StreamMap, shard: int, news: Callable[[], object]) -> Watch:
        """Call `news` on the loop after each append that may be read, and when the shard closes or its stream goes."""
        ...

    def administrate(self, told: Told, operation: str, **arguments: Any) -> None:
        """Have a stream made, deleted or changed: the operations of `kflow.runtime.streams.admin`."""
        ...

    def notice(self, level: str, text: str) -> None:
        """Tell people something."""
        ...
