"""One message queue in a file: messages with their states, groups in order, what was sent lately, facts of the queue.

    added --hide (a receive)--> in flight until `visible_ms` --+--> visible again
      |  with a delay: hidden until then                       +--remove--> gone
      +--set aside--> on its way to another queue --remove--> gone; a kill brings it back

With `always` a turn is durable when it ends; else a loss of power may take back the last turns. What only messages in
order need (groups) is kept beside them: a group is ready when its oldest message is visible.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from kflow.broker.tablefile import TableFile
from kflow.errors import Damaged, StorageError

ASIDE_MS: Final = 1 << 62
"""`visible_ms` of a message that is set aside."""
_NEVER_MS: Final = 1 << 62
_ANY: Final = 1 << 62
_PAGES: Final = 1000
"""So many pages are written between two checkpoints."""
_NUMBERS: Final = 1 << 20
"""Numbers taken at a time, so that none is given twice, whatever is removed and whenever the process ends."""
_SCHEMA: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, grouped INTEGER, sent_ms INTEGER NOT NULL, aged_ms INTEGER NOT NULL,
    visible_ms INTEGER NOT NULL, receives INTEGER NOT NULL, first_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL,
    origin BLOB, id BLOB NOT NULL, more BLOB NOT NULL, body TEXT NOT NULL
);
CREATE INDEX by_visible ON messages (visible_ms);
CREATE INDEX by_age ON messages (aged_ms);
CREATE INDEX by_group ON messages (grouped) WHERE grouped IS NOT NULL;
CREATE UNIQUE INDEX by_origin ON messages (origin) WHERE origin IS NOT NULL;
CREATE TABLE groups (
    grouped INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, ready_ms INTEGER NOT NULL, served INTEGER NOT NULL
);
CREATE INDEX by_ready ON groups (ready_ms, served);
CREATE TABLE recent (
    key TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_until ON recent (until_ms);
"""
_COLUMNS: Final = "number, grouped, sent_ms, aged_ms, visible_ms, receives, first_ms, received_ms"


class NeverMade(Damaged):
    """A file that was to become a queue, and did not: nobody was told that there is one."""


class State(NamedTuple):
    """A message without what it says.

    Attributes:
        number: in the order of arrival; no other message of the queue ever has it.
        grouped: its group in a queue that keeps an order; None elsewhere.
        sent_ms: when it was sent, milliseconds since the epoch.
        aged_ms: since when its retention counts.
        visible_ms: from when on it may be received.
        receives: how often it was received.
        first_ms: when it was first received; 0 for never.
        received_ms: when it was last received; 0 for never.
    """

    number: int
    grouped: int | None
    sent_ms: int
    aged_ms: int
    visible_ms: int
    receives: int
    first_ms: int
    received_ms: int


class Message(NamedTuple):
    """All of a message.

    Attributes:
        state: see there.
        id: 16 bytes, a UUID.
        more: what the engine keeps with it.
        body: its text.
    """

    state: State
    id: bytes
    more: bytes
    body: str


class New(NamedTuple):
    """A message that is to be added.

    Attributes:
        id: 16 bytes.
        body: its text.
        more: what the engine keeps with it.
        sent_ms: when it was sent.
        aged_ms: since when its retention counts.
        visible_ms: from when on it may be received.
        group: name of its group in a queue that keeps an order; None elsewhere.
        origin: where it came from; a second one of the same origin is not added while the first is there.
        receives: how often it was received elsewhere.
        first_ms: when it was first received there.
    """

    id: bytes
    body: str
    more: bytes
    sent_ms: int
    aged_ms: int
    visible_ms: int
    group: str | None = None
    origin: bytes | None = None
    receives: int = 0
    first_ms: int = 0


class Recent(NamedTuple):
    """A message that was sent lately, whether it is still there or not."""

    number: int
    id: bytes


class Counts(NamedTuple):
    """How many messages there are, by what they wait for."""

    visible: int
    in_flight: int
    delayed: int


