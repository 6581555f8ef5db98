"""The engine of one queue: who asks in one turn is served in one transaction.

    sent --delay--> visible --receive--> in flight --time over--> visible ...
                       |                     +--delete--> gone
                       +--received too often--> set aside, and a dead letter elsewhere

Delivery is at least once. In a FIFO queue a group is a line: what is received is its oldest messages, up to the first
that is in flight, and groups take turns. Runs in a thread, one turn of a queue at a time, and is told the time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from kflow.broker.messagequeues import ASIDE_MS, Message, MessageStore, New, Recent, State
from kflow.desk import Turn
from kflow.errors import KflowError
from kflow.sqs import checks, digests, facts, limits
from kflow.sqs.asking import (
    Accept,
    Ask,
    Count,
    Delete,
    Delivered,
    Drop,
    Entry,
    GiveBack,
    Hide,
    Keep,
    More,
    Moved,
    Purge,
    Receive,
    Received,
    Reply,
    Return,
    Send,
    Sent,
    Take,
    Terms,
)
from kflow.sqs.digests import Value
from kflow.sqs.errors import OverLimit, SqsError, invalid
from kflow.sqs.receipts import Delivery

_ASIDE: Final = 1000
"""So many messages are set aside in one turn, but for one more by each receive: it must end."""
FIRST_ASIDE: Final = 10
"""So many by the first that meets any, on the loop perhaps; the next turns are a thread's."""
_ATTEMPTS: Final = 1000
_QUICK: Final = 20
"""So many messages are sent, read or settled in 0.4 ms."""
_QUICK_BYTES: Final = 16 << 10
"""What is longer takes a good part of a millisecond: checked, digested, copied."""
_NO_CHANGE: Final = "Message does not exist or is not available for visibility timeout change."

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(More).decode


def draw() -> bytes:
    """A new message id: a UUID of version 4."""
    drawn = bytearray(os.urandom(16))
    drawn[6] = drawn[6] & 0x0F | 0x40
    drawn[8] = drawn[8] & 0x3F | 0x80
    return bytes(drawn)


class _Attempt(NamedTuple):
    """A receive that may be repeated: the same messages, as long as they are as they were."""

    until_ms: int
    deliveries: Sequence[Delivery]


