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
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from kflow.broker.asyncevents import (
    FILE_NAME,
    TELLING,
    Add,
    Again,
    Change,
    Clear,
    Drop,
    Event,
    EventFile,
    Found,
    Over,
    Wanted,
)
from kflow.errors import AwsError, KflowError, UsageError
from kflow.interfaces import Cancellable
from kflow.lambda_ import destined
from kflow.lambda_.asynchronous import Answered, End, Functions, Gone, Policy, Retry, Tried, after, before
from kflow.lambda_.control.host import Host
from kflow.lambda_.destined import Delivery
from kflow.lambda_.errors import ResourceNotFound
from kflow.lambda_.fleet import Fleet, Reply, Request
from kflow.runtime.kinesis_host import guarded

log = logging.getLogger(__name__)

AT_ONCE: Final = 16
"""So many events of a function run or wait for a place, and so many are told of, at once."""
HELD_BYTES: Final = 64 << 20
"""Payloads in memory; beyond that one event of each function."""
TELL_TRIES: Final = 6
TELL_S: Final = 0.2
"""Before a second try to tell; doubled before each further one (chosen)."""
STORAGE_S: Final = 1.0
"""What the disk refuses is tried again this much later."""
_HINTS: Final = 100

Told = Callable[[KflowError | None], object]
Send = Callable[[Delivery, Told], object]
"""Send something; told None when whoever gets it keeps it."""


class _Note(msgspec.Struct, frozen=True):
    """What is still to be sent."""

    left: list[Delivery]


_ANSWERED: Final = msgspec.json.Decoder(Answered)
_NOTES: Final = msgspec.json.Decoder(_Note)


