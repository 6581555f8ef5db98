"""What is done before a shard is opened for appending when its control page cannot simply be believed.

After the machine went down (or the folder was copied) the page says little: blocks are scanned, torn bytes copied aside
and cut, here and only here, and the shard goes on 2**40 above everything that may ever have been issued, in offsets and
in counters, so that neither is used twice. After a failed sync, what may not have reached the disk is written anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from kflow.broker import block, segment
from kflow.broker.block import HEADER_BYTES
from kflow.broker.ctl import (
    ARRIVAL,
    COUNTER,
    DIRTY,
    DURABLE,
    HORIZON,
    POISONED,
    SEGMENT,
    TAIL,
    Ctl,
)
from kflow.broker.files import Files
from kflow.broker.segment import SEGMENT_HEADER_BYTES, Segment
from kflow.errors import Damaged, StorageError
from kflow.records import BEGIN_COUNTER

log = logging.getLogger(__name__)

GAP: Final = 1 << 40
"""How far above everything known a shard goes on after power loss; a page may be stale by less than this."""
_EVERYTHING: Final = 1 << 63
_COPY_BYTES: Final = 1 << 20


class _Recovered(NamedTuple):
    """What a scan found: where valid blocks end, counter and arrival after the last one, the greatest end of a file."""

    end: int
    counter: int
    arrival_ms: int
    highest: int


def open_ctl(folder: str, files: Files, *, name: str, stream_id: int, shard: int, closed: bool, aside: str) -> Ctl:
    """The control page of a shard, with recovery from power loss where that is due. The caller holds `writer.lock`.

    Args:
        folder: of the shard.
        files: file calls.
        name: of the shard, for people.
        stream_id: of the stream.
        shard: index of the shard.
        closed: whether the map says that it takes no more records.
        aside: folder for copies of torn bytes.

    Raises:
        StorageError: the folder is gone or cannot be used.
        OSError: from the file system.
    """
    try:
        ctl = Ctl.open(folder, files, owner=(stream_id, shard), write=True)
    except FileNotFoundError:
        files.stat(folder)
        ctl = None
    except StorageError as error:
        log.warning("control page not usable shard=%s error=%s", name, error)
        ctl = None
    if ctl is not None and ctl.is_current:
        return ctl
    return _after_power_loss(
        folder, files, ctl, name=name, stream_id=stream_id, shard=shard, closed=closed, aside=aside
    )


def _after_power_loss(
    folder: str, files: Files, ctl: Ctl | None, *, name: str, stream_id: int, shard: int, closed: bool, aside: str
) -> Ctl:
    if ctl is None:
        Ctl.create(folder, files, stream_id=stream_id, shard=shard)
        ctl = Ctl.open(folder, files, write=True)
        ctl.words[DIRTY] = 1
        known_tail = known_counter = -1
    else:
        known_tail, known_counter = ctl.words[TAIL], ctl.words[COUNTER]
    words = ctl.words
    found = _scan(folder, files, name, stream_id, shard, words[DURABLE], words[HORIZON], aside)
    untouched = found.highest == 0 and known_tail <= 0 and known_counter == BEGIN_COUNTER
    words[HORIZON] = min(words[HORIZON], found.end)
    words[DURABLE] = min(words[DURABLE], found.end)
    words[ARRIVAL] = max(words[ARRIVAL], found.arrival_ms)
    words[TAIL] = found.end
    if not untouched and not closed:
        words[COUNTER] = max(found.counter, known_counter) + GAP
        words[SEGMENT] = max(found.end, known_tail, found.highest, words[SEGMENT]) + GAP
    words[POISONED] = words[DIRTY] = 0
    ctl.adopt()
    if known_tail > found.end:
        log.warning(
            "records lost with the machine: shard=%s bytes %d to %d never reached the disk", name, found.end, known_tail
        )
    log.info("recovered after a restart of the machine shard=%s tail=%d", name, found.end)
    return ctl


def _scan(
    folder: str, files: Files, name: str, stream_id: int, shard: int, durable: int, horizon: int, aside: str
) -> _Recovered:
    """Find the end of the valid blocks and cut what is torn."""
    end, counter, arrival_ms, highest = horizon, BEGIN_COUNTER, 0, 0
    for base in segment.bases(folder, files):
        path = segment.segment_path(folder, base)
        size = files.stat(path).st_size
        highest = max(highest, base + max(0, size - SEGMENT_HEADER_BYTES))
        try:
            opened = segment.open_segment(folder, files, base, stream_id=stream_id, shard=shard, write=True)
        except Damaged as error:
            log.warning("segment set aside shard=%s error=%s", name, error)
            _keep_aside(files, path, 0, size, aside)
            segment.remove(folder, files, base)
            continue
        try:
            counter, arrival_ms = max(counter, opened.first_counter), max(arrival_ms, opened.arrival_ms)
            valid = base
            for header in segment.scan(opened, files, _start(opened, files, durable), _EVERYTHING, bodies=True):
                valid = header.end
                counter = max(counter, header.first_counter + header.count)
                arrival_ms = max(arrival_ms, header.arrival_ms)
            keep = valid - base + SEGMENT_HEADER_BYTES
            if size > keep:
                log.warning("torn bytes set aside shard=%s segment=%d bytes=%d", name, base, size - keep)
                _keep_aside(files, path, keep, size, aside)
                files.ftruncate(opened.fd, keep)
        finally:
            files.close(opened.fd)
        if valid == base:
            segment.remove(folder, files, base)
        else:
            end = valid
    return _Recovered(end, counter, arrival_ms, highest)


def _start(opened: Segment, files: Files, durable: int) -> int:
    """Where to begin: the last point of the index at or below the durable tail that names a valid block."""
    for point in reversed(segment.points(opened, files)):
        if point.offset <= durable and any(segment.scan(opened, files, point.offset, _EVERYTHING)):
            return point.offset
    return opened.base


def _keep_aside(files: Files, path: str, begin: int, end: int, aside: str) -> None:
    """Copy bytes that are about to be cut into the trash, for people."""
    files.make_folder(aside)
    target = os.path.join(aside, f"{os.path.basename(os.path.dirname(path))}-{os.path.basename(path)}.{begin}")
    source = files.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = files.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            at = begin
            while at < end and (piece := files.pread(source, min(_COPY_BYTES, end - at), at)):
                files.write_all(copy, piece, at - begin)
                at += len(piece)
        finally:
            files.close(copy)
    finally:
        files.close(source)


def rewrite_poisoned(folder: str, files: Files, ctl: Ctl, *, stream_id: int, shard: int, name: str) -> None:
    """After a failed sync: write [durable tail, tail) into new files at the same offsets, sync them, then believe them.

    The pages that failed may be marked clean, so another sync of the old files would succeed and prove nothing. The
    caller has recovered the shard if it was dirty.

    Raises:
        Damaged: committed bytes cannot be read back.
        OSError: the new files could not be written or synced; the shard stays poisoned.
    """
    words = ctl.words
    durable, tail = words[DURABLE], words[TAIL]
    for base, following in segment.spans(folder, files, durable, tail):
        _rewrite(folder, files, base, max(base, durable), min(following, tail), stream_id=stream_id, shard=shard)
    files.sync_folder(folder)
    remaining = [base for base in segment.bases(folder, files) if base < tail]
    if words[SEGMENT] <= tail and remaining:
        words[SEGMENT] = remaining[-1]
    words[DURABLE] = tail
    words[POISONED] = 0
    log.warning("rewritten after a failed sync shard=%s bytes %d to %d", name, durable, tail)


def _rewrite(folder: str, files: Files, base: int, begin: int, end: int, *, stream_id: int, shard: int) -> None:
    old = segment.open_segment(folder, files, base, stream_id=stream_id, shard=shard, write=True)
    try:
        first = next(iter(segment.scan(old, files, begin, end)), None)
        if first is None:
            if begin < end and files.fstat(old.fd).st_size > begin - base + SEGMENT_HEADER_BYTES:
                raise Damaged(f"{old.path}: no valid block at offset {begin}")
            return
        segment.create(
            folder,
            files,
            base=begin,
            stream_id=stream_id,
            shard=shard,
            created_ms=old.created_ms,
            first_counter=first.first_counter,
            arrival_ms=max([old.arrival_ms, *(header.arrival_ms for header in segment.scan(old, files, base, begin))]),
            content=lambda seed: _blocks(old, files, begin, end, seed),
            sync=True,
        )
        if begin > base:
            files.ftruncate(old.fd, begin - base + SEGMENT_HEADER_BYTES)
            files.fsync(old.fd)
    finally:
        files.close(old.fd)


def _blocks(old: Segment, files: Files, begin: int, end: int, seed: int) -> Iterator[bytes]:
    """The blocks of [begin, end) with headers for a segment of another seed."""
    reached = begin
    for header in segment.scan(old, files, begin, end, bodies=True):
        at = header.offset - old.base + SEGMENT_HEADER_BYTES + HEADER_BYTES
        yield block.header(seed, *header[3:]) + files.pread(old.fd, header.body_bytes, at)
        reached = header.end
    size = files.fstat(old.fd).st_size
    if reached != min(end, old.base + size - SEGMENT_HEADER_BYTES):
        raise Damaged(f"{old.path}: no valid block at offset {reached}")