class Turns:
    """One queue.

    Args:
        store: what it keeps.
        draw: draws message ids.
    """

    def __init__(self, store: MessageStore, draw: Callable[[], bytes] = draw) -> None:
        self._store = store
        self._draw = draw
        self._attempts: dict[str, _Attempt] = {}
        self._in_flight_at_most = 0
        self._has_counted = False
        self._has_buried = False
        self._most_aside = 0
        with store.turn():
            store.bring_back()

    def take(self, terms: Terms, asked: Sequence[Ask], *, may_wait: bool = True) -> Turn[Reply]:
        """Serve all who ask: first what may bring messages, then receives; see `kflow.desk.Turns`.

        Raises:
            StorageError: the store cannot be written; nothing has happened.
        """
        store, now_ms = self._store, terms.now_ms
        replies: list[Reply | KflowError] = [None] * len(asked)
        try:
            with store.turn():
                is_news = store.expire(now_ms - terms.facts.retention_s * 1000, now_ms)
                receives: list[int] = []
                for place, ask in enumerate(asked):
                    if isinstance(ask, Receive | Take):
                        receives.append(place)
                        continue
                    replies[place] = self._attempted(terms, ask)
                    is_news = is_news or may_bring(terms, ask)
                is_dry = False
                self._most_aside = _ASIDE if self._has_buried or terms.facts.is_fifo else FIRST_ASIDE
                for place in receives:
                    reply = Received() if is_dry else self._attempted(terms, asked[place])
                    if isinstance(reply, Received):
                        is_dry = not reply.messages and not reply.aside
                        is_news = is_news or bool(reply.messages)  # more of them, perhaps
                    replies[place] = reply
                is_news = is_news and not is_dry
                next_ms = store.next_ms(now_ms, ordered=terms.facts.is_fifo) if may_wait else None
                return Turn(replies, next_ms, is_news)
        except BaseException:
            self._attempts.clear()
            self._has_counted = False
            raise

    def is_quick(self, terms: Terms, asked: Sequence[Ask]) -> bool:
        """Whether a turn is certain to be short, as far as can be seen without one. On the loop, while none is taken.

        Not in a FIFO queue, which forgets who was sent lately, and may forget thousands at once.
        """
        size = reads = others = 0
        for ask in asked:
            if isinstance(ask, Send):
                others += len(ask.entries)
                for entry in ask.entries:
                    size += len(entry.body or "") + len(entry.trace or "")
                    if entry.attributes:
                        others += len(entry.attributes) // 4  # which take as long
                        size += sum(len(value) for _, value in entry.attributes.values())
            elif isinstance(ask, Receive):
                reads += ask.limit
            elif isinstance(ask, Delete | GiveBack):
                others += len(ask.deliveries)
            elif isinstance(ask, Hide):
                others += len(ask.entries)
            else:
                return False
        store = self._store
        return (
            reads + others <= _QUICK
            and size <= _QUICK_BYTES
            and not terms.facts.is_fifo
            and not self._has_buried  # there may be many more
            and store.count < limits.IN_FLIGHT  # else those in flight are counted
            and store.is_quick(terms.now_ms - terms.facts.retention_s * 1000, reads=reads, most=_QUICK_BYTES)
        )

    def tend(self) -> None:
        """What the file needs now and then; it may wait for the disk."""
        self._store.tend()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _attempted(self, terms: Terms, ask: Ask) -> Reply | KflowError:
        """One answer; an error of AWS's is raised before anything is written."""
        try:
            return self._answer(terms, ask)
        except SqsError as error:
            return error

    def _answer(self, terms: Terms, ask: Ask) -> Reply:
        store = self._store
        match ask:
            case Send():
                return self._send(terms, ask)
            case Receive():
                return self._receive(terms, ask)
            case Delete(deliveries):
                return [self._delete(terms, each) for each in deliveries]
            case Hide(entries):
                return [self._hide(terms, delivery, seconds) for delivery, seconds in entries]
            case GiveBack(deliveries):
                self._give_back(terms, deliveries)
            case Count():
                return store.counts(terms.now_ms)
            case Keep(kept):
                store.set_fact("queue", facts.encode(kept))
            case Purge(kept):
                store.set_fact("queue", facts.encode(kept))
                store.clear()
                self._attempts.clear()
            case Take(limit):
                return Received(aside=self._set_aside(terms, limit))
            case Accept(messages):
                store.add([self._new(terms, each) for each in messages])
            case Drop(numbers):
                self._let_go(terms, numbers)
            case Return(numbers):
                self._return(terms, numbers)
        return None

    # ------------------------------------------------------------------ sending

    def _send(self, terms: Terms, ask: Send) -> list[Sent | SqsError]:
        if ask.is_batch:
            checks.check_fifo_batch(ask.entries, terms.facts)
            checks.check_sizes(ask.entries)
        replies: list[Sent | SqsError] = []
        for entry in ask.entries:
            try:
                checks.check_entry(entry, terms.facts, is_batch=ask.is_batch)
            except SqsError as error:
                replies.append(error)
            else:
                replies.append(self._add(terms, entry, ask.sender))
        return replies

    def _add(self, terms: Terms, entry: Entry, sender: str) -> Sent:
        queue, now_ms, body = terms.facts, terms.now_ms, entry.body
        assert body, "it was checked"
        digest = digests.of_body(body)
        by_attributes = digests.of_attributes(entry.attributes) if entry.attributes else ""
        system = {} if entry.trace is None else {"AWSTraceHeader": Value("String", entry.trace)}
        by_trace = digests.of_attributes(system) if system else ""
        key = duplicate = ""
        if queue.is_fifo:
            duplicate = entry.duplicate or hashlib.sha256(body.encode()).hexdigest()
            key = f"{entry.group}\0{duplicate}" if queue.scope == "messageGroup" else duplicate
            known = self._store.recent(key, now_ms)
            if known is not None:
                return Sent(known.id, known.number, digest, by_attributes, by_trace)
        # A delay of 0 is the sender's word in a standard queue, and none in a FIFO queue. Source: recorded.
        delay_s = queue.delay_s if entry.delay_s is None or queue.is_fifo else entry.delay_s
        more = More(
            attributes={name: (kind, value) for name, (kind, value) in entry.attributes.items()},
            group=entry.group or "",
            duplicate=duplicate,
            sender=sender,
            trace=entry.trace or "",
        )
        message_id = self._draw()
        group = entry.group if queue.is_fifo else None
        new = New(message_id, body, _pack(more), now_ms, now_ms, now_ms + delay_s * 1000, group)
        (number,) = self._store.add([new])
        if queue.is_fifo:
            self._store.forget(now_ms)
            self._store.remember(key, now_ms + limits.DEDUPLICATION_MS, Recent(number, message_id))
        return Sent(message_id, number, digest, by_attributes, by_trace)

    def _new(self, terms: Terms, moved: Moved) -> New:
        """A message that comes from another queue.

        A dead letter stays what it is, and keeps its age, but for FIFO queues. One that is moved back is a new message.
        Source: recorded; documented: dead-letter queues, dead-letter queue redrive.
        """
        message, now_ms, queue = moved.message, terms.now_ms, terms.facts
        state, more = message.state, _unpack(message.more)
        group = more.group if queue.is_fifo else None
        origin = bytes.fromhex(moved.source) + state.number.to_bytes(8, "big")
        more = msgspec.structs.replace(more, source=moved.dead_of)
        if not moved.dead_of:
            return New(self._draw(), message.body, _pack(more), now_ms, now_ms, now_ms, group, origin)
        aged_ms = now_ms if queue.is_fifo else state.aged_ms
        times = (state.sent_ms, aged_ms, now_ms)
        return New(message.id, message.body, _pack(more), *times, group, origin, state.receives, state.first_ms)

    # ------------------------------------------------------------------ receiving

    def _receive(self, terms: Terms, ask: Receive) -> Received:
        again = self._again(terms, ask)
        if again is not None:
            return again
        find = self._in_order if terms.facts.is_fifo else self._any
        messages, aside = find(terms, self._places(terms, ask.limit), self._until_ms(terms, ask), self._most_aside)
        self._in_flight_at_most += len(messages)
        self._has_buried = bool(aside)
        self._most_aside = max(1, self._most_aside - len(aside))
        if ask.attempt and messages:
            self._remember(terms, ask.attempt, messages)
        return Received([_delivered(each) for each in messages], aside)

    def _any(self, terms: Terms, limit: int, until_ms: int, most: int) -> tuple[list[Message], list[Message]]:
        """Messages of a standard queue, and those that are dead letters."""
        found: list[Message] = []
        aside: list[Message] = []
        seen: set[int] = set()
        while (places := min(limit - len(found), most - len(aside))) > 0:
            # What was received and stays visible is found again.
            rows = self._store.visible(terms.now_ms, places + (len(found) if until_ms <= terms.now_ms else 0))
            fresh = [each for each in rows if each.state.number not in seen][:places]
            if not fresh:
                break
            seen.update(each.state.number for each in fresh)
            self._deal(terms, fresh, until_ms, found, aside)
        return found, aside

    def _in_order(self, terms: Terms, limit: int, until_ms: int, most: int) -> tuple[list[Message], list[Message]]:
        """Messages of a FIFO queue: as many of one group as there are, then of the next."""
        found: list[Message] = []
        aside: list[Message] = []
        seen: set[int] = set()
        while len(found) < limit and len(aside) < most:
            groups = [each for each in self._store.ready(terms.now_ms, limit + len(seen)) if each not in seen]
            if not groups:
                break
            for grouped in groups:
                if len(found) >= limit or len(aside) >= most:
                    break
                seen.add(grouped)
                self._of_group(terms, grouped, (limit, most), until_ms, found, aside)
        return found, aside

    def _of_group(
        self,
        terms: Terms,
        grouped: int,
        most: tuple[int, int],
        until_ms: int,
        found: list[Message],
        aside: list[Message],
    ) -> None:
        """From the oldest on, up to the first that is hidden."""
        after = 0
        while (places := min(most[0] - len(found), most[1] - len(aside))) > 0:
            rows = self._store.oldest_of(grouped, after, places)
            line = rows[: next((i for i, row in enumerate(rows) if row.state.visible_ms > terms.now_ms), len(rows))]
            if line:
                after = line[-1].state.number
                self._deal(terms, line, until_ms, found, aside)
            if len(line) < len(rows) or not rows:
                break
        self._store.regroup([grouped], terms.now_ms, served=True)

    def _deal(
        self, terms: Terms, rows: Sequence[Message], until_ms: int, found: list[Message], aside: list[Message]
    ) -> None:
        """Receive messages, or set them aside where they were received too often."""
        most, now_ms = terms.max_receives, terms.now_ms
        changed: list[State] = []
        for row in rows:
            state = row.state
            if most is not None and state.receives >= most:
                changed.append(state._replace(visible_ms=ASIDE_MS))
                aside.append(row)
                continue
            state = state._replace(
                visible_ms=until_ms, receives=state.receives + 1, first_ms=state.first_ms or now_ms, received_ms=now_ms
            )
            changed.append(state)
            found.append(row._replace(state=state))
        self._store.hide(changed)

    def _until_ms(self, terms: Terms, ask: Receive) -> int:
        seconds = terms.facts.visibility_s if ask.visibility_s is None else ask.visibility_s
        if seconds < ask.needed_s:
            seconds = ask.instead_s
        return terms.now_ms + seconds * 1000

    def _places(self, terms: Terms, limit: int) -> int:
        """How many messages may be received; a FIFO queue that is full gives nothing. Source: documented.

        Raises:
            OverLimit: a standard queue has the most in flight that there may be.
        """
        if self._store.count < limits.IN_FLIGHT:
            return limit
        if not self._has_counted or self._in_flight_at_most + limit > limits.IN_FLIGHT:  # counting those costs
            self._in_flight_at_most = self._store.counts(terms.now_ms).in_flight
            self._has_counted = True
        free = limits.IN_FLIGHT - self._in_flight_at_most
        if free <= 0 and not terms.facts.is_fifo:
            raise OverLimit(
                f"{limits.IN_FLIGHT} messages of the queue are in flight, which is the most there may be. "
                "Delete messages, or wait until their visibility timeout is over."
            )
        return max(0, min(limit, free))

    def _again(self, terms: Terms, ask: Receive) -> Received | None:
        """The messages of a receive that is repeated; None: it is none, or they are not as they were.

        Source: documented: ReceiveMessage, ReceiveRequestAttemptId.
        """
        attempt = self._attempts.get(ask.attempt) if ask.attempt else None
        if attempt is None or attempt.until_ms <= terms.now_ms:
            return None
        found = [self._store.read(each.number) for each in attempt.deliveries]
        messages: list[Message] = []
        for delivery, message in zip(attempt.deliveries, found, strict=True):
            if message is None or message.state.receives != delivery.receives:
                return None
            if not terms.now_ms < message.state.visible_ms < ASIDE_MS:
                return None
            messages.append(message._replace(state=message.state._replace(visible_ms=self._until_ms(terms, ask))))
        self._store.hide([each.state for each in messages])
        self._regroup(terms, (each.state for each in messages))
        return Received([_delivered(each) for each in messages])

    def _remember(self, terms: Terms, attempt: str, messages: Sequence[Message]) -> None:
        if not terms.facts.is_fifo:
            return  # Source: documented: it is for FIFO queues
        if len(self._attempts) >= _ATTEMPTS:
            self._attempts = {key: each for key, each in self._attempts.items() if each.until_ms > terms.now_ms}
            while len(self._attempts) >= _ATTEMPTS:
                del self._attempts[next(iter(self._attempts))]
        deliveries = [Delivery(each.state.number, each.state.receives) for each in messages]
        self._attempts[attempt] = _Attempt(terms.now_ms + limits.DEDUPLICATION_MS, deliveries)

    # ------------------------------------------------------------------ settling

    def _delete(self, terms: Terms, delivery: Delivery) -> SqsError | None:
        """A standard queue deletes by whatever handle; a FIFO queue by that of the delivery that is in flight.

        Source: recorded; chosen: that an older handle of a standard queue deletes too.
        """
        if not terms.facts.is_fifo:
            self._store.remove([delivery.number])
            return None
        state = self._store.find(delivery.number)
        if state is None:
            return None
        if state.receives != delivery.receives or not terms.now_ms < state.visible_ms < ASIDE_MS:
            return invalid(delivery.handle, "ReceiptHandle", "The receipt handle has expired.")
        self._store.remove([state.number])
        self._regroup(terms, (state,))
        return None

    def _hide(self, terms: Terms, delivery: Delivery, seconds: int) -> SqsError | None:
        """Source: recorded; chosen: that only the last delivery's handle will do, and that 12 hours count from it."""
        state = self._store.find(delivery.number)
        if (
            state is None
            or state.receives != delivery.receives
            or state.visible_ms == ASIDE_MS
            or (terms.facts.is_fifo and state.visible_ms <= terms.now_ms)
        ):
            return invalid(delivery.handle, "ReceiptHandle", _NO_CHANGE)
        elapsed_s = max(0, terms.now_ms - state.received_ms) // 1000
        if elapsed_s + seconds > limits.VISIBILITY_S:
            reason = f"Total VisibilityTimeout for the message is beyond the limit [{limits.VISIBILITY_S} seconds]"
            return invalid(seconds, "VisibilityTimeout", reason)
        self._store.hide([state._replace(visible_ms=terms.now_ms + seconds * 1000)])
        self._has_counted = False
        self._regroup(terms, (state,))
        return None

    def _give_back(self, terms: Terms, deliveries: Sequence[Delivery]) -> None:
        for each in deliveries:
            state = self._store.find(each.number)
            if state is None or state.receives != each.receives or state.visible_ms == ASIDE_MS:
                continue
            is_first = state.receives == 1
            before = state._replace(
                visible_ms=terms.now_ms,
                receives=state.receives - 1,
                first_ms=0 if is_first else state.first_ms,
                received_ms=0 if is_first else state.received_ms,
            )
            self._store.hide([before])
            self._regroup(terms, (state,))

    # ------------------------------------------------------------------ moving

    def _set_aside(self, terms: Terms, limit: int) -> list[Message]:
        """Messages that may be received, in the order in which they would be."""
        find = self._in_order if terms.facts.is_fifo else self._any
        return find(terms._replace(max_receives=0), limit, ASIDE_MS, limit)[1]

    def _let_go(self, terms: Terms, numbers: Sequence[int]) -> None:
        states = [state for number in numbers if (state := self._store.find(number)) is not None]
        self._store.remove([state.number for state in states])
        self._regroup(terms, states)

    def _return(self, terms: Terms, numbers: Sequence[int]) -> None:
        states = [state for number in numbers if (state := self._store.find(number)) is not None]
        self._store.hide([state._replace(visible_ms=terms.now_ms) for state in states])
        self._regroup(terms, states)

    def _regroup(self, terms: Terms, states: Iterable[State]) -> None:
        if terms.facts.is_fifo:
            groups = {state.grouped for state in states if state.grouped is not None}
            self._store.regroup(groups, terms.now_ms)


def may_bring(terms: Terms, ask: Ask) -> bool:
    """Whether an ask may make a message visible to somebody who waits."""
    if isinstance(ask, Return):
        return not ask.are_dead
    return isinstance(ask, Send | Hide | GiveBack | Accept) or (isinstance(ask, Delete) and terms.facts.is_fifo)


def source_of(message: Message) -> str:
    """ARN of the queue whose dead letter a message is; empty: none's."""
    return _unpack(message.more).source


def _delivered(message: Message) -> Delivered:
    return Delivered(message, _unpack(message.more), digests.of_body(message.body))
