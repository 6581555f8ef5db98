"""Opening a shard for its one writer: what its page says, and what a crash or a failed sync left to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from kflow.broker import damage, poisoned, soundness, streams
from kflow.broker import segment as segments
from kflow.broker.ctl import ARRIVAL, CLOSED, COUNTER, DIRTY, DURABLE, DURABLE_COUNTER, POISONED, TAIL, Ctl
from kflow.broker.files import storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.recovery import Marks, open_ctl
from kflow.broker.sequence import shard_id
from kflow.broker.shard import Shard, Space
from kflow.broker.streammap import StreamMap
from kflow.clock import Clock
from kflow.errors import Damaged, ResourceNotFound, StorageError


def open_shard(
    folder: DataFolder, stream: StreamMap, index: int, *, clock: Clock, space: Space, marks: Callable[[], Marks]
) -> Shard:
    """Open a shard for appending, recovered where that was due. The caller holds `writer.lock`.

    Args:
        folder: the data folder.
        stream: map of the stream.
        index: of the shard.
        clock: what arrivals are taken from.
        space: free space below the folder.
        marks: what checkpoints of the stream name; asked only after a restart of the machine.

    Raises:
        ResourceNotFound: the stream has no such shard, or is gone.
        StorageError: it cannot be opened.
    """
    name, (account, _) = name_of(stream, index), folder.place_of(stream)
    if not 0 <= index < len(stream.shards):
        raise ResourceNotFound(
            f"Could not find shard {shard_id(index)} in stream {stream.name} under account {account}."
        )
    path = os.fspath(folder.shard_dir(stream, index))
    closed = stream.shards[index].closed is not None
    try:
        ctl = open_ctl(
            path,
            folder.files,
            name=name,
            stream_id=stream.id,
            shard=index,
            closed=closed,
            aside=os.fspath(folder.trash_dir / f"{streams.TORN}{stream.folder_name}"),
            now_ms=clock.now().epoch_ms,
            marks=marks,
            told_when_durable=folder.fsync == "always",
        )
        shard = Shard(
            path,
            ctl,
            name=name,
            stream_id=stream.id,
            index=index,
            retention_hours=stream.retention_hours,
            files=folder.files,
            clock=clock,
            space=space,
            fsync=folder.fsync,
        )
        words = ctl.words
        if words[DIRTY]:
            shard.recover()
        if words[POISONED]:
            poisoned.rewrite(path, folder.files, ctl, stream_id=stream.id, shard=index, name=name)
        if words[DURABLE] >= words[TAIL]:  # an older page does not say
            words[DURABLE_COUNTER] = words[COUNTER]
        if not words[ARRIVAL]:
            words[ARRIVAL] = streams.arrival_floor_ms(stream, index)
        words[CLOSED] = int(closed)  # the map says it; a page may be ahead of one that power loss brought back
    except FileNotFoundError as error:
        if not folder.files.exists(path):
            raise ResourceNotFound(f"Stream {stream.name} under account {account} not found.") from error
        raise storage_error(error, f"open {name}") from error
    except OSError as error:
        raise storage_error(error, f"open {name}") from error
    return shard


class End(NamedTuple):
    """Where a shard ends.

    Attributes:
        tail: logical offset past the last committed block.
        readable: logical offset up to which readers may read.
    """

    tail: int
    readable: int


def end_by_page(folder: DataFolder, stream: StreamMap, index: int) -> End | None:
    """Where a shard that is not open ends; None where its page cannot be believed: opening says why, or mends it."""
    if not 0 <= index < len(stream.shards):
        return None
    path = os.fspath(folder.shard_dir(stream, index))
    try:
        ctl = Ctl.open(path, folder.files, owner=(stream.id, index), write=False)
    except (OSError, StorageError):
        return None
    if not ctl.is_current:
        return None
    words = ctl.words
    return End(words[TAIL], words[DURABLE if folder.fsync == "always" else TAIL])


def is_sound(folder: DataFolder, stream: StreamMap, index: int) -> bool:
    """Whether a shard needs neither recovery nor a sync.

    A thousand idle ones cost a node's start a look at each page, and at the end of the last segment.

    Raises:
        OSError: the page, or the segment, cannot be read.
    """
    path = os.fspath(folder.shard_dir(stream, index))
    try:
        ctl = Ctl.open(path, folder.files, owner=(stream.id, index), write=False)
    except (FileNotFoundError, StorageError):
        return False  # opening makes it anew, and says so
    words = ctl.words
    if not ctl.is_current or words[DIRTY] or words[POISONED]:
        return False
    if folder.syncs and (words[DURABLE] < words[TAIL] or words[DURABLE_COUNTER] != words[COUNTER]):
        return False
    if bool(words[CLOSED]) != (stream.shards[index].closed is not None):
        return False
    return not soundness.doubt(path, folder.files, words, stream_id=stream.id, shard=index)


def find(
    folder: DataFolder, stream: StreamMap, shard: int, wanted: tuple[int, int, int], from_offset: int, tail: int
) -> tuple[int, int] | None:
    """Look through the headers of [from_offset, tail) for a block that may have been appended.

    Args:
        folder: the data folder.
        stream: map of the stream.
        shard: index of the shard.
        wanted: the producer's id, the number of its frame, the block's place in it.
        from_offset: where to begin.
        tail: where to end.

    Returns:
        First counter and arrival of the block, or None.

    Raises:
        Damaged: a block between is not valid, and not listed as lost.
        OSError: from the file system.
    """
    path, files = os.fspath(folder.shard_dir(stream, shard)), folder.files
    for base, following in segments.spans(path, files, from_offset, tail):
        opened = segments.open_segment(path, files, base, stream_id=stream.id, shard=shard)
        try:
            end = min(tail, following, base + files.fstat(opened.fd).st_size - segments.SEGMENT_HEADER_BYTES)
            reached = max(base, from_offset)
            while reached < end:
                for header in segments.scan(opened, files, reached, end):
                    if (header.producer, header.frame, header.part) == wanted:
                        return header.first_counter, header.arrival_ms
                    reached = header.end
                if reached < end:
                    lost = damage.holding(damage.read(path, files), reached)
                    if lost is None:
                        raise Damaged(f"{opened.path}: no valid block at offset {reached}", reached)
                    reached = lost.end
        finally:
            files.close(opened.fd)
    return None


def name_of(stream: StreamMap, index: int) -> str:
    """A shard's name for people."""
    return f"shard {index} of stream {stream.name}"
