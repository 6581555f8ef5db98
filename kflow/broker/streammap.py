"""The map of a stream: its shards, their ranges, parents and states. A stream exists when its map is valid.

Kept as JSON in `map.json`, replaced in one step, so that a reader sees the old map or the new one. It has its checksum
and a twin beside it (`kflow.broker.checked`), which `kflow doctor --repair` takes in place of a damaged map. Hash keys
and the id are hexadecimal texts there, for they exceed what JSON numbers hold.
"""

from __future__ import annotations

import bisect
import enum
import os

import msgspec

from kflow import limits
from kflow.broker import checked
from kflow.broker.files import Files, Path, storage_error
from kflow.errors import Damaged

FILE_NAME = "map.json"
_HOUR_MS = 3_600_000
_UNSEALED = b'{"name":'
"""How a map of kflow 0.1.0 begins, which had no checksum."""


class StreamMode(enum.StrEnum):
    """Capacity mode. Source: documented: CreateStream, StreamModeDetails."""

    PROVISIONED = "PROVISIONED"
    ON_DEMAND = "ON_DEMAND"


class ShardInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One shard of a stream.

    Attributes:
        index: 0 for the first; indexes only grow.
        start: first hash key of its range, 0 to 2**128 - 1.
        end: last hash key of its range.
        parents: indexes of the shards it was made from; the second one is the adjacent parent of a merge.
        created_s: creation, seconds since the epoch, as in its sequence numbers.
        closed: its ending sequence number; None while it is open.
    """

    index: int
    start: int
    end: int
    parents: tuple[int, ...] = ()
    created_s: int
    closed: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether records are still routed to it."""
        return self.closed is None


class StreamMap(msgspec.Struct, frozen=True, kw_only=True):
    """What the data path knows about a stream.

    Attributes:
        name: 1 to 128 characters.
        id: 64-bit integer, never used twice in a folder: a stream created anew under a name has another.
        created_s: creation, seconds since the epoch.
        generation: rises with every change of the shards.
        deleted: set before the folder goes away.
        retention_hours: 24 to 8,760.
        max_record_bytes: largest sum of data and key, bytes.
        mode: capacity mode.
        shards: by index, open and closed.
        account: of the place that it belongs to, twelve digits; empty for the folder's own.
        region: of that place; empty for the folder's own.
        expired_ms: what arrived before has expired, though records may be kept for longer since: milliseconds since
            the epoch.
    """

    name: str
    id: int
    created_s: int
    generation: int = 1
    deleted: bool = False
    retention_hours: int = limits.RETENTION_HOURS
    max_record_bytes: int = limits.RECORD_BYTES
    mode: StreamMode = StreamMode.PROVISIONED
    shards: tuple[ShardInfo, ...] = ()
    account: str = ""
    region: str = ""
    expired_ms: int = 0

    @property
    def is_home(self) -> bool:
        """Whether it belongs to the folder's own account and region: handlers and the command line see no others."""
        return not self.account and not self.region

    @property
    def folder_name(self) -> str:
        """`<name>.<id as 16 hexadecimal digits>`."""
        return f"{self.name}.{self.id:016x}"

    def trim_ms(self, now_ms: int) -> int:
        """TRIM_HORIZON: what arrived before is not read any more. Source: documented."""
        return max(now_ms - self.retention_hours * _HOUR_MS, self.expired_ms)

    def knows(self, index: int) -> bool:
        """Whether it names a shard."""
        at = bisect.bisect_left(self.shards, index, key=lambda shard: shard.index)
        return at < len(self.shards) and self.shards[at].index == index

    @property
    def open_shards(self) -> tuple[ShardInfo, ...]:
        """The shards that records are routed to, in the order of their ranges."""
        return tuple(sorted((shard for shard in self.shards if shard.closed is None), key=lambda shard: shard.start))

    @property
    def is_whole(self) -> bool:
        """Whether every hash key belongs to one open shard, and the shards are numbered without a gap."""
        reached = 0
        for shard in self.open_shards:
            if shard.start != reached or shard.end < shard.start:
                return False
            reached = shard.end + 1
        numbered = all(shard.index == index for index, shard in enumerate(self.shards))
        return (
            reached == 1 << 128
            and numbered
            and all(0 <= each < shard.index for shard in self.shards for each in shard.parents)
        )