class MessageStore(TableFile):
    """One queue's.

    Args:
        path: of its file.
        fsync: `none`, `interval` or `always`.
        create: the facts of a queue that is to be made; None: it is there.

    Raises:
        StorageError: it cannot be opened, or is there although it is to be made.
        Damaged: it is no queue any more.
    """

    _WHAT = "queue"
    _COUNTED = "messages"
    _OTHER_VERSION = "upgrade, or remove the file"
    _DAMAGED = "delete the queue and create it again"
    _CHECKPOINT = 16 * _PAGES  # where `tend` was not called for long: by itself it would come with any turn

    def __init__(self, path: str, *, fsync: str, create: bytes | None = None) -> None:
        def make() -> None:
            if create is None:
                raise NeverMade(f"{path} holds no queue: it was never made")
            self._create(_SCHEMA, lambda: self.set_fact("queue", create))

        self._next = self._last = 0
        self._turns = 0
        self._pages = 0  # written since the last checkpoint, or since it was opened; about
        self._is_behind = False  # the last checkpoint failed: SQLite tries again by itself, whenever it likes
        self._longest = 0  # nothing that is kept of a message is longer
        self._oldest_ms = 0  # the retention of no message counts since before; each turn asks
        if create is not None:
            _claim(path)
        super().__init__(path, fsync=fsync, make=make, may_begin=False)
        self._is_synced = fsync == "always"
        if self.count:
            self._longest = _ANY

    # ------------------------------------------------------------------ how long a turn may take

    def is_quick(self, before_ms: int, *, reads: int, most: int) -> bool:
        """Whether a turn neither waits for a disk nor meets more than some bytes, as far as depends on what is kept.

        The first one that writes, after a checkpoint or an opening, waits: it begins SQLite's log.

        Args:
            before_ms: messages that are older expire in it.
            reads: so many messages are read in it.
            most: bytes.
        """
        return (
            not self._is_synced
            and 0 < self._pages < _PAGES
            and not self._is_behind
            and before_ms <= self._oldest_ms
            and (reads * self._longest <= most or not self.count)
        )

    def tend(self) -> None:
        """Checkpoint, where much was written: it waits for the disk."""
        if self._pages >= _PAGES:
            self._pages = 0
            self._is_behind = not self.checkpoint()

    # ------------------------------------------------------------------ facts

    def fact(self, name: str) -> Any:
        """What is kept under a name; None: nothing."""
        found = self._sql.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def set_fact(self, name: str, value: bytes | int) -> None:
        """Keep something under a name."""
        self._pages += 1
        self._sql.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # ------------------------------------------------------------------ coming and going

    def add(self, messages: Iterable[New]) -> list[int]:
        """Add messages; their numbers, in the order given, which is that of their arrival. 0: its origin is known."""
        numbers: list[int] = []
        for each in messages:
            self._oldest_ms = min(self._oldest_ms, each.aged_ms)
            size = len(each.body) + len(each.more)
            self._longest = max(self._longest, size) if self.count else size
            number = self._number()
            grouped = None if each.group is None else self._group(each.group, each.visible_ms)
            added = self._sql.execute(
                "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    grouped,
                    each.sent_ms,
                    each.aged_ms,
                    each.visible_ms,
                    each.receives,
                    each.first_ms,
                    0,
                    each.origin,
                    each.id,
                    each.more,
                    each.body,
                ),
            ).rowcount
            self.count += added
            self._pages += added * (4 + size // 2048)
            numbers.append(number if added else 0)
            if not added and grouped is not None:
                self.regroup([grouped], each.visible_ms)
        return numbers

    def hide(self, states: Sequence[State]) -> None:
        """Keep new times and counts of messages."""
        self._pages += 2 * len(states)
        self._sql.executemany(
            "UPDATE messages SET visible_ms = ?, receives = ?, first_ms = ?, received_ms = ? WHERE number = ?",
            [(each.visible_ms, each.receives, each.first_ms, each.received_ms, each.number) for each in states],
        )

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove messages; those that are gone do not matter."""
        for number in numbers:
            removed = self._sql.execute("DELETE FROM messages WHERE number = ?", (number,)).rowcount
            self.count -= removed
            self._pages += 3 * removed

    def expire(self, before_ms: int, now_ms: int) -> bool:
        """Remove messages whose retention counts since before a time; whether there were any."""
        if before_ms <= self._oldest_ms:
            return False
        (oldest_ms,) = self._one("SELECT min(aged_ms) FROM messages")
        self._oldest_ms = _NEVER_MS if oldest_ms is None else oldest_ms
        if before_ms <= self._oldest_ms:
            return False
        groups = self._sql.execute(
            "SELECT DISTINCT grouped FROM messages WHERE aged_ms < ? AND grouped IS NOT NULL", (before_ms,)
        ).fetchall()
        removed = self._sql.execute("DELETE FROM messages WHERE aged_ms < ?", (before_ms,)).rowcount
        self.count -= removed
        self._pages += removed
        self.regroup([grouped for (grouped,) in groups], now_ms)
        self._oldest_ms = before_ms
        return True

    def clear(self) -> None:
        """Remove all messages, and what was sent lately."""
        for table in ("messages", "groups", "recent"):
            self._sql.execute(f"DELETE FROM {table}")  # noqa: S608  # one of three names
        self._pages += 1 + self.count
        self.count = 0

    def bring_back(self) -> None:
        """What is set aside is visible again: nobody carries it elsewhere."""
        found = self._sql.execute("SELECT number, grouped FROM messages WHERE visible_ms = ?", (ASIDE_MS,)).fetchall()
        self._sql.executemany("UPDATE messages SET visible_ms = 0 WHERE number = ?", [(number,) for number, _ in found])
        self.regroup({grouped for _, grouped in found if grouped is not None}, 0)

    # ------------------------------------------------------------------ looking

    def find(self, number: int) -> State | None:
        """The state of a message; None: it is gone."""
        found = self._sql.execute(f"SELECT {_COLUMNS} FROM messages WHERE number = ?", (number,)).fetchone()  # noqa: S608  # constants
        return None if found is None else State._make(found)

    def read(self, number: int) -> Message | None:
        """A message; None: it is gone."""
        found = self._messages("number = ?", (number,))
        return found[0] if found else None

    def visible(self, now_ms: int, limit: int) -> list[Message]:
        """Messages that may be received, the longest waiting first."""
        return self._messages("visible_ms <= ? ORDER BY visible_ms, number LIMIT ?", (now_ms, limit))

    def oldest_of(self, grouped: int, after: int, limit: int) -> list[Message]:
        """Messages of a group in their order, visible or not, behind a number."""
        where = "grouped = ? AND number > ? AND visible_ms < ? ORDER BY number LIMIT ?"
        return self._messages(where, (grouped, after, ASIDE_MS, limit))

    def next_ms(self, now_ms: int, *, ordered: bool) -> int | None:
        """When the next message becomes visible, in a queue that keeps an order the next that may be received."""
        if ordered:
            (found,) = self._one("SELECT min(ready_ms) FROM groups WHERE ready_ms > ?", (now_ms,))
        else:
            (found,) = self._one("SELECT min(visible_ms) FROM messages WHERE visible_ms > ?", (now_ms,))
        return None if found is None or found >= ASIDE_MS else int(found)

    def counts(self, now_ms: int) -> Counts:
        """How many there are. Looks at all that are hidden."""
        hidden, delayed = self._one(
            "SELECT count(*), coalesce(sum(received_ms = 0), 0) FROM messages WHERE visible_ms > ? AND visible_ms < ?",
            (now_ms, ASIDE_MS),
        )
        (aside,) = self._one("SELECT count(*) FROM messages WHERE visible_ms = ?", (ASIDE_MS,))
        return Counts(self.count - hidden - aside, hidden - delayed, delayed)

    # ------------------------------------------------------------------ groups

    def ready(self, now_ms: int, limit: int) -> list[int]:
        """Groups whose oldest message may be received; those that were served last come last."""
        found = self._sql.execute(
            "SELECT grouped FROM groups WHERE ready_ms <= ? ORDER BY ready_ms, served LIMIT ?", (now_ms, limit)
        )
        return [grouped for (grouped,) in found]

    def regroup(self, groups: Iterable[int], now_ms: int, *, served: bool = False) -> None:
        """Messages of these groups came, went or changed: see when each is ready again.

        Args:
            groups: which.
            now_ms: the time; a group that becomes ready goes behind those that are.
            served: they were received from now, and go behind the others even where they stay ready.
        """
        for grouped in groups:
            found = self._sql.execute(
                "SELECT visible_ms FROM messages WHERE grouped = ? AND visible_ms < ? ORDER BY number LIMIT 1",
                (grouped, ASIDE_MS),
            ).fetchone()
            if found is not None:
                ready_ms = found[0]
                before_ms, turn = self._one("SELECT ready_ms, served FROM groups WHERE grouped = ?", (grouped,))
                if ready_ms <= now_ms:
                    ready_ms = now_ms if served else min(before_ms, now_ms)
                if served:
                    self._turns += 1
                    turn = self._turns
                self._sql.execute(
                    "UPDATE groups SET ready_ms = ?, served = ? WHERE grouped = ?", (ready_ms, turn, grouped)
                )
            elif self._one("SELECT 1 FROM messages WHERE grouped = ? LIMIT 1", (grouped,)) is None:
                self._sql.execute("DELETE FROM groups WHERE grouped = ?", (grouped,))
            else:  # all that is left of it is set aside
                self._sql.execute("UPDATE groups SET ready_ms = ? WHERE grouped = ?", (ASIDE_MS, grouped))

    # ------------------------------------------------------------------ what was sent lately

    def recent(self, key: str, now_ms: int) -> Recent | None:
        """The message that was sent lately with a key."""
        found = self._sql.execute("SELECT number, id FROM recent WHERE key = ? AND until_ms > ?", (key, now_ms))
        row = found.fetchone()
        return None if row is None else Recent._make(row)

    def remember(self, key: str, until_ms: int, recent: Recent) -> None:
        """A message was sent with a key."""
        self._sql.execute("INSERT OR REPLACE INTO recent VALUES (?, ?, ?, ?)", (key, until_ms, *recent))

    def forget(self, now_ms: int) -> None:
        """Forget keys whose time is over."""
        self._sql.execute("DELETE FROM recent WHERE until_ms <= ?", (now_ms,))

    # ------------------------------------------------------------------ inside

    def _undone(self) -> None:
        self._next = self._last = 0  # what was taken of the numbers is not kept
        self._oldest_ms = 0
        self._longest = _ANY if self.count else 0
        self._pages = _PAGES  # where the disk is full, there may be room once what was written is moved

    def _messages(self, where: str, values: tuple[Any, ...]) -> list[Message]:
        found = self._sql.execute(f"SELECT {_COLUMNS}, id, more, body FROM messages WHERE {where}", values)  # noqa: S608  # constants
        return [Message(State._make(row[:8]), *row[8:]) for row in found]

    def _one(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        return self._sql.execute(statement, values).fetchone()

    def _number(self) -> int:
        if self._next == self._last:
            self._next = int(self.fact("numbers") or 1)
            self._last = self._next + _NUMBERS
            self.set_fact("numbers", self._last)
        self._next += 1
        return self._next - 1

    def _group(self, name: str, visible_ms: int) -> int:
        """The group of a name, made where there is none."""
        found = self._sql.execute("SELECT grouped, ready_ms FROM groups WHERE name = ?", (name,)).fetchone()
        if found is None:
            made = self._sql.execute("INSERT INTO groups VALUES (NULL, ?, ?, 0)", (name, visible_ms)).lastrowid
            assert made is not None
            return made
        grouped, ready_ms = found
        if ready_ms == ASIDE_MS:  # nothing of it is left but what is set aside
            self._sql.execute("UPDATE groups SET ready_ms = ? WHERE grouped = ?", (visible_ms, grouped))
        return int(grouped)


def _claim(path: str) -> None:
    """Make the file, where none is."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
    except OSError as error:
        raise StorageError(f"cannot make the queue's file {path}: {error.strerror}") from error
