"""Streams as files: made, deleted, and what a crash left of either.

A stream exists when its map is valid and not marked deleted. Making one writes the map last; deleting one marks the map
first. What lies between is removed at the next start of a node.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from kflow import limits
from kflow.broker import attributes as attributefiles
from kflow.broker import catalogue, checked, streammap
from kflow.broker.attributes import Attributes
from kflow.broker.ctl import Ctl
from kflow.broker.files import Files, storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.hashkeys import even_ranges
from kflow.broker.sequence import parse
from kflow.broker.streammap import ShardInfo, StreamMap, StreamMode
from kflow.clock import Clock
from kflow.errors import InvalidArgument, LimitExceeded, StorageError, ValidationFailed

log = logging.getLogger(__name__)

TORN: Final = "torn."
"""Begins the names in `trash/` that hold torn bytes, for people; they stay."""

_NAME_PATTERN: Final = "[a-zA-Z0-9_.-]+"
_LAST_CREATED: Final = ".last-created"
_LAST_SECOND: Final = (1 << 32) - 1
"""Later than any clock says; a number above it would stand in all sequence numbers from then on."""


def check(name: str, shards: int, retention_hours: int, max_record_bytes: int) -> None:
    """Refuse what CreateStream refuses, in its words.

    Raises:
        ValidationFailed, InvalidArgument, LimitExceeded: the first value that is not acceptable.

    Source: recorded: constraint texts; chosen: the bound on shards.
    """
    if not re.fullmatch(_NAME_PATTERN, name):
        raise constraint(name, "streamName", f"satisfy regular expression pattern: {_NAME_PATTERN}")
    if len(name) > limits.STREAM_NAME_CHARACTERS:
        raise constraint(name, "streamName", f"have length less than or equal to {limits.STREAM_NAME_CHARACTERS}")
    if shards < 1:
        raise constraint(str(shards), "shardCount", "have value greater than or equal to 1")
    if shards > limits.SHARDS_PER_STREAM:
        raise LimitExceeded(
            f"stream {name}: {shards} shards are more than the {limits.SHARDS_PER_STREAM} that kflow keeps"
        )
    if retention_hours < limits.RETENTION_HOURS:
        raise InvalidArgument(
            f"Minimum allowed retention period is {limits.RETENTION_HOURS} hours. "
            f"Requested retention period ({retention_hours} hours) is too short."
        )
    if retention_hours > limits.RETENTION_HOURS_MAX:
        raise InvalidArgument(
            f"Maximum allowed retention period is {limits.RETENTION_HOURS_MAX} hours. "
            f"Requested retention period ({retention_hours} hours) is too long."
        )
    kib = max_record_bytes // limits.KIB
    if max_record_bytes < limits.RECORD_BYTES:
        raise constraint(str(kib), "maxRecordSizeInKiB", "have value greater than or equal to 1024")
    if max_record_bytes > limits.RECORD_BYTES_MAX:
        raise constraint(str(kib), "maxRecordSizeInKiB", "have value less than or equal to 10240")


class Wanted(NamedTuple):
    """What a new stream is to be.

    Attributes:
        name: of the stream.
        shards: how many, with even hash key ranges.
        retention_hours: 24 to 8,760.
        max_record_bytes: 1 MiB to 10 MiB.
        mode: capacity mode.
        account: of its place; empty for the folder's own.
        region: as `account`.
        attributes: what is kept beside its map from the first moment on; None for nothing.
    """

    name: str
    shards: int
    retention_hours: int = limits.RETENTION_HOURS
    max_record_bytes: int = limits.RECORD_BYTES
    mode: StreamMode = StreamMode.PROVISIONED
    account: str = ""
    region: str = ""
    attributes: Attributes | None = None


def make(folder: DataFolder, clock: Clock, wanted: Wanted) -> StreamMap:
    """Write a new stream, its map last; durable on return unless the policy is `none`.

    Raises:
        StorageError: it could not be written; nothing of it is left.
    """
    files, sync = folder.files, folder.syncs
    name, shards = wanted.name, wanted.shards
    try:
        created_s = reserve_seconds(folder, clock)
        made = StreamMap(
            name=name,
            id=secrets.randbits(64) or 1,
            created_s=created_s,
            retention_hours=wanted.retention_hours,
            max_record_bytes=wanted.max_record_bytes,
            mode=wanted.mode,
            account=wanted.account,
            region=wanted.region,
            shards=tuple(
                ShardInfo(index=index, start=start, end=end, created_s=created_s)
                for index, (start, end) in enumerate(even_ranges(shards))
            ),
        )
        path = os.fspath(folder.stream_dir(made))
        files.mkdir(path)
        try:
            for index in range(shards):
                files.mkdir(f"{path}/{index}")
                Ctl.create(f"{path}/{index}", files, stream_id=made.id, shard=index, sync=folder.fsync == "always")
            if wanted.attributes is not None:
                attributefiles.store(path, wanted.attributes, files, sync=sync)
            if sync:
                files.sync_folder(path)
                files.sync_folder(os.path.dirname(path))
            streammap.store(f"{path}/{streammap.FILE_NAME}", made, files, sync=sync)
        except (OSError, StorageError):
            files.remove_tree(path)
            raise
    except OSError as error:
        raise storage_error(error, f"create stream {name}") from error
    log.info("created stream=%s shards=%d", name, shards)
    return made


def alter(folder: DataFolder, stream: StreamMap, changes: dict[str, Any]) -> StreamMap:
    """Replace a stream's map by one with other settings; whoever routed by the old one reads it again.

    Args:
        folder: the data folder.
        stream: its map as it is now.
        changes: `retention_hours`, `max_record_bytes`, `mode`, `expired_ms`.

    Raises:
        StorageError: it could not be written; the old map stands.
    """
    new = msgspec.structs.replace(stream, generation=stream.generation + 1, **changes)
    path = os.path.join(folder.stream_dir(stream), streammap.FILE_NAME)
    streammap.store(path, new, folder.files, sync=folder.syncs)
    log.info("changed stream=%s %s", stream.name, " ".join(f"{key}={value}" for key, value in changes.items()))
    return new


def delete(folder: DataFolder, stream: StreamMap) -> None:
    """Mark a stream deleted and move its folder to the trash.

    Raises:
        StorageError: it could not be written.
    """
    files = folder.files
    path = os.fspath(folder.stream_dir(stream))
    marked = msgspec.structs.replace(stream, generation=stream.generation + 1, deleted=True)
    streammap.store(f"{path}/{streammap.FILE_NAME}", marked, files, sync=folder.syncs)
    try:
        files.rename(path, folder.trash_dir / stream.folder_name)
    except OSError as error:
        raise storage_error(error, f"delete stream {stream.name}") from error
    log.info("deleted stream=%s", stream.name)


def empty_trash(folder: DataFolder) -> None:
    """Remove what deletion has put aside.

    Raises:
        StorageError: something could not be removed.
    """
    trash = os.fspath(folder.trash_dir)
    try:
        for name in folder.files.listdir(trash):
            if not name.startswith(TORN):
                folder.files.remove_tree(os.path.join(trash, name))
    except OSError as error:
        raise storage_error(error, f"empty {trash}") from error


def remove_leftovers(folder: DataFolder) -> None:
    """Remove what was being made or deleted when a crash came: streams, the older of two of a name, unborn shards.

    A stream whose map is there and cannot be read stays: that is damage, and no leftover. The caller holds
    `writer.lock`, and nothing else of this process is under way.

    Raises:
        StorageError: something could not be removed.
    """
    files = folder.files
    streams = os.fspath(folder.path / "streams")
    kept = {found.folder_name: found for found in folder.live_maps()}
    try:
        for name in files.listdir(streams):
            path = os.path.join(streams, name)
            if name in kept:
                _remove_unborn(files, path, kept[name])
            elif name.startswith("."):
                if name.endswith(".tmp"):
                    files.discard(path)
            elif _is_leftover(files, path, kept.values()):
                log.info("removing what is left of a stream folder=%s", name)
                files.rename(path, folder.trash_dir / name)
    except OSError as error:
        raise storage_error(error, f"clean up {streams}") from error
    empty_trash(folder)


def _is_leftover(files: Files, path: str, kept: Iterable[StreamMap]) -> bool:
    name = os.path.join(path, streammap.FILE_NAME)
    try:
        found = streammap.load(name, files)
    except (FileNotFoundError, NotADirectoryError):
        if files.exists(checked.twin_path(name)):
            log.warning("stream left alone: its map is missing, `kflow doctor --repair` puts it back folder=%s", path)
            return False
        return True  # it was never complete
    except StorageError as error:
        log.warning("stream left alone error=%s", error)
        return False
    place = (found.name, found.account, found.region)
    if found.deleted or any((each.name, each.account, each.region) == place for each in kept):
        return True  # or it is the older one of its name
    log.warning("stream left alone: it was put there just now folder=%s", path)
    return False


def _remove_unborn(files: Files, path: str, stream: StreamMap) -> None:
    """Remove shards that no map names: their resharding was never published, so it did not happen."""
    for name in files.listdir(path):
        if name.isdigit() and int(name) >= len(stream.shards):
            log.info("removing a shard that was never published stream=%s shard=%s", stream.name, name)
            try:
                remove_unborn(files, os.path.join(path, name))
            except StorageError as error:
                log.error("shard left alone error=%s", error)  # noqa: TRY400  # the text says it all
        elif name.endswith(".tmp"):
            files.discard(os.path.join(path, name))


def remove_unborn(files: Files, path: str) -> None:
    """Remove the folder of a shard that no map names, if there is one.

    Raises:
        StorageError: it holds records. No record is appended before a map names its shard, so that map was lost.
        OSError: it could not be removed.
    """
    try:
        names = files.listdir(path)
    except FileNotFoundError:
        return
    if any(name.endswith(".seg") for name in names):
        raise StorageError(f"{path} holds records, and no map names it: see `kflow doctor`, or set it aside")
    files.remove_tree(path)


def reserve_seconds(folder: DataFolder, clock: Clock, *, count: int = 1, after: int = 0) -> int:
    """Seconds in which no shard of this folder was ever created, noted before they are used.

    A creation stands in every sequence number, so a stream that is deleted and created anew never repeats one.

    Args:
        folder: the data folder; one thread at a time reserves.
        clock: what says now.
        count: how many, one after the other.
        after: the first one is later than this second since the epoch.

    Returns:
        The first one, seconds since the epoch: now, where that is free.

    Raises:
        OSError: it could not be noted.
    """
    files = folder.files
    path = folder.path / "streams" / _LAST_CREATED
    try:
        text = files.read_bytes(path).strip()
    except FileNotFoundError:
        text = b""
    used = [shard.created_s for found in folder.all_maps() for shard in found.shards]
    if text.isdigit() and int(text) <= _LAST_SECOND:  # else it is damaged, and one from the maps is late enough
        used.append(int(text))
    first = max([clock.now().epoch_ms // 1000, after + 1, *(last + 1 for last in used)])
    files.write_replace(path, b"%d\n" % (first + count - 1), sync=folder.syncs)
    return first


def arrival_floor_ms(stream: StreamMap, index: int) -> int:
    """What no arrival in a shard may be below: the end of the second in which its parents were closed; 0 without any.

    For a page that is made anew after power loss. The page that resharding makes has the parents' last arrival itself.
    """
    closed = [stream.shards[parent].closed for parent in stream.shards[index].parents]
    return max((parse(number).arrival_s * 1000 + 999 for number in closed if number is not None), default=0)


def write_catalogue(folder: DataFolder) -> None:
    """Write the catalogue anew. It is a copy for people, so that it cannot be written is only a warning."""
    import sqlite3  # weight: only administration needs it

    try:
        catalogue.rebuild(folder.path, folder.live_maps(), folder.files)
    except (OSError, StorageError, sqlite3.Error) as error:
        log.warning("catalogue not written error=%s", error)


def constraint(value: str, path: str, must: str) -> ValidationFailed:
    """The error for a value that breaks a constraint of the service model, in AWS's words."""
    return ValidationFailed(
        f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: Member must {must}"
    )
