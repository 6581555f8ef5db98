"""The ledger of a record queue: how far it has come in each shard, and what was received and is not settled.

    never received --receive--> a row: in flight until `visible_ms`, then to be received again
    a row --acknowledge--> gone        --too many receives--> dead        --retention--> gone

A row holds the record's position in the log, never its data. What lies before a shard's position and has no row was
acknowledged, or has expired. With `always` a turn is durable when it ends; else a loss of power may take back the last
turns, and their records are received again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from kflow.broker.tablefile import TableFile
from kflow.errors import Damaged
from kflow.records import Position

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS cursors (shard INTEGER PRIMARY KEY, at INTEGER NOT NULL, record INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    shard INTEGER NOT NULL, counter INTEGER NOT NULL, at INTEGER NOT NULL, record INTEGER NOT NULL,
    arrival_ms INTEGER NOT NULL, receives INTEGER NOT NULL, first_ms INTEGER NOT NULL, visible_ms INTEGER NOT NULL,
    receipt INTEGER NOT NULL, dead INTEGER NOT NULL, PRIMARY KEY (shard, counter)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_visible ON records (dead, visible_ms);
CREATE INDEX IF NOT EXISTS by_arrival ON records (arrival_ms);
"""


class Row(NamedTuple):
    """A record that was received and is not settled.

    Attributes:
        shard: index of its shard.
        counter: of the record in its shard.
        at: logical offset of its block.
        record: which one of the block.
        arrival_ms: arrival, milliseconds since the epoch.
        receives: how often it was received since it was new or restored.
        first_ms: when it was first received.
        visible_ms: from when on it may be received again.
        receipt: a number that only its last delivery has.
        dead: 1 for a dead letter, else 0.
    """

    shard: int
    counter: int
    at: int
    record: int
    arrival_ms: int
    receives: int
    first_ms: int
    visible_ms: int
    receipt: int
    dead: int


class Ledger(TableFile):
    """One queue's.

    Raises:
        StorageError: it cannot be opened.
        Damaged: it is not a ledger any more.
    """

    _WHAT = "ledger"
    _COUNTED = "records"
    _OTHER_VERSION = "delete the queue, or upgrade"
    _DAMAGED = "the stream is not touched: delete the queue and create it again"

    def __init__(self, path: str, *, fsync: str, create: bool = False) -> None:
        # With `none` a loss of power might tear the ledger: that would cost the queue, not some turns.
        at_least = "interval" if fsync == "none" else fsync

        def make() -> None:
            if not create:  # without its positions all of the stream would be delivered again, silently
                raise Damaged(f"the {self._WHAT} {path} is empty; {self._DAMAGED}")
            self._create(_SCHEMA)

        super().__init__(path, fsync=at_least, make=make, may_begin=create)

    def cursors(self) -> dict[int, Position]:
        """Where the next record that is new lies, by shard; a shard without one begins at its beginning."""
        with self._said("read"):
            return {shard: Position(at, record) for shard, at, record in self._sql.execute("SELECT * FROM cursors")}

    def move(self, shard: int, position: Position) -> None:
        """Set where the next record of a shard lies that is new."""
        self._sql.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (shard, *position))

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows of records that had none."""
        self._sql.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self.count += len(rows)

    def change(self, rows: Sequence[Row]) -> None:
        """Replace rows."""
        self._sql.executemany("REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def drop(self, row: Row) -> None:
        """Remove a row: nobody receives its record again."""
        self._sql.execute("DELETE FROM records WHERE shard = ? AND counter = ?", row[:2])
        self.count -= 1

    def find(self, shard: int, counter: int) -> Row | None:
        """The row of a record."""
        found = self._sql.execute("SELECT * FROM records WHERE shard = ? AND counter = ?", (shard, counter)).fetchone()
        return None if found is None else Row._make(found)

    def visible(self, now_ms: int, limit: int, *, dead: bool) -> list[Row]:
        """Rows that may be received again, the longest waiting first."""
        found = self._sql.execute(
            "SELECT * FROM records WHERE dead = ? AND visible_ms <= ? ORDER BY visible_ms LIMIT ?",
            (dead, now_ms, limit),
        )
        return list(map(Row._make, found))

    def next_visible_ms(self, now_ms: int) -> int | None:
        """When the next row that is in flight may be received again; None where there is none."""
        found = [
            self._sql.execute(
                "SELECT min(visible_ms) FROM records WHERE dead = ? AND visible_ms > ?", (dead, now_ms)
            ).fetchone()[0]
            for dead in (0, 1)
        ]
        return min((each for each in found if each is not None), default=None)

    def in_flight(self, now_ms: int) -> int:
        """How many rows may not be received yet. Counts them: look at `count` first."""
        return sum(
            self._sql.execute(
                "SELECT count(*) FROM records WHERE dead = ? AND visible_ms > ?", (dead, now_ms)
            ).fetchone()[0]
            for dead in (0, 1)
        )

    def bury(self, since_ms: int, now_ms: int, receives: int) -> None:
        """Make dead letters of rows whose time in flight ended from `since_ms` to now, after so many receives."""
        self._sql.execute(
            "UPDATE records SET dead = 1 WHERE dead = 0 AND visible_ms BETWEEN ? AND ? AND receives >= ?",
            (since_ms, now_ms, receives),
        )

    def expire(self, before_ms: int) -> None:
        """Remove the rows of records that arrived before a time."""
        self.count -= self._sql.execute("DELETE FROM records WHERE arrival_ms < ?", (before_ms,)).rowcount


def ledger_path(folder: str, name: str) -> str:
    """Where the ledger of that name lies."""
    return os.path.join(folder, f"{name}.db")
