"""Carries subscriptions: steps them on news, when the peer has taken what was sent, and when their time has come.

One step of one subscription a round of the loop, in turn, so that however many there are nobody waits long; a timer
lives only while its subscription does.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kflow.aws.calls import EventStream
from kflow.broker.streammap import StreamMap
from kflow.errors import InternalError, KflowError
from kflow.interfaces import Cancellable
from kflow.kinesis.host import Host, Watch
from kflow.kinesis.reading import Page, Reading, trim_ms
from kflow.kinesis.subscriptions import EVENT_BYTES, EVENT_RECORDS, Act, Subscription

log = logging.getLogger(__name__)

PageOrError = Page | KflowError


class Live:
    """A subscription with what wakes it.

    Attributes:
        subscription: the engine.
        stream_id: what it reads.
        shard: index of the shard.
        consumer_arn: whose it is.
    """

    __slots__ = (
        "_due_ms",
        "_is_queued",
        "_on_over",
        "_out",
        "_pusher",
        "_timer",
        "_watch",
        "consumer_arn",
        "shard",
        "stream_id",
        "subscription",
    )

    def __init__(
        self,
        pusher: Pusher,
        subscription: Subscription,
        out: EventStream,
        stream: StreamMap,
        shard: int,
        consumer_arn: str,
        on_over: Callable[[], object],
    ) -> None:
        self.subscription = subscription
        self.stream_id = stream.id
        self.shard = shard
        self.consumer_arn = consumer_arn
        self._pusher = pusher
        self._out = out
        self._on_over = on_over
        self._timer: Cancellable | None = None
        self._due_ms = 0
        self._is_queued = False
        self._watch: Watch | None = pusher.host.watch(stream, shard, self._news)
        out.on_drain = self.wake
        out.on_close = self.over

    def wake(self) -> None:
        """Step it in its turn."""
        if not self._is_queued and self._watch is not None:
            self._is_queued = True
            self._pusher.queue(self)

    def fail(self, error: KflowError) -> None:
        """End it with an error in the stream."""
        self.subscription.fail(error)
        self.over()

    def end(self) -> None:
        """End it without an error."""
        self.subscription.end()
        self.over()

    def over(self) -> None:
        """Nothing is sent any more: let go of everything."""
        if self._watch is None:
            return
        self._watch.close()
        self._watch = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._out.on_drain = None
        self._out.on_close = None
        self._pusher.forget(self)
        self._on_over()

    def turn(self) -> None:
        """Do one step, and one page of reading where that is what it wants."""
        self._is_queued = False
        self._guarded(self._step)

    def _guarded(self, work: Callable[[], object]) -> None:
        """What is broken ends this subscription, and neither the others nor the loop."""
        try:
            work()
        except Exception as error:
            log.exception("a subscription failed consumer=%s shard=%d", self.consumer_arn, self.shard)
            self.fail(InternalError(f"{type(error).__name__}: {error}; please report it"))

    def _step(self) -> None:
        if self._watch is None:
            return
        host, subscription = self._pusher.host, self.subscription
        stream = host.stream_by_id(self.stream_id)
        if stream is None:
            self.fail(self._pusher.gone(self))
            return
        now_ms = host.now_ms()
        step = subscription.step(now_ms)
        if step.act is Act.READ:
            page = self._read(stream, now_ms)
            if page is not None:
                subscription.take(page, self._children(stream, page), now_ms)
                if subscription.has_news:
                    self.wake()
                    return
            step = subscription.step(now_ms)  # rests until the page is there, or there is news
        if step.act is Act.OVER:
            self.over()
        else:
            self._arm(step.due_ms, now_ms)

    def _news(self) -> None:
        self.subscription.news()
        self.wake()

    def _read(self, stream: StreamMap, now_ms: int) -> Page | None:
        def late(page: PageOrError) -> None:
            if self._watch is not None:
                self._guarded(lambda: self._late(stream, page))

        return self._pusher.reading.read(
            stream,
            self.shard,
            self.subscription.position,
            late,
            limit=EVENT_RECORDS,
            max_bytes=EVENT_BYTES,
            oldest_ms=trim_ms(stream, now_ms),
        )

    def _late(self, stream: StreamMap, page: PageOrError) -> None:
        host = self._pusher.host
        if isinstance(page, KflowError):
            is_gone = host.stream_by_id(self.stream_id) is None  # its files went while they were read
            self.fail(self._pusher.gone(self) if is_gone else page)
            return
        self.subscription.take(page, self._children(stream, page), host.now_ms())
        self.wake()

    def _children(self, stream: StreamMap, page: Page) -> Sequence[Mapping[str, Any]]:
        """By the map that was there before the page: what it calls closed has nothing to come."""
        if page.is_behind or stream.shards[self.shard].is_open:
            return ()
        return self._pusher.children(stream, self.shard)

    def _arm(self, due_ms: int, now_ms: int) -> None:
        """A timer that fires too early asks the engine and is set again: sending moves no timer."""
        if self._timer is not None:
            if self._due_ms <= due_ms:
                return
            self._timer.cancel()
        self._due_ms = due_ms
        self._timer = self._pusher.host.call_later(max(0, due_ms - now_ms) / 1000, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.wake()


class Pusher:
    """All live subscriptions. Belongs to the loop.

    Args:
        host: news, time and timers.
        reading: reads pages.
        children: the `ChildShard`s of a closed shard.
        gone: the error that says that the stream of a subscription does not exist any more.
    """

    def __init__(
        self,
        host: Host,
        reading: Reading,
        *,
        children: Callable[[StreamMap, int], Sequence[Mapping[str, Any]]],
        gone: Callable[[Live], KflowError],
    ) -> None:
        self.host = host
        self.reading = reading
        self.children = children
        self.gone = gone
        self._lives: set[Live] = set()
        self._queue: deque[Live] = deque()
        self._is_armed = False

    def __len__(self) -> int:
        return len(self._lives)

    def start(
        self,
        subscription: Subscription,
        out: EventStream,
        stream: StreamMap,
        shard: int,
        *,
        consumer_arn: str,
        on_over: Callable[[], object],
    ) -> Live:
        """Carry a subscription from now on; `on_over` is called once, when it has ended for whatever reason."""
        live = Live(self, subscription, out, stream, shard, consumer_arn, on_over)
        self._lives.add(live)
        live.wake()
        return live

    def of_stream(self, stream_id: int) -> list[Live]:
        """Those that read a stream."""
        return [live for live in self._lives if live.stream_id == stream_id]

    def end_all(self) -> None:
        """End all without an error: the endpoint stops."""
        for live in list(self._lives):
            live.end()

    def queue(self, live: Live) -> None:
        """Step it when its turn comes."""
        self._queue.append(live)
        if not self._is_armed:
            self._is_armed = True
            self.host.call_later(0, self._turn)

    def forget(self, live: Live) -> None:
        """It is over."""
        self._lives.discard(live)

    def _turn(self) -> None:
        self._is_armed = False
        live = self._queue.popleft()
        if self._queue:
            self._is_armed = True
            self.host.call_later(0, self._turn)
        live.turn()
