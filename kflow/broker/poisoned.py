"""After a failed sync: what may not have reached the disk is written anew, in other files.

The pages that failed may be marked clean, so another sync of the old files would succeed and prove nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from kflow.broker import block, damage, segment
from kflow.broker.block import HEADER_BYTES
from kflow.broker.ctl import COUNTER, DURABLE, DURABLE_COUNTER, POISONED, SEGMENT, TAIL, Ctl
from kflow.broker.damage import LostRange
from kflow.broker.files import Files
from kflow.broker.segment import SEGMENT_HEADER_BYTES, Segment
from kflow.errors import Damaged

log = logging.getLogger(__name__)


def rewrite(folder: str, files: Files, ctl: Ctl, *, stream_id: int, shard: int, name: str) -> None:
    """Write [durable tail, tail) into new files at the same offsets, sync them, then believe them.

    The caller holds `writer.lock`, and has recovered the shard if it was dirty.

    Raises:
        Damaged: committed bytes cannot be read back, and are not listed as lost.
        OSError: the new files could not be written or synced; the shard stays poisoned.
    """
    words = ctl.words
    durable, tail = words[DURABLE], words[TAIL]
    lost = damage.read(folder, files)
    for base, following in segment.spans(folder, files, durable, tail):
        bounds = (max(base, durable), min(following, tail))
        _rewrite(folder, files, base, bounds, lost, stream_id=stream_id, shard=shard)
    files.sync_folder(folder)
    remaining = [base for base in segment.bases(folder, files) if base < tail]
    if words[SEGMENT] <= tail and remaining:
        words[SEGMENT] = remaining[-1]
    words[DURABLE_COUNTER] = words[COUNTER]
    words[DURABLE] = tail
    words[POISONED] = 0
    log.warning("rewritten after a failed sync shard=%s bytes %d to %d", name, durable, tail)


def _rewrite(
    folder: str,
    files: Files,
    base: int,
    bounds: tuple[int, int],
    lost: Sequence[LostRange],
    *,
    stream_id: int,
    shard: int,
) -> None:
    begin, end = bounds
    old = segment.open_segment(folder, files, base, stream_id=stream_id, shard=shard, write=True)
    try:
        if begin >= end or files.fstat(old.fd).st_size <= begin - base + SEGMENT_HEADER_BYTES:
            return
        first = next(iter(segment.scan(old, files, begin, end)), None) or damage.holding(lost, begin)
        if first is None:
            raise Damaged(f"{old.path}: no valid block at offset {begin}", begin)
        segment.create(
            folder,
            files,
            base=begin,
            stream_id=stream_id,
            shard=shard,
            created_ms=old.created_ms,
            first_counter=first.first_counter,
            arrival_ms=max([old.arrival_ms, *(header.arrival_ms for header in segment.scan(old, files, base, begin))]),
            content=lambda seed: _blocks(old, files, begin, end, seed, lost),
            sync=True,
        )
        if begin > base:
            files.ftruncate(old.fd, begin - base + SEGMENT_HEADER_BYTES)
            files.fsync(old.fd)
    finally:
        files.close(old.fd)


def _blocks(old: Segment, files: Files, begin: int, end: int, seed: int, lost: Sequence[LostRange]) -> Iterator[bytes]:
    """The blocks of [begin, end) with headers for a segment of another seed; what is listed as lost, as it is."""
    reached = begin
    end = min(end, old.base + files.fstat(old.fd).st_size - SEGMENT_HEADER_BYTES)
    while reached < end:
        for header in segment.scan(old, files, reached, end, bodies=True):
            at = header.offset - old.base + SEGMENT_HEADER_BYTES + HEADER_BYTES
            yield block.header(seed, *header[3:]) + files.pread(old.fd, header.body_bytes, at)
            reached = header.end
        if reached < end:
            gone = damage.holding(lost, reached)
            if gone is None:
                raise Damaged(f"{old.path}: no valid block at offset {reached}", reached)
            stop = min(gone.end, end)
            yield files.pread(old.fd, stop - reached, reached - old.base + SEGMENT_HEADER_BYTES)
            reached = stop
