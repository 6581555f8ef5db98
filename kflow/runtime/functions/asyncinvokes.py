"""Runs asynchronous invocations: as many of a function at once as may be, again where they fail, until they are over.

    accept --a turn in a thread--> durable, due --> run --+--> again, over, or dropped --the next turn--> ...
                                        ^                 |
                                        +--one timer------+

Payloads are on the disk; in memory are those that run. What a turn changes is kept as a whole, so a kill leaves each
event as it was before its attempt or after it: it is run once more where nobody can tell. Nothing happens while nothing
is due.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from kflow.broker.asyncevents import TELLING, Add, Again, Clear, Drop, Event, Over
from kflow.errors import AwsError, KflowError, UsageError
from kflow.interfaces import Done
from kflow.lambda_ import destined
from kflow.lambda_.asynchronous import Answered, End, Functions, Gone, Policy, Retry, Tried, after, before
from kflow.lambda_.control.host import Host
from kflow.lambda_.destined import Delivery
from kflow.lambda_.errors import ResourceNotFound
from kflow.lambda_.fleet import Fleet, Reply, Request
from kflow.runtime.functions.asyncturns import Turns

log = logging.getLogger(__name__)

AT_ONCE: Final = 16
"""So many events of a function run or wait for a place, and so many are told of, at once."""
TELL_TRIES: Final = 6
TELL_S: Final = 0.2
"""Before a second try to tell; doubled before each further one (chosen)."""
_HINTS: Final = 100

Send = Callable[[Delivery, Done], object]
"""Send something; told None when whoever gets it keeps it."""


class _Note(msgspec.Struct, frozen=True):
    """What is still to be sent."""

    left: list[Delivery]


_ANSWERED: Final = msgspec.json.Decoder(Answered)
_NOTES: Final = msgspec.json.Decoder(_Note)


class AsyncInvokes:
    """A `kflow.lambda_.asynchronous.Accepts`. Belongs to the loop's thread.

    Args:
        host: folder, threads and timers.
        fleet: runs functions.
        functions: knows what holds for each.
        send: to destinations and dead-letter queues.
        scale: of the waits between attempts.

    Attributes:
        counted: told of a function's events, by CloudWatch's name of what became of them.
    """

    def __init__(self, host: Host, fleet: Fleet, functions: Functions, send: Send, scale: float) -> None:
        self._host = host
        self._fleet = fleet
        self._functions = functions
        self._send = send
        self._scale = scale
        self._hinted: set[str] = set()
        self._turns = Turns(host, self._begin, self._most)
        self.counted: Callable[[str, str], object] = lambda _function, _name: None

    @property
    def is_there(self) -> bool:
        """Whether any event was ever taken in."""
        return self._turns.is_there

    def start(self) -> None:
        """Go on with what an earlier runtime has left."""
        self._turns.start()

    def accept(self, function: str, qualifier: str, request_id: bytes, payload: bytes, told: Done) -> None:
        """See `Accepts`."""
        self.counted(function, "AsyncEventsReceived")
        event = Event(0, function, qualifier, request_id, self._host.now_ms(), 0, 0, b"", payload)
        self._turns.change(Add(event), told)

    def clear(self, then: Callable[[], object]) -> None:
        """Forget all events; calls back when that is kept."""
        if self.is_there:
            self._turns.change(Clear(), lambda _: then())
        else:
            then()

    def close(self, then: Callable[[], object]) -> None:
        """Keep what is to be kept, run nothing more, and call back."""
        self._turns.close(then)

    def _most(self, lane: str) -> int:
        """So many events of a function run or wait for a place at once; or so many are told of."""
        if lane == TELLING:
            return AT_ONCE
        try:
            most = self._functions.policy(lane, "").most
        except KflowError:
            return AT_ONCE
        return AT_ONCE if most is None else max(1, min(most, AT_ONCE))

    def _begin(self, lane: str, event: Event) -> None:
        if lane == TELLING:
            self._tell(event)
        else:
            self._run(event)

    # ------------------------------------------------------------------ one event

    def _run(self, event: Event) -> None:
        try:
            policy = self._functions.policy(event.function, event.qualifier)
        except KflowError as error:
            self._gone(event, error)
            return
        last = _ANSWERED.decode(event.note) if event.note else None
        tried = Tried(event.received_ms, event.attempts, event.refusals, last)
        end = before(tried, policy, self._host.now_ms())
        if end is not None:
            self._ended(event, policy, end)
            return
        request = Request(request_id=event.id, payload=event.payload, arn=policy.arn)
        self._fleet.invoke(policy.key, request, partial(self._replied, event, policy, tried))

    def _replied(self, event: Event, policy: Policy, tried: Tried, reply: Reply | KflowError) -> None:
        found = after(tried, reply, policy, self._host.now_ms(), self._scale)
        if isinstance(found, End):
            self._ended(event, policy, found)
        elif isinstance(found, Retry):
            note = b"" if found.last is None else msgspec.json.encode(found.last)
            self._turns.change(Again(event.number, found.due_ms, found.attempts, found.refusals, note))
        else:
            assert isinstance(found, Gone)
            assert isinstance(reply, KflowError)
            self._gone(event, reply)

    def _gone(self, event: Event, error: KflowError) -> None:
        """There is no such function, or version, or alias, any more."""
        if not isinstance(error, ResourceNotFound):
            log.error("an event is dropped function=%s error=%r", event.function, error)
        self._hint(event.function, f"events for {event.function} are dropped: {error}")
        self._turns.change(Drop(event.number))

    def _ended(self, event: Event, policy: Policy, end: End) -> None:
        """Note who is to be told, if anybody is."""
        told = policy.on_success if end.is_success else policy.on_failure
        dead = "" if end.is_success else policy.dead_letter
        if not end.is_success:
            self.counted(event.function, "AsyncEventsDropped")
        if not told and not dead:
            if not end.is_success:
                log.info("an event was given up function=%s condition=%s", event.function, end.condition)
            self._turns.change(Drop(event.number))
            return
        now_ms = self._host.now_ms()

        def note() -> bytes:
            left = []
            if told:
                left.append(_delivery(event, policy, end, told, now_ms))
            if dead:
                left.append(destined.dead_letter(end, request_id=event.id, arn=dead, payload=event.payload))
            return msgspec.json.encode(_Note(left))

        def noted(found: bytes | KflowError) -> None:
            if isinstance(found, KflowError):
                self._hint(event.function, f"nobody is told what events for {event.function} came to: {found}")
                self._turns.change(Drop(event.number))
            else:
                self._turns.change(Over(event.number, end.attempts, found))

        self._host.submit(note, noted)

    def _tell(self, event: Event) -> None:
        """Send the first of what is left to send. Both may be of megabytes: they are read in a thread."""

        def work() -> tuple[Delivery, bytes]:
            first, *rest = _NOTES.decode(event.note).left
            return first, msgspec.json.encode(_Note(rest)) if rest else b""

        def read(found: tuple[Delivery, bytes] | KflowError) -> None:
            if isinstance(found, KflowError):
                log.error("an event is dropped function=%s error=%r", event.function, found)
                self._turns.change(Drop(event.number))
            else:
                self._send(found[0], partial(self._sent, event, *found))

        self._host.submit(work, read)

    def _sent(self, event: Event, delivery: Delivery, rest: bytes, failure: KflowError | None) -> None:
        if failure is not None and _passes(failure) and event.refusals + 1 < TELL_TRIES:
            due_ms = self._host.now_ms() + int(TELL_S * 2**event.refusals * 1000)
            self._turns.change(Again(event.number, due_ms, event.attempts, event.refusals + 1, event.note))
            return
        if failure is not None:
            log.warning("not told target=%s function=%s error=%s", delivery.target, event.function, failure)
            self.counted(event.function, "DeadLetterErrors" if delivery.attributes else "DestinationDeliveryFailures")
            text = f"what invocations of {event.function} come to is not told to {delivery.target}: {failure}"
            self._hint(delivery.target, text)
        self._turns.change(Over(event.number, event.attempts, rest) if rest else Drop(event.number))

    def _hint(self, about: str, text: str) -> None:
        if about not in self._hinted and len(self._hinted) < _HINTS:
            self._hinted.add(about)
            self._host.notice("warning", text)


def _passes(failure: KflowError) -> bool:
    """Whether a refusal may pass."""
    if isinstance(failure, UsageError):
        return False
    return not isinstance(failure, AwsError) or not failure.sender_fault or "Thrott" in failure.code


def _delivery(event: Event, policy: Policy, end: End, told: str, now_ms: int) -> Delivery:
    """In a thread: the document of an invocation, which may hold megabytes."""
    body = destined.document(end, request_id=event.id, arn=policy.arn, payload=event.payload, now_ms=now_ms)
    is_object = destined.target(told).service == "s3"
    name = event.function.rpartition(":")[2]
    key = destined.object_key(name, now_ms, str(uuid.uuid4())) if is_object else ""
    return Delivery(target=told, body=body, key=key)
