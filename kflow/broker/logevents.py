"""What CloudWatch Logs keeps beside the functions' own logs: groups and streams that were made, events that were put.

One SQLite file, `logs/cloudwatch.db`. Functions' groups have a row once something is kept of them: a retention, tags.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from kflow.broker.files import storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.tablefile import TableFile

FILE_NAME: Final = "cloudwatch.db"
_SCHEMA: Final = """
CREATE TABLE groups (
    number INTEGER PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, facts BLOB NOT NULL,
    UNIQUE (account, region, name)
);
CREATE TABLE streams (
    number INTEGER PRIMARY KEY, grouped INTEGER NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
    is_hidden INTEGER NOT NULL, first_ms INTEGER, last_ms INTEGER, taken_ms INTEGER, bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (grouped, name)
);
CREATE TABLE events (
    number INTEGER PRIMARY KEY, grouped INTEGER NOT NULL, stream INTEGER NOT NULL, ms INTEGER NOT NULL,
    taken_ms INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (grouped, ms, number);
CREATE INDEX events_by_stream ON events (stream, ms, number);
"""
_PAGE: Final = 1000
_LAST_MS: Final = (1 << 63) - 1
"""The greatest number that the file can tell from others."""
_COLUMNS: Final = (
    "SELECT e.number, s.name, e.ms, e.taken_ms, e.text FROM events e JOIN streams s ON s.number = e.stream WHERE "
)
_NEXT: Final = f" = ? AND (e.ms, e.number) > (?, ?) AND e.ms < ? ORDER BY e.ms, e.number LIMIT {_PAGE}"
_OF_GROUP: Final = f"{_COLUMNS}e.grouped{_NEXT}"
_OF_STREAM: Final = f"{_COLUMNS}e.stream{_NEXT}"
_LAST: Final = (
    f"{_COLUMNS}e.stream = ? AND (e.ms, e.number) < (?, ?) AND e.ms >= ? ORDER BY e.ms DESC, e.number DESC LIMIT ?"
)


class GroupFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a group.

    Attributes:
        created_ms: milliseconds since the epoch.
        retention_days: None: for ever.
        kind: the log group class.
        tags: by key.
        is_made: whether somebody made it; else it is a function's, of which something is kept.
        key: ARN of the key that is shown; empty: none.
        is_protected: whether it may not be deleted.
        emptied_ms: it was deleted then, and functions' logs have lines of it still: what is older is hidden.
    """

    created_ms: int
    retention_days: int | None = None
    kind: str = "STANDARD"
    tags: dict[str, str] = {}
    is_made: bool = True
    key: str = ""
    is_protected: bool = False
    emptied_ms: int = 0


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_read_facts = msgspec.json.Decoder(GroupFacts).decode


class StreamRow(NamedTuple):
    """A stream that was made or put to, or one of a function's that was deleted.

    Attributes:
        number: of the row.
        name: in its group.
        created_ms: milliseconds since the epoch, as all here.
        is_hidden: whether it is a function's, and was deleted.
        first_ms: of its first event; None: it has none.
        last_ms: of its last event.
        taken_ms: when the last was taken in.
        bytes: of its events.
    """

    number: int
    name: str
    created_ms: int
    is_hidden: bool
    first_ms: int | None
    last_ms: int | None
    taken_ms: int | None
    bytes: int


class EventRow(NamedTuple):
    """An event that was put."""

    number: int
    stream: str
    ms: int
    taken_ms: int
    text: str


class LogEvents(TableFile):
    """The file. Used by one thread at a time; what changes it stands within `turn`."""

    _WHAT = "log groups"
    _COUNTED = "groups"
    _OTHER_VERSION = "open it with that version, or remove it to begin anew"
    _DAMAGED = "remove it to begin anew: the functions' own logs are not in it"

    def __init__(self, folder: DataFolder) -> None:
        logs = os.fspath(folder.path / "logs")
        try:
            folder.files.make_folder(logs, sync=folder.syncs)
        except OSError as error:
            raise storage_error(error, f"make {logs}") from error
        super().__init__(
            os.path.join(logs, FILE_NAME),
            fsync=folder.fsync,
            make=lambda: self._create(_SCHEMA),
            may_begin=True,
        )

    # ------------------------------------------------------------------ groups

    def group(self, account: str, region: str, name: str) -> tuple[int, GroupFacts] | None:
        """Number and facts of a group; None: nothing is kept of it."""
        row = self._one(
            "SELECT number, facts FROM groups WHERE account = ? AND region = ? AND name = ?", account, region, name
        )
        return None if row is None else (row[0], _facts(row[1]))

    def groups(self, account: str, region: str) -> dict[str, GroupFacts]:
        """All of a place, by name."""
        rows = self._rows("SELECT name, facts FROM groups WHERE account = ? AND region = ?", account, region)
        return {name: _facts(facts) for name, facts in rows}

    def put_group(self, account: str, region: str, name: str, facts: GroupFacts) -> int:
        """Make it, or keep other facts of it; returns its number."""
        ((number,),) = self._sql.execute(
            "INSERT INTO groups (account, region, name, facts) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (account, region, name) DO UPDATE SET facts = excluded.facts RETURNING number",
            (account, region, name, msgspec.json.encode(facts)),
        ).fetchall()
        return int(number)

    def drop_group(self, group: int) -> None:
        """Remove it with all it holds."""
        for table, column in (("events", "grouped"), ("streams", "grouped"), ("groups", "number")):
            self._sql.execute(f"DELETE FROM {table} WHERE {column} = ?", (group,))  # noqa: S608  # constants

    def stored_bytes(self, group: int) -> int:
        """Of its events."""
        row = self._one("SELECT coalesce(sum(bytes), 0) FROM streams WHERE grouped = ?", group)
        return 0 if row is None else int(row[0])

    # ------------------------------------------------------------------ streams

    def stream(self, group: int, name: str) -> StreamRow | None:
        """One of a group's."""
        return next(self._streams("grouped = ? AND name = ?", group, name), None)

    def streams(self, group: int) -> Iterator[StreamRow]:
        """All of a group's."""
        return self._streams("grouped = ?", group)

    def _streams(self, where: str, *values: object) -> Iterator[StreamRow]:
        columns = "number, name, created_ms, is_hidden, first_ms, last_ms, taken_ms, bytes"
        for row in self._rows(f"SELECT {columns} FROM streams WHERE {where}", *values):  # noqa: S608  # constants
            yield StreamRow(row[0], row[1], row[2], bool(row[3]), *row[4:])

    def make_stream(self, group: int, name: str, now_ms: int, *, is_hidden: bool = False) -> int:
        """Make one, or hide a function's; returns its number."""
        ((number,),) = self._sql.execute(
            "INSERT INTO streams (grouped, name, created_ms, is_hidden) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (grouped, name) DO UPDATE SET is_hidden = excluded.is_hidden RETURNING number",
            (group, name, now_ms, is_hidden),
        ).fetchall()
        return int(number)

    def drop_stream(self, stream: int) -> None:
        """Remove one with its events."""
        self._sql.execute("DELETE FROM events WHERE stream = ?", (stream,))
        self._sql.execute("DELETE FROM streams WHERE number = ?", (stream,))

    # ------------------------------------------------------------------ events

    def put(self, group: int, stream: int, events: Iterable[tuple[int, str]], now_ms: int, size: int) -> None:
        """Add events, at least one.

        Args:
            group: number of the group.
            stream: number of the stream.
            events: times and texts, in order.
            now_ms: the time.
            size: bytes of them, as they are counted.
        """
        rows = [(group, stream, ms, now_ms, text) for ms, text in events]
        self._sql.executemany("INSERT INTO events (grouped, stream, ms, taken_ms, text) VALUES (?, ?, ?, ?, ?)", rows)
        self._sql.execute(
            "UPDATE streams SET first_ms = min(coalesce(first_ms, :first), :first), "
            "last_ms = max(coalesce(last_ms, :last), :last), taken_ms = :now, bytes = bytes + :size "
            "WHERE number = :stream",
            {"first": rows[0][2], "last": rows[-1][2], "now": now_ms, "size": size, "stream": stream},
        )

    def events(
        self, group: int, *, after: tuple[int, int], until_ms: int, stream: int | None = None
    ) -> Iterator[EventRow]:
        """Events in order of time, a page at a time.

        Args:
            group: number of the group.
            after: those behind this time and number.
            until_ms: before this time.
            stream: of this stream only.
        """
        sql, value = (_OF_GROUP, group) if stream is None else (_OF_STREAM, stream)
        until_ms = min(until_ms, _LAST_MS)
        while rows := self._rows(sql, value, *after, until_ms):
            for row in rows:
                yield EventRow(*row)
            after = (rows[-1][2], rows[-1][0])

    def last(self, stream: int, *, before: tuple[int, int], since_ms: int, count: int) -> list[EventRow]:
        """The last events of a stream before a time and number, not before `since_ms`; in order."""
        rows = self._rows(_LAST, stream, *before, since_ms, count)
        return [EventRow(*row) for row in reversed(rows)]

    def expire(self, group: int, before_ms: int) -> None:
        """Remove the events of before this time."""
        self._sql.execute("DELETE FROM events WHERE grouped = ? AND ms < ?", (group, before_ms))

    def clear(self) -> None:
        """Remove everything."""
        for table in ("events", "streams", "groups"):
            self._sql.execute(f"DELETE FROM {table}")  # noqa: S608  # constants

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        rows = self._rows(sql, *values)
        return rows[0] if rows else None

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._said("read"):
            return self._sql.execute(sql, values).fetchall()


def _facts(text: bytes) -> GroupFacts:
    return _read_facts(text)
