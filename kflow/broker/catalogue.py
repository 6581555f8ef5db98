"""The catalogue: the streams as SQLite tables, for administration and for curious people. Never on the data path.

It is a copy: rebuilt from the maps whenever they change, and thrown away where it cannot be read. Because it is one, a
map that is damaged together with its twin can be had from it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kflow.broker.files import Files
from kflow.broker.sequence import shard_id, shard_index
from kflow.broker.streammap import ShardInfo, StreamMap, StreamMode

if TYPE_CHECKING:
    import sqlite3

FILE_NAME: Final = "catalogue.db"
_VERSION: Final = 2
_OLD_COLUMNS: Final = 8
_SCHEMA: Final = """
CREATE TABLE streams (
    name TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, id TEXT NOT NULL, created_s INTEGER NOT NULL,
    generation INTEGER NOT NULL, mode TEXT NOT NULL, retention_hours INTEGER NOT NULL,
    max_record_bytes INTEGER NOT NULL, open_shards INTEGER NOT NULL, PRIMARY KEY (name, account, region)
) WITHOUT ROWID;
CREATE TABLE shards (
    stream_id TEXT NOT NULL, shard_index INTEGER NOT NULL, stream TEXT NOT NULL, shard_id TEXT NOT NULL,
    starting_hash_key TEXT NOT NULL, ending_hash_key TEXT NOT NULL, parents TEXT NOT NULL, created_s INTEGER NOT NULL,
    ending_sequence_number TEXT, PRIMARY KEY (stream_id, shard_index)
) WITHOUT ROWID;
"""
"""Account and region are empty for the data folder's own. Version 1 had neither, and knew a shard's stream by name."""


def rebuild(path: str | os.PathLike[str], maps: Sequence[StreamMap], files: Files) -> None:
    """Write the catalogue in a data folder anew from the maps of its streams; whoever reads the old one goes on.

    Raises:
        OSError, sqlite3.Error: it could not be written; the old one stands.
    """
    import sqlite3  # weight: 5 ms that only administration pays

    target = os.path.join(path, FILE_NAME)
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _fill(connection, maps)
        content = connection.serialize()
    files.discard(f"{target}-journal")  # of a writer that died: the next reader would play it into the new one
    files.write_replace(target, content, sync=False)  # after power loss it is made anew


def difference(path: str | os.PathLike[str], maps: Sequence[StreamMap]) -> str:
    """How the catalogue differs from the maps, in a few words; empty where it does not."""
    import sqlite3  # as above

    target = os.path.join(path, FILE_NAME)
    try:
        with contextlib.closing(sqlite3.connect(_read_only(target), uri=True)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check").fetchone()
            if found != "ok":
                return "it is damaged"
            kept = [
                sorted(map(tuple, connection.execute("SELECT * FROM streams"))),
                sorted(map(tuple, connection.execute("SELECT * FROM shards"))),
            ]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return f"it cannot be read: {error}"
    wanted = [sorted(map(_stream, maps)), sorted(row for found in maps for row in _shards(found))]
    return "" if kept == wanted else "it says something else than the maps"


def recall(path: str | os.PathLike[str], stream_id: int) -> StreamMap | None:
    """The map of a stream as the catalogue has it; None where it has none, or none that can be one."""
    import sqlite3  # as above

    target = os.path.join(path, FILE_NAME)
    try:
        with contextlib.closing(sqlite3.connect(_read_only(target), uri=True)) as connection:
            row = connection.execute("SELECT * FROM streams WHERE id = ?", (f"{stream_id:016x}",)).fetchone()
            if row is None:
                return None
            if len(row) == _OLD_COLUMNS:
                row = (row[0], "", "", *row[1:])
                query, of = "SELECT shard_index, * FROM shards WHERE stream = ? ORDER BY shard_index", row[0]
            else:
                query, of = "SELECT shard_index, * FROM shards WHERE stream_id = ? ORDER BY shard_index", row[3]
            rows = connection.execute(query, (of,)).fetchall()
        made = StreamMap(
            name=row[0],
            id=stream_id,
            created_s=int(row[4]),
            generation=int(row[5]),
            mode=StreamMode(row[6]),
            retention_hours=int(row[7]),
            max_record_bytes=int(row[8]),
            shards=tuple(_shard(each) for each in rows),
            account=row[1],
            region=row[2],
        )
    except (sqlite3.Error, ValueError, TypeError):
        return None
    return made if made.is_whole and len(made.open_shards) == row[9] else None


def _read_only(path: str) -> str:
    """The address of a file, in whose path characters may be that mean something in one."""
    return f"{Path(path).absolute().as_uri()}?mode=ro"


def _shard(row: Sequence[object]) -> ShardInfo:
    """A row with its index before it; the last five columns are the same in both versions."""
    index, start, end, parents, created_s, closed = map(str, (row[0], *row[-5:]))
    return ShardInfo(
        index=int(index),
        start=int(start),
        end=int(end),
        parents=tuple(map(shard_index, parents.split(","))) if parents else (),
        created_s=int(created_s),
        closed=None if row[-1] is None else int(closed),
    )


def _fill(connection: sqlite3.Connection, maps: Sequence[StreamMap]) -> None:
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    streams, shards = [_stream(found) for found in maps], [row for found in maps for row in _shards(found)]
    connection.executemany("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", streams)
    connection.executemany("INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", shards)


def _stream(stream: StreamMap) -> tuple[str | int, ...]:
    return (
        stream.name,
        stream.account,
        stream.region,
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
            f"{stream.id:016x}",
            shard.index,
            stream.name,
            shard_id(shard.index),
            str(shard.start),
            str(shard.end),
            ",".join(map(shard_id, shard.parents)),
            shard.created_s,
            None if shard.closed is None else str(shard.closed),
        )
        for shard in stream.shards
    ]
