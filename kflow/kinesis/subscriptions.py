"""One subscription to a shard: what is sent next, and when. Pure: told the time and the pages, never waits.

              +--- news, drained, due ---+
              v                          |
    step ── READ ── page ── events ── REST (at the tip, the peer is slow, over its rate)
              |                          |
              +--> OVER: five minutes, shard end, taken over, consumer or stream gone, peer gone

Records are pushed as they come; an idle subscription sends an event without records every few seconds, so that both
ends know of each other and the client's place advances. Delivery is at least once: who subscribes again behind the last
`ContinuationSequenceNumber` misses nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from kflow import limits
from kflow.aws.calls import EventStream
from kflow.aws.columns import Columns
from kflow.broker.sequence import number, parse
from kflow.broker.streammap import ShardInfo
from kflow.errors import KflowError
from kflow.kinesis.reading import Page
from kflow.records import Position

EVENT: Final = "SubscribeToShardEvent"
LIFE_MS: Final = 300_000
"""Source: documented: SubscribeToShard, "the connection lasts 5 minutes"."""
HEARTBEAT_MS: Final = 5_000
"""Chosen: AWS sends events without records every few seconds, the period is not documented."""
EVENT_RECORDS: Final = 250
EVENT_BYTES: Final = 128 * limits.KIB
"""Chosen: writing one event is one slice of the loop. A larger record has an event of its own."""
FULL_BYTES: Final = 512 * limits.KIB
"""Chosen: a peer that has not taken this much is sent nothing more until it has taken most of it."""
RATE_BYTES: Final = 2 * limits.MIB
"""Per second and per consumer and shard. Source: documented: enhanced fan-out."""


class Act(enum.Enum):
    """What whoever steps a subscription does next."""

    READ = enum.auto()
    REST = enum.auto()
    OVER = enum.auto()


class Step(NamedTuple):
    """What came out of a step.

    Attributes:
        act: read a page from `position` on and hand it to `take`; or rest until something happens; or forget it.
        due_ms: for REST: step again at this time if nothing happens before.
    """

    act: Act
    due_ms: int = 0


_NOTHING: Final[Sequence[Mapping[str, Any]]] = ()
_READ: Final = Step(Act.READ)
_OVER: Final = Step(Act.OVER)


class Start(NamedTuple):
    """Where a subscription begins.

    Attributes:
        position: in the shard.
        counter: of the next record to come, as of a moment before the position was looked up. It counts only where the
            shard has nothing behind the position yet: else the records say where the client is.
    """

    position: Position
    counter: int


class Pace:
    """A bucket of bytes that may go into debt: a record of any size passes, and what follows waits for it."""

    __slots__ = ("_level", "_looked_ms")

    def __init__(self, now_ms: int) -> None:
        self._level = float(RATE_BYTES)
        self._looked_ms = now_ms

    def spend(self, count: int) -> None:
        """So many bytes were sent."""
        self._level -= count

    def ready_ms(self, now_ms: int) -> int:
        """When more may be sent: `now_ms`, or later."""
        passed = max(0, now_ms - self._looked_ms)
        self._looked_ms = now_ms
        self._level = min(RATE_BYTES, self._level + passed * RATE_BYTES / 1000)
        if self._level > 0:
            return now_ms
        return now_ms + int(-self._level * 1000 / RATE_BYTES) + 1


class Subscription:
    """What one client receives of one shard. Belongs to the loop.

    Args:
        shard: the shard; its map may change meanwhile.
        start: where to begin.
        out: where events go.
        now_ms: milliseconds since the epoch.
        is_paced: whether it sends no more than 2 MiB a second.
    """

    __slots__ = ("_end_ms", "_has_news", "_is_reading", "_last", "_out", "_pace", "_sent_ms", "_shard", "position")

    def __init__(
        self, shard: ShardInfo, start: Start, out: EventStream, now_ms: int, *, is_paced: bool = False
    ) -> None:
        self.position = start.position
        self._shard = shard
        self._out = out
        self._end_ms = now_ms + LIFE_MS
        self._sent_ms = now_ms
        self._pace = Pace(now_ms) if is_paced else None
        self._has_news = True
        self._is_reading = False
        # No record need have this number: behind it are the records from `counter` on.
        self._last = str(number(shard.created_s, shard.index, max(0, start.counter - 1), now_ms))

    @property
    def has_news(self) -> bool:
        """Whether there may be more to read."""
        return self._has_news

    def news(self) -> None:
        """There may be more to read."""
        self._has_news = True

    def step(self, now_ms: int) -> Step:
        """Say what to do next; an event without records is sent where one is due."""
        out = self._out
        if out.is_closed:
            return _OVER
        if now_ms >= self._end_ms:
            out.end()
            return _OVER
        if self._is_reading:
            return Step(Act.REST, self._end_ms)
        if out.buffered > FULL_BYTES:
            return self._rest(now_ms + HEARTBEAT_MS)
        if self._has_news:
            ready_ms = now_ms if self._pace is None else self._pace.ready_ms(now_ms)
            if ready_ms > now_ms:
                return self._rest(ready_ms)
            self._has_news = False
            self._is_reading = True
            return _READ
        if now_ms - self._sent_ms >= HEARTBEAT_MS:
            self._beat(now_ms)
        return self._rest(self._sent_ms + HEARTBEAT_MS)

    def take(self, page: Page, children: Sequence[Mapping[str, Any]], now_ms: int) -> None:
        """A page was read: send it, and the end of the shard where it is reached. Step again then.

        Args:
            page: from `position` on.
            children: where the shard is closed, and read to its end with this page: what it was made into, as
                `ChildShard`s of the model; else empty.
            now_ms: milliseconds since the epoch.
        """
        self._is_reading = False
        if self._out.is_closed:
            return
        self.position = page.position
        self._has_news = self._has_news or page.is_behind
        if page.rows:
            self._last = str(page.last_number)
            self._send(now_ms, page.records(), page.behind_ms(now_ms))
            if self._pace is not None:
                self._pace.spend(page.size)
        if children:
            # recorded: KCL wants children if and only if there is no ContinuationSequenceNumber
            self._out.send(EVENT, {"Records": _NOTHING, "MillisBehindLatest": 0, "ChildShards": children})
            self._out.end()

    def fail(self, error: KflowError) -> None:
        """End with an error in the stream."""
        self._is_reading = False
        if not self._out.is_closed:
            self._out.fail(error)

    def end(self) -> None:
        """End without an error: the client subscribes again."""
        if not self._out.is_closed:
            self._out.end()

    def _rest(self, due_ms: int) -> Step:
        return Step(Act.REST, min(due_ms, self._end_ms))

    def _beat(self, now_ms: int) -> None:
        """An event without records; its number is past the last record's and before that of any to come."""
        shard, last = self._shard, parse(int(self._last))
        self._last = str(number(shard.created_s, shard.index, last.counter, max(now_ms, last.arrival_s * 1000)))
        self._send(now_ms, _NOTHING, 0)

    def _send(self, now_ms: int, records: Columns | Sequence[Mapping[str, Any]], behind_ms: int) -> None:
        members = {
            "Records": records,
            "ContinuationSequenceNumber": self._last,
            "MillisBehindLatest": behind_ms,
        }
        self._out.send(EVENT, members)
        self._sent_ms = now_ms
