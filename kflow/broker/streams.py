"""Streams as files: made, deleted, and what a crash left of either.

A stream exists when its map is valid and not marked deleted. Making one writes the map last; deleting one marks the map
first. What lies between is removed at the next start of a node.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from typing import Final

import msgspec

from kflow import limits
from kflow.broker import streammap
from kflow.broker.ctl import Ctl
from kflow.broker.files import storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.hashkeys import even_ranges
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.clock import Clock
from kflow.errors import InvalidArgument, LimitExceeded, StorageError, ValidationFailed

log = logging.getLogger(__name__)

TORN: Final = "torn."
"""Begins the names in `trash/` that hold torn bytes, for people; they stay."""

_NAME_PATTERN: Final = "[a-zA-Z0-9_.-]+"
_LAST_CREATED: Final = ".last-created"


def check(name: str, shards: int, retention_hours: int, max_record_bytes: int) -> None:
    """Refuse what CreateStream refuses, in its words.

    Raises:
        ValidationFailed, InvalidArgument, LimitExceeded: the first value that is not acceptable.

    Source: recorded: constraint texts; chosen: the bound on shards.
    """
    if not re.fullmatch(_NAME_PATTERN, name):
        raise _constraint(name, "streamName", f"satisfy regular expression pattern: {_NAME_PATTERN}")
    if len(name) > limits.STREAM_NAME_CHARACTERS:
        raise _constraint(name, "streamName", f"have length less than or equal to {limits.STREAM_NAME_CHARACTERS}")
    if shards < 1:
        raise _constraint(str(shards), "shardCount", "have value greater than or equal to 1")
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
        raise _constraint(str(kib), "maxRecordSizeInKiB", "have value greater than or equal to 1024")
    if max_record_bytes > limits.RECORD_BYTES_MAX:
        raise _constraint(str(kib), "maxRecordSizeInKiB", "have value less than or equal to 10240")


def make(
    folder: DataFolder, clock: Clock, name: str, shards: int, retention_hours: int, max_record_bytes: int
) -> StreamMap:
    """Write a new stream, its map last; durable on return unless the policy is `none`.

    Raises:
        StorageError: it could not be written; nothing of it is left.
    """
    files, sync = folder.files, folder.syncs
    try:
        created_s = _creation_second(folder, clock)
        made = StreamMap(
            name=name,
            id=secrets.randbits(64) or 1,
            created_s=created_s,
            retention_hours=retention_hours,
            max_record_bytes=max_record_bytes,
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
                Ctl.create(f"{path}/{index}", files, stream_id=made.id, shard=index)
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
    """Remove streams that were being made or deleted when a crash came, and the older of two of a name.

    Raises:
        StorageError: something could not be removed.
    """
    files = folder.files
    streams = os.fspath(folder.path / "streams")
    kept = {found.folder_name for found in folder.maps()}
    try:
        for name in files.listdir(streams):
            if name not in kept and not name.startswith("."):
                log.info("removing what is left of a stream folder=%s", name)
                files.rename(os.path.join(streams, name), folder.trash_dir / name)
    except OSError as error:
        raise storage_error(error, f"clean up {streams}") from error
    empty_trash(folder)


def _creation_second(folder: DataFolder, clock: Clock) -> int:
    """A second in which no shard of this folder was ever created; noted before it is used.

    It stands in every sequence number, so a stream that is deleted and created anew never repeats one.
    """
    files = folder.files
    path = folder.path / "streams" / _LAST_CREATED
    try:
        text = files.read_bytes(path).strip()
    except FileNotFoundError:
        text = b""
    used = [shard.created_s for found in folder.all_maps() for shard in found.shards]
    if text.isdigit():
        used.append(int(text))
    second = max([clock.now().epoch_ms // 1000, *(last + 1 for last in used)])
    files.write_replace(path, b"%d\n" % second, sync=folder.syncs)
    return second


def _constraint(value: str, path: str, constraint: str) -> ValidationFailed:
    return ValidationFailed(
        f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: "
        f"Member must {constraint}"
    )
