"""Where a `Producer`'s records go: a pipeline to the local log, or AWS."""

from __future__ import annotations

from collections.abc import Sequence

from kflow import limits
from kflow.broker.encode import Encoder
from kflow.errors import KflowError
from kflow.producing.aws import RemoteStream, client
from kflow.producing.channel import Channel
from kflow.producing.frames import Failure
from kflow.producing.local import Home, home
from kflow.producing.pipeline import Entries, Pipeline
from kflow.producing.targets import Target


class LocalOutlet:
    """Frames through a channel of its own."""

    def __init__(self, where: Home, name: str) -> None:
        self._where = where
        self._name = name
        self._channel = Channel(where.folder)
        self._pipeline = Pipeline(self._channel, where.source(name))
        self.record_bytes = where.refresh(name).max_record_bytes

    @property
    def failures(self) -> dict[int, Failure]:
        """Why records have no place, by their number."""
        return self._pipeline.failures

    @failures.setter
    def failures(self, value: dict[int, Failure]) -> None:
        self._pipeline.failures = value

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._pipeline.is_idle

    def check(self, data: bytes, key: str) -> None:
        """Raise what the stream has against a record."""
        Encoder(self._where.stream(self._name)).encode_one(data, key)

    def push(self, numbers: Sequence[int], entries: Entries) -> None:
        """Send some records; waits while four frames are in flight."""
        self._channel.check()
        self._pipeline.push(numbers, entries)

    def poll(self) -> None:
        """Take the answers that are there."""
        self._channel.check()
        self._pipeline.poll()

    def settle(self) -> None:
        """Wait until nothing is under way."""
        self._channel.check()
        self._pipeline.settle()

    def refuse(self, numbers: Sequence[int], error: KflowError) -> None:
        """Note that records were not sent."""
        self._pipeline.refuse(numbers, error)

    def forget(self) -> None:
        """In a forked child: begin with nothing under way."""
        self._pipeline = Pipeline(self._channel, self._where.source(self._name))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class RemoteOutlet:
    """Calls of the SDK, each waited for."""

    is_idle = True

    def __init__(self, name: str, target: Target) -> None:
        self._name = name
        self._target = target
        self._stream = RemoteStream(name, client(target))
        self.failures: dict[int, Failure] = {}
        self.record_bytes = limits.RECORD_BYTES_MAX

    def check(self, data: bytes, key: str) -> None:
        """Nothing: what AWS refuses, it refuses when it is asked."""

    def push(self, numbers: Sequence[int], entries: Entries) -> None:
        """Send some records and wait for the answer."""
        _, failures = self._stream.put_all(entries, ordered=False)
        self.failures.update({numbers[index]: failure for index, failure in failures.items()})

    def poll(self) -> None:
        """Nothing is under way between calls."""

    def settle(self) -> None:
        """Nothing is under way between calls."""

    def refuse(self, numbers: Sequence[int], error: KflowError) -> None:
        """Note that records were not sent."""
        self.failures.update(dict.fromkeys(numbers, Failure("refused", error)))

    def forget(self) -> None:
        """In a forked child: a client of its own."""
        self.failures = {}
        self._stream = RemoteStream(self._name, client(self._target))

    def close(self) -> None:
        """The client is shared, and stays."""


def outlet(name: str, target: Target) -> LocalOutlet | RemoteOutlet:
    """The outlet of a target.

    Raises:
        ResourceNotFound: a local stream that does not exist.
    """
    if target.kind == "local":
        return LocalOutlet(home(target.where), name)
    return RemoteOutlet(name, target)
