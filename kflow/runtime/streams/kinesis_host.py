"""The node as the engines of Kinesis see it: its log, its clock, its threads, and news of what changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

from kflow.broker.encode import Part
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError
from kflow.kinesis.host import PutResult, Told
from kflow.runtime.errands import attempt
from kflow.runtime.loop import Timer
from kflow.runtime.node.node import Node
from kflow.runtime.streams.admin import StreamAdmin

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

News = Callable[[], object]
Put = Callable[[StreamMap, Sequence[Part], Callable[[list[PutResult]], object]], list[PutResult] | None]


def guarded(call: Callable[P, object]) -> Callable[P, None]:
    """The same call; what it raises is logged. A bug in a service must never end the loop, and with it the node."""

    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception:
            log.exception("a callback of a service failed")

    return run


class Watch:
    """One reader's interest in a shard."""

    __slots__ = ("_news", "_watches")

    def __init__(self, watches: Watches, key: tuple[int, int], news: News) -> None:
        self._watches: tuple[Watches, tuple[int, int]] | None = (watches, key)
        self._news = news

    def close(self) -> None:
        """Tell no more. Closing twice does nothing."""
        if self._watches is not None:
            (watches, key), self._watches = self._watches, None
            watches.remove(key, self._news)


class Watches:
    """Who wants to know of news, by stream and shard. An append costs one look into a table where nobody does."""

    def __init__(self) -> None:
        self._readers: dict[tuple[int, int], list[News]] = {}

    def add(self, stream_id: int, shard: int, news: News) -> Watch:
        """Call `news` after each append that may be read, and when the shard or its stream changes."""
        key = (stream_id, shard)
        self._readers.setdefault(key, []).append(news)
        return Watch(self, key, news)

    def remove(self, key: tuple[int, int], news: News) -> None:
        """Call it no more."""
        left = [each for each in self._readers[key] if each is not news]
        if left:
            self._readers[key] = left
        else:
            del self._readers[key]

    def appended(self, stream: StreamMap, shard: int) -> None:
        """There is something to read. Called after each append."""
        readers = self._readers.get((stream.id, shard))
        if readers is not None:
            for news in tuple(readers):  # one may close its watch, or another's, meanwhile
                news()

    def moved(self, stream_id: int) -> None:
        """A stream's shards have changed, or it is gone: all its readers look for themselves."""
        for key in [key for key in self._readers if key[0] == stream_id]:
            for news in tuple(self._readers.get(key, ())):
                news()


class KinesisHost:
    """A `kflow.kinesis.host.Host` over a running node. Belongs to the loop's thread.

    Args:
        node: what runs.
        admin: makes, deletes and changes streams.
        put: appends (`kflow.runtime.intake.puts`).
        transition_ms: how long visible transitions take.
        streams: the maps of all streams at this moment.
    """

    def __init__(
        self, node: Node, admin: StreamAdmin, *, put: Put, transition_ms: int, streams: Iterable[StreamMap]
    ) -> None:
        self.folder = node.folder
        self.measures = node.measures
        self.function_measures = node.function_measures
        self.transition_s = transition_ms / 1000
        self.put = put
        self._node = node
        self._admin = admin
        self._streams = {stream.id: stream for stream in streams}
        self._watches = Watches()
        node.watch_appends(self._watches.appended)

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call once, `seconds` from now, on the loop."""
        return self._node.loop.call_later(seconds, guarded(call))

    def submit(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do file work in a thread; `then` is called on the loop."""
        self._node.upkeep.submit(work, guarded(then))

    def at_once(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do work here and now; `then` is called in this round of the loop."""
        self._node.loop.call_soon(partial(guarded(then), attempt(work)))

    def stream_by_id(self, stream_id: int) -> StreamMap | None:
        """The current map of a stream; None where it is gone."""
        return self._streams.get(stream_id)

    def streams(self) -> Sequence[StreamMap]:
        """The current maps of all streams of all places."""
        return list(self._streams.values())

    def watch(self, stream: StreamMap, shard: int, news: News) -> Watch:
        """Call `news` after each append that may be read, and when the shard closes or its stream goes."""
        return self._watches.add(stream.id, shard, guarded(news))

    def administrate(self, told: Told, operation: str, **arguments: Any) -> None:
        """Have a stream made, deleted or changed."""
        tell = guarded(told)
        try:
            self._admin.operations[operation](tell, **arguments)
        except KflowError as error:
            tell(error)

    def notice(self, level: str, text: str) -> None:
        """Tell people something."""
        self._node.notice(level, text)

    # ------------------------------------------------------------------ what the node tells

    def learn(self, stream: StreamMap) -> None:
        """A map was published; one that is marked deleted says that its stream is gone."""
        if stream.deleted:
            self._streams.pop(stream.id, None)
        else:
            self._streams[stream.id] = stream

    def tell(self, stream: StreamMap) -> None:
        """All who had to know of a new map before its readers know it now."""
        self._watches.moved(stream.id)