@dataclass(slots=True)
class _Lane:
    """The events of a function, or those that are over and to be told of.

    Attributes:
        busy: bytes of the events that are being seen to, by number.
        next_ms: when the next of the others is due; None: there are none.
        is_news: that may be wrong: look.
    """

    busy: dict[int, int] = field(default_factory=dict)
    next_ms: int | None = None
    is_news: bool = True


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
        self._path = host.folder.path / FILE_NAME
        self._file: EventFile | None = None
        self._lanes: dict[str, _Lane] = {}
        self._where: dict[int, str] = {}  # lanes of what is busy, by number
        self._held = 0
        self._changes: list[tuple[Change, Told | None]] = []
        self._is_busy = False
        self._timer: Cancellable | None = None
        self._hinted: set[str] = set()
        self._has_trouble = False
        self._closing: list[Callable[[], object]] = []
        self.counted: Callable[[str, str], object] = lambda _function, _name: None

    @property
    def is_there(self) -> bool:
        """Whether any event was ever taken in."""
        return self._file is not None or self._host.folder.files.exists(os.fspath(self._path))

    def start(self) -> None:
        """Go on with what an earlier runtime has left."""
        if not self.is_there:
            return

        def opened(lanes: list[str] | KflowError) -> None:
            if isinstance(lanes, KflowError):
                self._host.notice("error", f"asynchronous invocations are not run: {lanes}")
                return
            for lane in lanes:
                self._lane(lane)
            self._go()

        self._host.submit(lambda: self._opened().lanes(), opened)

    def accept(self, function: str, qualifier: str, request_id: bytes, payload: bytes, told: Told) -> None:
        """See `Accepts`."""
        self.counted(function, "AsyncEventsReceived")
        event = Event(0, function, qualifier, request_id, self._host.now_ms(), 0, 0, b"", payload)
        self._change(Add(event), told)

    def clear(self, then: Callable[[], object]) -> None:
        """Forget all events; calls back when that is kept."""
        if self.is_there:
            self._change(Clear(), lambda _: then())
        else:
            then()

    def close(self, then: Callable[[], object]) -> None:
        """Keep what is to be kept, run nothing more, and call back."""
        self._closing.append(then)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._go()

    # ------------------------------------------------------------------ turns

    def _lane(self, name: str) -> _Lane:
        found = self._lanes.get(name)
        if found is None:
            found = self._lanes[name] = _Lane()
        return found

    def _change(self, change: Change, told: Told | None = None) -> None:
        self._changes.append((change, told))
        self._go()

    def _go(self) -> None:
        """Take a turn, where none is taken and there is something to do."""
        if self._is_busy:
            return
        changes, self._changes = self._changes, []
        numbers = {change.number for change, _ in changes if isinstance(change, Again | Over | Drop)}
        for change, _ in changes:
            for name in _touched(change, self._where):
                self._lane(name).is_news = True
        wanted = {} if self._closing else self._wanted(numbers)
        if not changes and not wanted:
            self._rest()
            return
        self._is_busy = True
        now_ms = self._host.now_ms()

        def take() -> dict[str, Found]:
            return self._opened().take([change for change, _ in changes], wanted, now_ms)

        self._host.submit(take, partial(self._over, changes, list(wanted)))

    def _opened(self) -> EventFile:
        """In a thread, one at a time."""
        if self._file is None:
            folder = self._host.folder
            folder.files.make_folder(os.fspath(self._path.parent), sync=folder.syncs)
            self._file = EventFile(os.fspath(self._path), folder.fsync)
        return self._file

    def _wanted(self, leaving: set[int]) -> dict[str, Wanted]:
        """What is asked for, when some of those that are busy leave with this turn."""
        found = {}
        now_ms = self._host.now_ms()
        for name, lane in self._lanes.items():
            if not lane.is_news and (lane.next_ms is None or lane.next_ms > now_ms):
                continue
            busy = lane.busy.keys() - leaving
            room = self._room(name) - len(busy)
            if room > 0:
                found[name] = Wanted(room, busy)
        return found

    def _room(self, name: str) -> int:
        """So many of a lane may be busy at once."""
        if self._held >= HELD_BYTES:
            return 1
        if name == TELLING:
            return AT_ONCE
        try:
            most = self._functions.policy(name, "").most
        except KflowError:
            return AT_ONCE
        return AT_ONCE if most is None else max(1, min(most, AT_ONCE))

    def _over(
        self, changes: list[tuple[Change, Told | None]], looked: list[str], result: dict[str, Found] | KflowError
    ) -> None:
        if isinstance(result, KflowError):
            self._refused(changes, result)
            return
        if self._has_trouble:
            self._has_trouble = False
            self._host.notice("info", "asynchronous invocations go on, the storage works again")
        for change, _ in changes:
            self._left(change)
        for name in looked:
            lane = self._lane(name)
            lane.is_news = False
            lane.next_ms = result[name].next_ms
        # Where the node ends meanwhile, the next one runs them.
        begin = [] if self._closing else [(name, event) for name in looked for event in result[name].events]
        for name, event in begin:
            self._lane(name).busy[event.number] = len(event.payload)
            self._where[event.number] = name
            self._held += len(event.payload)
        for _, told in changes:
            if told is not None:
                guarded(told)(None)
        for name, event in begin:
            if name == TELLING:
                self._tell(event)
            else:
                self._run(event)
        self._is_busy = False
        self._go()

    def _left(self, change: Change) -> None:
        """An event is not busy any more."""
        if not isinstance(change, Again | Over | Drop):
            return
        name = self._where.pop(change.number, None)
        if name is not None:
            self._held -= self._lanes[name].busy.pop(change.number)

    def _refused(self, changes: list[tuple[Change, Told | None]], failure: KflowError) -> None:
        """Nothing was kept: who waits is told, and what is known of events is written later."""
        kept = [(change, told) for change, told in changes if isinstance(change, Again | Over | Drop)]
        if not self._has_trouble:
            self._has_trouble = True
            self._host.notice("error", f"asynchronous invocations wait for the storage: {failure}")
        self._changes = kept + self._changes
        for change, told in changes:
            if isinstance(change, Add | Clear) and told is not None:
                told(failure)
        if self._closing:  # the next runtime runs them once more
            self._changes.clear()
            self._is_busy = False
            self._rest()
        else:
            self._host.call_later(STORAGE_S, self._again)

    def _again(self) -> None:
        self._is_busy = False
        self._go()

    def _rest(self) -> None:
        """Nothing is to be done now: see to the one timer, or end."""
        if self._closing:
            self._put_away()
            return
        for name in [name for name, lane in self._lanes.items() if not lane.busy and lane.next_ms is None]:
            if not self._lanes[name].is_news:
                del self._lanes[name]
        due = [lane.next_ms for name, lane in self._lanes.items() if lane.next_ms is not None and self._has_room(name)]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due:
            seconds = max(0, min(due) - self._host.now_ms()) / 1000 + 0.001
            self._timer = self._host.call_later(seconds, self._on_time)

    def _has_room(self, name: str) -> bool:
        busy = self._lanes[name].busy
        return not busy or len(busy) < self._room(name)

    def _on_time(self) -> None:
        self._timer = None
        self._go()

    def _put_away(self) -> None:
        file, self._file = self._file, None
        closing, self._closing = self._closing, []
        self._is_busy = True  # for good

        def over(_: object) -> None:
            for then in closing:
                then()

        if file is None:
            over(None)
        else:
            self._host.submit(file.close, over)

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
            self._change(Again(event.number, found.due_ms, found.attempts, found.refusals, note))
        else:
            assert isinstance(found, Gone)
            assert isinstance(reply, KflowError)
            self._gone(event, reply)

    def _gone(self, event: Event, error: KflowError) -> None:
        """There is no such function, or version, or alias, any more."""
        if not isinstance(error, ResourceNotFound):
            log.error("an event is dropped function=%s error=%r", event.function, error)
        self._hint(event.function, f"events for {event.function} are dropped: {error}")
        self._change(Drop(event.number))

    def _ended(self, event: Event, policy: Policy, end: End) -> None:
        """Note who is to be told, if anybody is."""
        told = policy.on_success if end.is_success else policy.on_failure
        dead = "" if end.is_success else policy.dead_letter
        if not end.is_success:
            self.counted(event.function, "AsyncEventsDropped")
        if not told and not dead:
            if not end.is_success:
                log.info("an event was given up function=%s condition=%s", event.function, end.condition)
            self._change(Drop(event.number))
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
                self._change(Drop(event.number))
            else:
                self._change(Over(event.number, end.attempts, found))

        self._host.submit(note, noted)

    def _tell(self, event: Event) -> None:
        """Send the first of what is left to send. Both may be of megabytes: they are read in a thread."""

        def work() -> tuple[Delivery, bytes]:
            first, *rest = _NOTES.decode(event.note).left
            return first, msgspec.json.encode(_Note(rest)) if rest else b""

        def read(found: tuple[Delivery, bytes] | KflowError) -> None:
            if isinstance(found, KflowError):
                log.error("an event is dropped function=%s error=%r", event.function, found)
                self._change(Drop(event.number))
            else:
                self._send(found[0], partial(self._sent, event, *found))

        self._host.submit(work, read)

    def _sent(self, event: Event, delivery: Delivery, rest: bytes, failure: KflowError | None) -> None:
        if failure is not None and _passes(failure) and event.refusals + 1 < TELL_TRIES:
            due_ms = self._host.now_ms() + int(TELL_S * 2**event.refusals * 1000)
            self._change(Again(event.number, due_ms, event.attempts, event.refusals + 1, event.note))
            return
        if failure is not None:
            log.warning("not told target=%s function=%s error=%s", delivery.target, event.function, failure)
            self.counted(event.function, "DeadLetterErrors" if delivery.attributes else "DestinationDeliveryFailures")
            text = f"what invocations of {event.function} come to is not told to {delivery.target}: {failure}"
            self._hint(delivery.target, text)
        self._change(Over(event.number, event.attempts, rest) if rest else Drop(event.number))

    def _hint(self, about: str, text: str) -> None:
        if about not in self._hinted and len(self._hinted) < _HINTS:
            self._hinted.add(about)
            self._host.notice("warning", text)


def _touched(change: Change, where: dict[int, str]) -> tuple[str, ...]:
    """The lanes in which a change may make something due."""
    match change:
        case Add(event):
            return (event.function,)
        case Again(number) | Drop(number):
            return (where[number],) if number in where else ()
        case Over(number):
            return (TELLING, where[number]) if number in where else (TELLING,)
        case Clear():
            return tuple(set(where.values()))


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
