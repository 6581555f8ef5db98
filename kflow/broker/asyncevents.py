"""Asynchronous invocations in a file: what was acknowledged and is not over, by the function that is to be run.

    added --due--> run --+--> dropped: it is over, and nobody is told
                         +--> due again: a retry
                         +--> over, with a note: whoever is to be told of it has not been yet --> dropped

With `always` a turn is durable when it ends; else a loss of power may take back the last turns. A kill takes back none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from kflow.broker.tablefile import TableFile

FILE_NAME: Final = "lambda/events.db"
TELLING: Final = ""
"""The lane of events that are over, and of which somebody is to be told."""
_SCHEMA: Final = """
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, lane TEXT NOT NULL, due_ms INTEGER NOT NULL, function TEXT NOT NULL,
    qualifier TEXT NOT NULL, id BLOB NOT NULL, received_ms INTEGER NOT NULL, attempts INTEGER NOT NULL,
    refusals INTEGER NOT NULL, note BLOB NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX by_due ON events (lane, due_ms);
"""
_COLUMNS: Final = "number, function, qualifier, id, received_ms, attempts, refusals, note, payload"


class Event(NamedTuple):
    """One asynchronous invocation.

    Attributes:
        number: its own in the file; 0 where it is not in it yet.
        function: ARN of the function, without a qualifier.
        qualifier: as the caller gave it; empty for none.
        id: of the request, 16 bytes: the same one at each attempt.
        received_ms: when it was taken in, milliseconds since the epoch.
        attempts: how often the function has failed with it.
        refusals: how often in a row it could not be run.
        note: what it came to, last time or for good; empty: nothing yet.
        payload: the event, JSON text.
    """

    number: int
    function: str
    qualifier: str
    id: bytes
    received_ms: int
    attempts: int
    refusals: int
    note: bytes
    payload: bytes


class Add(NamedTuple):
    """Take one in; it is due at once."""

    event: Event


class Again(NamedTuple):
    """It is to be run again, or somebody is to be told of it again.

    Attributes:
        due_ms: from when on.
        note: what it came to this time.
    """

    number: int
    due_ms: int
    attempts: int
    refusals: int
    note: bytes


class Over(NamedTuple):
    """It is over, and somebody is to be told, at once.

    Attributes:
        attempts: how often the function was run with it.
        note: what it came to.
    """

    number: int
    attempts: int
    note: bytes


class Drop(NamedTuple):
    """Nothing is to be done about it any more."""

    number: int


class Clear(NamedTuple):
    """Drop all there are."""


Change = Add | Again | Over | Drop | Clear


class Wanted(NamedTuple):
    """What of a lane is asked for.

    Attributes:
        most: so many events.
        busy: numbers of those that are being seen to.
    """

    most: int
    busy: Collection[int]


class Found(NamedTuple):
    """What there is in a lane.

    Attributes:
        events: that are due, the longest first.
        next_ms: when the next one is due that is neither among them nor busy; None: there is none.
    """

    events: Sequence[Event]
    next_ms: int | None


class EventFile(TableFile):
    """Used by one thread at a time. Made where it is missing.

    Raises:
        StorageError: it cannot be opened.
        Damaged: it is no such file any more.
    """

    _WHAT = "file of asynchronous invocations"
    _COUNTED = "events"
    _OTHER_VERSION = "use that one, or remove the file; the invocations in it are lost with it"
    _DAMAGED = "remove it; the invocations in it are lost"

    def __init__(self, path: str, fsync: str) -> None:
        super().__init__(path, fsync=fsync, make=lambda: self._create(_SCHEMA), may_begin=True)

    def lanes(self) -> list[str]:
        """Those in which something is."""
        with self._said("read"):
            return [lane for (lane,) in self._sql.execute("SELECT DISTINCT lane FROM events")]

    def take(self, changes: Sequence[Change], wanted: Mapping[str, Wanted], now_ms: int) -> dict[str, Found]:
        """Keep changes, all or none of them, and look what is due in some lanes.

        Raises:
            StorageError: nothing was changed.
        """
        # Looked at within the turn: where that fails, the changes must not be kept, for their caller is refused.
        with self.turn() if changes else self._said("read"):
            for change in changes:
                self._change(change, now_ms)
            return {lane: self._find(lane, each, now_ms) for lane, each in wanted.items()}

    def _change(self, change: Change, now_ms: int) -> None:
        match change:
            case Add(event):
                self._sql.execute(
                    "INSERT INTO events (lane, due_ms, function, qualifier, id, received_ms, attempts, refusals, note, "
                    "payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (event.function, now_ms, *event[1:]),
                )
                self.count += 1
            case Again(number, due_ms, attempts, refusals, note):
                self._sql.execute(
                    "UPDATE events SET due_ms = ?, attempts = ?, refusals = ?, note = ? WHERE number = ?",
                    (due_ms, attempts, refusals, note, number),
                )
            case Over(number, attempts, note):
                self._sql.execute(
                    "UPDATE events SET lane = ?, due_ms = ?, attempts = ?, refusals = 0, note = ? WHERE number = ?",
                    (TELLING, now_ms, attempts, note, number),
                )
            case Drop(number):
                self.count -= self._sql.execute("DELETE FROM events WHERE number = ?", (number,)).rowcount
            case Clear():
                self._sql.execute("DELETE FROM events")
                self.count = 0

    def _find(self, lane: str, wanted: Wanted, now_ms: int) -> Found:
        rows = self._sql.execute(
            "SELECT number, due_ms FROM events WHERE lane = ? ORDER BY due_ms, number LIMIT ?",
            (lane, wanted.most + len(wanted.busy) + 1),
        )
        events: list[Event] = []
        for number, due_ms in rows.fetchall():
            if number in wanted.busy:
                continue
            if due_ms > now_ms or len(events) >= wanted.most:
                return Found(events, due_ms)
            row = self._sql.execute(f"SELECT {_COLUMNS} FROM events WHERE number = ?", (number,))  # noqa: S608  # constant
            events.append(Event(*row.fetchone()))
        return Found(events, None)