class _StoredShard(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    start: str
    end: str
    parents: tuple[int, ...] = ()
    created_s: int
    closed: str | None = None


class _StoredMap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    id: str
    created_s: int
    generation: int
    deleted: bool
    retention_hours: int
    max_record_bytes: int
    mode: StreamMode
    shards: tuple[_StoredShard, ...]
    account: str = ""
    region: str = ""
    expired_ms: int = 0


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_stored = msgspec.json.Decoder(_StoredMap).decode


def encode(stream: StreamMap) -> bytes:
    """The map as the text of its file."""
    stored = _StoredMap(
        name=stream.name,
        id=f"{stream.id:016x}",
        created_s=stream.created_s,
        generation=stream.generation,
        deleted=stream.deleted,
        retention_hours=stream.retention_hours,
        max_record_bytes=stream.max_record_bytes,
        mode=stream.mode,
        shards=tuple(
            _StoredShard(
                index=shard.index,
                start=f"{shard.start:032x}",
                end=f"{shard.end:032x}",
                parents=shard.parents,
                created_s=shard.created_s,
                closed=None if shard.closed is None else str(shard.closed),
            )
            for shard in stream.shards
        ),
        account=stream.account,
        region=stream.region,
        expired_ms=stream.expired_ms,
    )
    return checked.seal(msgspec.json.encode(stored)) + b"\n"


def decode(text: bytes) -> StreamMap:
    """The map out of the text of its file.

    Raises:
        ValueError: it is not a map, or fails its checksum.
    """
    content = text.rstrip(b"\n")
    if not content.startswith(_UNSEALED):
        unsealed = checked.unseal(content)
        if unsealed is None:
            raise ValueError("its checksum is wrong")
        content = unsealed
    stored = _stored(content)
    return StreamMap(
        name=stored.name,
        id=int(stored.id, 16),
        created_s=stored.created_s,
        generation=stored.generation,
        deleted=stored.deleted,
        retention_hours=stored.retention_hours,
        max_record_bytes=stored.max_record_bytes,
        mode=stored.mode,
        shards=tuple(
            ShardInfo(
                index=shard.index,
                start=int(shard.start, 16),
                end=int(shard.end, 16),
                parents=shard.parents,
                created_s=shard.created_s,
                closed=None if shard.closed is None else int(shard.closed),
            )
            for shard in stored.shards
        ),
        account=stored.account,
        region=stored.region,
        expired_ms=stored.expired_ms,
    )


def decoded(text: bytes) -> StreamMap | None:
    """The map out of the text of its file; None where it is none."""
    try:
        return decode(text)
    except ValueError:
        return None


def load(path: Path, files: Files) -> StreamMap:
    """Read a map.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is not a map, or fails its checksum.
        StorageError: it cannot be read.
    """
    try:
        text = files.read_bytes(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(error, f"read {os.fspath(path)}") from error
    try:
        return decode(text)
    except ValueError as error:
        raise Damaged(
            f"{os.fspath(path)} is not the map of a stream: {error}; `kflow doctor --repair` puts back what it was"
        ) from error


def store(path: Path, stream: StreamMap, files: Files, *, sync: bool) -> None:
    """Replace a map in one step; on return it is durable if `sync`.

    Raises:
        StorageError: it could not be written; the old map stands.
    """
    try:
        checked.write_twice(os.fspath(path), encode(stream), files, sync=sync)
    except OSError as error:
        raise storage_error(error, f"write {os.fspath(path)}") from error


def settle(path: Path, stream: StreamMap, files: Files, *, sync: bool) -> None:
    """At a start: give a map of an older kflow its checksum, and make a twin whole that a crash left behind.

    Raises:
        OSError: it cannot be read or written.
    """
    name = os.fspath(path)
    text = encode(stream)
    if any(checked.read_optional(each, files) != text for each in (name, checked.twin_path(name))):
        checked.write_twice(name, text, files, sync=sync)
