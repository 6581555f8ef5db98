"""The catalogue: the streams as SQLite tables, for administration and for curious people. Never on the data path.

It is a copy: rebuilt from the maps whenever they change, and thrown away where it cannot be read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kflow.broker.files import Files
from kflow.broker.sequence import shard_id
from kflow.broker.streammap import StreamMap

if TYPE_CHECKING:
    import sqlite3

FILE_NAME: Final = "catalogue.db"
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE streams (
    name TEXT PRIMARY KEY, id TEXT NOT NULL, created_s INTEGER NOT NULL, generation INTEGER NOT NULL, mode TEXT NOT
    NULL, retention_hours INTEGER NOT NULL, max_record_bytes INTEGER NOT NULL, open_shards INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE shards (
    stream TEXT NOT NULL, shard_index INTEGER NOT NULL, shard_id TEXT NOT NULL, starting_hash_key TEXT NOT NULL,
    ending_hash_key TEXT NOT NULL, parents TEXT NOT NULL, created_s INTEGER NOT NULL, ending_sequence_number TEXT,
    PRIMARY KEY (stream, shard_index)
) WITHOUT ROWID;
"""


def rebuild(path: str | os.PathLike[str], maps: Sequence[StreamMap], files: Files) -> None:
    """Write the catalogue in a data folder anew from the maps of its streams.

    Raises:
        OSError, sqlite3.Error: it could not be written.
    """
    import sqlite3  # weight: 5 ms that only administration pays

    target = os.path.join(path, FILE_NAME)
    try:
        _fill(target, maps)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise
        files.discard(target)
        _fill(target, maps)


def _fill(target: str, maps: Sequence[StreamMap]) -> None:
    import sqlite3  # as above

    with contextlib.closing(sqlite3.connect(target, timeout=10, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # after power loss it is made anew
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            _tables(connection)
            connection.executemany(
                "INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [_stream(found) for found in maps]
            )
            connection.executemany(
                "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row for found in maps for row in _shards(found)]
            )


def _tables(connection: sqlite3.Connection) -> None:
    """Empty tables of this version."""
    for table in ("streams", "shards"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _stream(stream: StreamMap) -> tuple[str | int, ...]:
    return (
        stream.name,
        f"{stream.id:016x}",
        stream.created_s,
        stream.generation,
        str(stream.mode),
        stream.retention_hours,
        stream.max_record_bytes,
        len(stream.open_shards),
    )


def _shards(stream: StreamMap) -> list[tuple[str | int | None, ...]]:
    return [
        (
            stream.name,
            shard.index,
            shard_id(shard.index),
            str(shard.start),
            str(shard.end),
            ",".join(map(shard_id, shard.parents)),
            shard.created_s,
            None if shard.closed is None else str(shard.closed),
        )
        for shard in stream.shards
    ]
