"""Quarantine: the writer looks at a block that a reader could not read, and lists it as lost where it agrees.

    a reader: Damaged(offset), twice, the second time from a fresh descriptor
      --> the writer reads it too
            passes now: nothing is done
            the segment's header is damaged, and its blocks tell what it was: written anew, nothing is lost
            else: from here to the next sound block, the next segment or the tail: onto the list, which readers obey

Nothing is cut: the damaged bytes stay where they are until retention removes their segment. Appends go on meanwhile:
all that is shared with them is the control page, which is only read here.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from kflow.broker import damage, salvage
from kflow.broker import segment as segments
from kflow.broker.block import Header
from kflow.broker.ctl import COUNTER, DIRTY, HORIZON, TAIL, Ctl
from kflow.broker.damage import LostRange
from kflow.broker.files import Files, storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.segment import Segment
from kflow.broker.streammap import StreamMap
from kflow.errors import Damaged
from kflow.records import BEGIN_COUNTER

log = logging.getLogger(__name__)

Read = TypeVar("Read")

_APPEND_S: Final = 1.0
_PAUSE_S: Final = 0.001

_working = threading.Lock()  # two consumers meet the same damage, and a node has several threads for this


class _Shard(NamedTuple):
    """The shard that is looked at, as of one moment between two appends."""

    folder: str
    files: Files
    stream_id: int
    number: int
    sync: bool
    tail: int
    counter: int
    horizon: int
    bases: Sequence[int]
    known: Sequence[LostRange]


def quarantine(store: Log, stream: StreamMap, shard: int, offset: int, *, at_ms: int | None = None) -> LostRange | None:
    """List what cannot be read from `offset` on as lost, if the writer cannot read it either.

    The caller holds `writer.lock`. Any thread, beside appends to the same shard.

    Args:
        store: the writer's log.
        stream: map of the stream.
        shard: index of the shard.
        offset: `Damaged.offset`.
        at_ms: the time, milliseconds since the epoch; the system's clock where None.

    Returns:
        What was listed, durably unless the policy is `none`; None where reading goes on without: the block passes now,
        is listed already or has expired, or the header of its segment was mended.

    Raises:
        Damaged: the list itself is not valid.
        StorageError: the shard cannot be read, or the list cannot be written.
    """
    return _quarantine(store.folder, stream, shard, offset, at_ms)


def past_damage(folder: DataFolder, stream: StreamMap, shard: int, read: Callable[[], Read]) -> Read:
    """What the writer reads for itself: damage on the way is quarantined, and `read` is called again.

    Args:
        folder: whose `writer.lock` the caller holds.
        stream: map of the stream.
        shard: index of the shard.
        read: reads the shard, with a reader of its own.

    Raises:
        Damaged: the list of lost ranges is not valid, or `read` fails where there is nothing to quarantine.
        StorageError: the shard cannot be read, or the list cannot be written.
    """
    tried = -1
    while True:
        try:
            return read()
        except Damaged as error:
            if error.offset is None or error.offset == tried:
                raise
            tried = error.offset
            _quarantine(folder, stream, shard, tried, None)


def _quarantine(folder: DataFolder, stream: StreamMap, shard: int, offset: int, at_ms: int | None) -> LostRange | None:
    path, files = os.fspath(folder.shard_dir(stream, shard)), folder.files
    name = f"shard {shard} of stream {stream.name}"
    try:
        with _working:
            lost = _lost(_look(path, files, stream.id, shard, sync=folder.syncs), offset)
            if lost is None:
                return None
            reason = damage.DAMAGE if lost[1] - offset < damage.JUMP else damage.POWER_LOSS
            entry = LostRange(*lost, reason, time.time_ns() // 1_000_000 if at_ms is None else at_ms)
            damage.note(path, files, entry, sync=folder.syncs)
    except OSError as error:
        raise storage_error(error, f"quarantine a part of {name}") from error
    log.error("quarantined shard=%s records=%d bytes %d to %d", name, entry.records, entry.start, entry.end)
    return entry


def _look(folder: str, files: Files, stream_id: int, shard: int, *, sync: bool) -> _Shard:
    words = Ctl.open(folder, files, owner=(stream_id, shard), write=False).words
    deadline = time.monotonic() + _APPEND_S
    while True:
        counter, tail = words[COUNTER], words[TAIL]
        # An append stores the counter before the tail. One that failed leaves the page dirty, and both as they were.
        if (not words[DIRTY] and (counter, tail) == (words[COUNTER], words[TAIL])) or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_S)
    bases = [base for base in segments.bases(folder, files) if base < tail]
    known = damage.read(folder, files)
    return _Shard(folder, files, stream_id, shard, sync, tail, counter, words[HORIZON], bases, known)


def _lost(shard: _Shard, offset: int) -> tuple[int, int, int, int, int] | None:
    """Start, end, first and next counter, and records of what is lost from `offset` on."""
    if not shard.horizon <= offset < shard.tail or damage.holding(shard.known, offset) is not None:
        return None
    number = bisect_right(shard.bases, offset) - 1
    limit = shard.bases[number + 1] if number + 1 < len(shard.bases) else shard.tail
    if number < 0:  # the file before the first one that is there
        end, counter = _behind(shard, offset, limit)
        return (offset, end, counter, counter, 0)
    base = shard.bases[number]
    opened, is_mended = _open(shard, base)
    if is_mended:
        return None
    if opened is None:
        end, counter = _behind(shard, offset, limit)
        return _entry(shard, offset, end, _counter_before(shard, number), counter)
    try:
        if next(segments.scan(opened, shard.files, offset, limit, bodies=True), None) is not None:
            return None
        header = next(segments.scan(opened, shard.files, offset, limit), None)
        if header is not None:  # its header is sound, so the next one is where it says
            return _entry(shard, offset, header.end, header.first_counter, header.first_counter + header.count)
        first = _counter_at(shard, opened, offset)
        following = salvage.next_block(opened, shard.files, offset + 1, limit)
        if following is not None:
            return _entry(shard, offset, following.offset, first, following.first_counter)
        end, counter = _behind(shard, offset, limit)
        return _entry(shard, offset, end, first, counter)
    finally:
        shard.files.close(opened.fd)


def _entry(shard: _Shard, start: int, end: int, first: int, following: int) -> tuple[int, int, int, int, int]:
    first = min(first, following)
    return (start, end, first, following, damage.issued(shard.known, first, following))  # a jump is no record


def _open(shard: _Shard, base: int) -> tuple[Segment | None, bool]:
    """The segment, or None where its header was damaged; and whether it has been mended, so that it opens now."""
    files = shard.files
    try:
        found = segments.open_segment(shard.folder, files, base, stream_id=shard.stream_id, shard=shard.number)
    except Damaged as error:
        is_mended = salvage.mend_header(
            shard.folder,
            files,
            base,
            stream_id=shard.stream_id,
            shard=shard.number,
            first_counter=_counter_before(shard, shard.bases.index(base)),
            sync=shard.sync,
        )
        log.warning("segment's header damaged mended=%s error=%s", is_mended, error)
        return None, is_mended
    return found, False


def _behind(shard: _Shard, offset: int, limit: int) -> tuple[int, int]:
    """Where reading goes on, with its counter, where nothing sound follows before `limit`, a segment or the tail."""
    for entry in shard.known:
        if offset < entry.start <= limit:  # what follows is lost too, and is listed
            return entry.start, entry.first_counter
    if limit == shard.tail:
        return shard.tail, shard.counter
    for base in shard.bases:
        if base >= limit:
            opened, is_mended = _open(shard, base)
            if is_mended:
                opened, _ = _open(shard, base)
            if opened is not None:
                shard.files.close(opened.fd)
                return base, opened.first_counter
    return shard.tail, shard.counter


def _counter_before(shard: _Shard, number: int) -> int:
    """Counter of the first record of a segment, from what lies before it; 0 where nothing tells."""
    base = shard.bases[number]
    listed = next((entry.next_counter for entry in shard.known if entry.end == base), None)
    if listed is not None:
        return listed
    if number == 0:
        return BEGIN_COUNTER if base == 0 else 0
    opened, is_mended = _open(shard, shard.bases[number - 1])
    if is_mended:
        opened, _ = _open(shard, shard.bases[number - 1])
    if opened is None:
        return _counter_before(shard, number - 1)
    try:
        return _counter_at(shard, opened, base)
    finally:
        shard.files.close(opened.fd)


def _counter_at(shard: _Shard, opened: Segment, offset: int) -> int:
    """Counter of the record at `offset`: behind the last sound block, or the last lost range, before it."""
    counter, reached = opened.first_counter, opened.base
    for point in reversed(segments.points(opened, shard.files)):
        if point.offset <= offset and any(segments.scan(opened, shard.files, point.offset, shard.tail)):
            counter, reached = point.first_counter, point.offset
            break
    while reached < offset:
        last: Header | None = None
        for header in segments.scan(opened, shard.files, reached, offset):
            last = header
        if last is not None:
            counter, reached = last.first_counter + last.count, last.end
        lost = damage.holding(shard.known, reached)
        if lost is None or lost.end > offset:
            break
        counter, reached = lost.next_counter, lost.end
    return counter
