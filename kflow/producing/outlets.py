"""Where a `Producer`'s records go: a pipeline to the local log, or AWS."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kflow import limits
from kflow.broker.encode import Encoder
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, StorageError
from kflow.producing.aggregating import PAYLOAD_BYTES, gather, where
from kflow.producing.aws import PATIENCE_S, RemoteStream, Shards, client
from kflow.producing.channel import Channel
from kflow.producing.frames import Failure
from kflow.producing.local import Home, home
from kflow.producing.pipeline import Entries, Gathered, Pipeline
from kflow.producing.targets import Target
from kflow.records import Placed


class LocalOutlet:
    """Frames through a channel of its own."""

    def __init__(self, where: Home, name: str, *, aggregate: bool = False) -> None:
        self._where = where
        self._name = name
        self._gather = gather_by_map if aggregate else None
        self._channel = Channel(where.folder)
        self._pipeline = Pipeline(self._channel, where.source(name), gather=self._gather)
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
        self._pipeline = Pipeline(self._channel, self._where.source(self._name), gather=self._gather)

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


class AggregatingOutlet(RemoteOutlet):
    """Calls of the SDK with many user records in each record.

    After a resharding a record may land where some of its user records do not belong. Whoever filters by hash range
    drops those, or all of them, so all are put again: at least once.
    """

    def __init__(self, name: str, target: Target) -> None:
        super().__init__(name, target)
        self._shards: Shards | None = None

    def push(self, numbers: Sequence[int], entries: Entries) -> None:
        """Send some records and wait for the answers."""
        deadline = time.monotonic() + PATIENCE_S
        left = list(range(len(entries.keys)))
        while left:
            shards = self._shards = self._shards or self._stream.shards()
            chosen = entries.take(left)
            put, members = gather(shards.ends, chosen)
            placed, failures = self._stream.put_all(put, ordered=False)
            for index, failure in failures.items():
                self.failures.update({numbers[left[member]]: failure for member in members[index]})
            strayed = [index for index, place in enumerate(placed) if place and place.shard_id not in shards.ids]
            if not strayed:
                return
            doubt: KflowError = StorageError(f"the shards of {self._name} keep changing: readers may drop it")
            try:
                left = [left[member] for member in self._strayed(strayed, placed, chosen, members)]
            except KflowError as error:
                doubt = error
                left = sorted(left[member] for index in strayed for member in members[index])
            else:
                if time.monotonic() < deadline:
                    continue
            self.failures.update({numbers[index]: Failure("unknown", doubt) for index in left})
            return

    def forget(self) -> None:
        """In a forked child: a client of its own."""
        super().forget()
        self._shards = None

    def _strayed(
        self,
        strayed: Sequence[int],
        placed: Sequence[Placed | None],
        entries: Entries,
        members: Sequence[Sequence[int]],
    ) -> list[int]:
        """Which user records are where they do not belong, by their indexes."""
        shards = self._shards = self._stream.shards()
        hash_keys = entries.hash_keys or [None] * len(entries.keys)
        again: list[int] = []
        for index in strayed:
            place = placed[index]
            inside = shards.range_of(place.shard_id) if place else None
            rows = members[index]
            if len(rows) == 1:
                continue  # it went where its own hash key says
            if inside is None or not all(where(entries.keys[row], hash_keys[row]) in inside for row in rows):
                again += rows
        return sorted(again)


def gather_by_map(stream: StreamMap, entries: Entries) -> Gathered:
    """Aggregate by the shards that a map has open."""
    ends = [shard.end for shard in stream.open_shards]
    limit = stream.max_record_bytes - 4 * limits.PARTITION_KEY_CHARACTERS
    try:
        return gather(ends, entries, min(limit, PAYLOAD_BYTES))
    except (TypeError, AttributeError, UnicodeEncodeError):
        Encoder(stream).encode_many(entries.keys, entries.datas, entries.hash_keys)  # names the record
        raise


def outlet(name: str, target: Target, *, aggregate: bool = False) -> LocalOutlet | RemoteOutlet:
    """The outlet of a target.

    Args:
        name: the stream's, or its ARN.
        target: where to.
        aggregate: put many user records into one.

    Raises:
        ResourceNotFound: a local stream that does not exist.
    """
    if target.kind == "local":
        return LocalOutlet(home(target.where), name, aggregate=aggregate)
    return AggregatingOutlet(name, target) if aggregate else RemoteOutlet(name, target)
