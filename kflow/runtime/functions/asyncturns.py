"""Turns at the file of asynchronous invocations: what has changed is kept, and what is due is begun.

    change ---+
              +--> a turn, in a thread, one at a time --> durable: those who asked are told
    a timer --+                                       --> due: begun, and busy until a change says what became of it

All that has come together goes into one turn. What the disk refuses is written later, and who waits is told; a file
that is damaged is tried again with the next change alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

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
from kflow.errors import Damaged, KflowError
from kflow.interfaces import Cancellable, Done
from kflow.lambda_.control.host import Host
from kflow.runtime.streams.kinesis_host import guarded

HELD_BYTES: Final = 64 << 20
"""Payloads in memory; beyond that one event of each lane."""
STORAGE_S: Final = 1.0
"""What the disk refuses is tried again this much later."""


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


class Turns:
    """Belongs to the loop's thread.

    Args:
        host: folder, threads and timers.
        begin: told an event that is due, and its lane: a function's ARN, or `TELLING`.
        most: how many events of a lane may be busy at once.
    """

    def __init__(self, host: Host, begin: Callable[[str, Event], object], most: Callable[[str], int]) -> None:
        self._host = host
        self._begin = begin
        self._most = most
        self._path = host.folder.path / FILE_NAME
        self._file: EventFile | None = None
        self._lanes: dict[str, _Lane] = {}
        self._where: dict[int, str] = {}  # lanes of what is busy, by number
        self._held = 0
        self._changes: list[tuple[Change, Done | None]] = []
        self._is_busy = False
        self._timer: Cancellable | None = None
        self._has_trouble = False
        self._closing: list[Callable[[], object]] = []

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

    def change(self, change: Change, told: Done | None = None) -> None:
        """Keep a change; `told` is called when it is durable, or with why it is not, and did not happen."""
        self._changes.append((change, told))
        self._go()

    def close(self, then: Callable[[], object]) -> None:
        """Keep what is to be kept, begin nothing more, and call back."""
        self._closing.append(then)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._go()

    # ------------------------------------------------------------------ a turn

    def _lane(self, name: str) -> _Lane:
        found = self._lanes.get(name)
        if found is None:
            found = self._lanes[name] = _Lane()
        return found

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
        return 1 if self._held >= HELD_BYTES else self._most(name)

    def _over(
        self, changes: list[tuple[Change, Done | None]], looked: list[str], result: dict[str, Found] | KflowError
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
            self._begin(name, event)
        self._is_busy = False
        self._go()

    def _left(self, change: Change) -> None:
        """An event is not busy any more."""
        if not isinstance(change, Again | Over | Drop):
            return
        name = self._where.pop(change.number, None)
        if name is not None:
            self._held -= self._lanes[name].busy.pop(change.number)

    def _refused(self, changes: list[tuple[Change, Done | None]], failure: KflowError) -> None:
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
        elif isinstance(failure, Damaged):  # time mends nothing: who comes next is told
            self._is_busy = False
            if any(told is not None for _, told in self._changes):
                self._go()
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
