"""What SubscribeToShard answers with: events to iterate over, as boto3 has them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from kflow.aws.local import LocalOutput
from kflow.aws.shapes import Operation
from kflow.broker.linking import Link
from kflow.broker.reader import ShardReader
from kflow.broker.wirecalls import CallError
from kflow.client.faults import raise_event_error
from kflow.errors import AwsError, KflowError, ResourceNotFound, StorageError

if TYPE_CHECKING:
    from kflow.client.alone import LoneHost

log = logging.getLogger(__name__)

Event = dict[str, Any]

LOOK_S: Final = 0.02
"""Without a node nobody tells of records: the shard's page in memory is looked at this often while somebody waits."""
_MAP_S: Final = 0.5
"""And its stream's map this often."""


class NodeEvents:
    """Events that a node sends. Iterate over them in one thread, and close it in any.

    Iterating ends with the subscription: after five minutes, at the end of the shard. An error of the service, and a
    lost connection, raise `EventStreamError`.
    """

    def __init__(self, link: Link, operation: str) -> None:
        self._link: Link | None = link
        self._operation = operation

    def __iter__(self) -> Iterator[Event]:
        while (link := self._link) is not None:
            try:
                event = link.event(1)
            except OSError as error:
                if self._link is None:
                    return
                self.close()
                raise_event_error("InternalFailure", f"the node went away: {error}", self._operation)
            if event.name:
                yield {event.name: event.members}
            if event.is_last:
                self.close()
                if event.error is not None:
                    raise_event_error(event.error.code, event.error.message, self._operation)

    def close(self) -> None:
        """End the subscription."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


class LoneEvents:
    """Events that are read here, where no node runs: a `kflow.aws.calls.EventStream` and its reader in one.

    Attributes:
        on_drain, on_close, buffered, is_closed: see `EventStream`.
    """

    def __init__(self, host: LoneHost, operation: Operation) -> None:
        self.on_drain: Callable[[], object] | None = None
        self.on_close: Callable[[], object] | None = None
        self.buffered = 0
        self._host = host
        self._operation = operation
        self._output = LocalOutput()
        self._events: deque[tuple[Event, int]] = deque()
        self._has_ended = False
        self._error: CallError | None = None
        self._looker: _Looker | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._has_ended

    def send(self, event: str, members: Mapping[str, Any]) -> None:
        """Keep one event for the reader."""
        read = self._output.event(self._operation, event, members)
        size = sum(len(record["Data"]) for record in read.get("Records", ()))
        self.buffered += size
        self._events.append(({event: read}, size))

    def fail(self, error: KflowError) -> None:
        """End with an error."""
        code = error.code if isinstance(error, AwsError) else "InternalFailure"
        self._error = CallError(code=code, message=str(error))
        self._has_ended = True

    def end(self) -> None:
        """End without an error."""
        self._has_ended = True

    def __iter__(self) -> Iterator[Event]:
        host = self._host
        while True:
            while self._events:
                event, size = self._events.popleft()
                self.buffered -= size
                yield event
            if self._has_ended:
                self.close()
                if (error := self._error) is not None:
                    self._error = None
                    raise_event_error(error.code, error.message, self._operation.name)
                return
            if self.on_drain is not None:
                self.on_drain()
            host.run()
            if not self._events and not self._has_ended:
                self._wait()

    def close(self) -> None:
        """End the subscription."""
        self._has_ended = True
        self._events.clear()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()
        if self._looker is not None:
            self._looker.close()
            self._looker = None

    def _wait(self) -> None:
        """Until there may be news, or something is due."""
        if self._looker is None:
            self._looker = _Looker(self._host)
        if not self._host.promote() and not self._looker.has_news():
            time.sleep(LOOK_S)


class _Looker:
    """Looks whether the watched shard has more."""

    def __init__(self, host: LoneHost) -> None:
        self._host = host
        (self._watch,) = host.watches
        self._reader: ShardReader | None = None
        self._tail = -1
        self._looked_s = time.monotonic()

    def has_news(self) -> bool:
        """Look, and tell the subscription."""
        tail = self._look()
        found, self._tail = tail != self._tail, tail
        now_s = time.monotonic()
        if tail < 0 or now_s - self._looked_s > _MAP_S:
            self._looked_s = now_s
            found = self._has_moved() or found
        if found:
            self._watch.news()
        return found

    def close(self) -> None:
        """Close the files."""
        if self._reader is not None:
            self._reader.close()

    def _look(self) -> int:
        """Where the shard ends; -1: it cannot be looked at, for its files have gone."""
        stream = self._host.stream_by_id(self._watch.stream_id)
        if self._reader is None and stream is not None:
            try:
                self._reader = ShardReader(self._host.folder, stream, self._watch.shard)
            except StorageError as error:
                log.info("shard not looked at stream=%s error=%s", stream.name, error)
        return -1 if self._reader is None else self._reader.tail

    def _has_moved(self) -> bool:
        """Whether the stream's map is another one, or gone."""
        host, stream_id = self._host, self._watch.stream_id
        before = host.stream_by_id(stream_id)
        if before is None:
            return False
        try:
            now = host.folder.map_by_id(stream_id)
        except ResourceNotFound:
            host.lost(stream_id)
            return True
        if now.generation == before.generation:
            return False
        host.moved(now)
        return True
