"""Whether a control page can be right: compared with the segments it speaks of.

A page has no checksum, for it is stored into word by word while others look. It has something better: what it says of
the log, the log says too. A page that contradicts its segments is not believed, and made anew as after power loss: then
nothing is read past by mistake, cut by mistake, or issued twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from kflow.broker import segment as segments
from kflow.broker.ctl import (
    ARRIVAL,
    BOOT,
    COUNTER,
    DIRTY,
    DURABLE,
    DURABLE_COUNTER,
    HORIZON,
    SEGMENT,
    TAIL,
)
from kflow.broker.damage import JUMP
from kflow.broker.files import Files
from kflow.broker.segment import SEGMENT_HEADER_BYTES, Segment
from kflow.errors import Damaged

_SANE: Final = 1 << 62
_DAY_MS: Final = 86_400_000


def doubt(folder: str, files: Files, words: Sequence[int], *, stream_id: int, shard: int) -> str:
    """Why a page that was written under this boot cannot be right; empty where it can be.

    Costs the opening of the last segment and the headers behind its last index point. Nobody may append meanwhile. What
    cannot be compared, because a segment is damaged itself, is believed: readers will meet that damage.

    Raises:
        OSError: a file cannot be read.
    """
    if words[DIRTY]:
        return ""  # an append was under way: recovery looks at the files anyway
    tail, counter, horizon = words[TAIL], words[COUNTER], words[HORIZON]
    if max(tail, counter, words[ARRIVAL], words[SEGMENT]) >= _SANE:
        return "it holds a number that no log reaches"
    if horizon > tail or words[DURABLE] > tail or words[DURABLE_COUNTER] > counter:
        return "its words contradict each other"
    bases = segments.bases(folder, files)
    if bases and bases[-1] >= tail:
        return f"segments lie past the tail {tail}"
    if not bases:
        return "" if tail in (0, horizon) else f"there are no segments, though the tail is {tail}"
    if words[SEGMENT] != bases[-1] and words[SEGMENT] < tail + JUMP:
        return f"no segment begins at {words[SEGMENT]}, where it appends"
    return _last(folder, files, words, bases, (stream_id, shard)) or _horizon(
        folder, files, words, bases, (stream_id, shard)
    )


def curb(folder: str, files: Files, words: memoryview, *, stream_id: int, shard: int, doubted: bool) -> None:
    """Before recovery: take from a page what recovery must not build on.

    Args:
        folder: of the shard.
        files: file calls.
        words: of the page.
        stream_id: of the stream.
        shard: index of the shard.
        doubted: whether the page is of this boot and cannot be right; else it is older, and was right once.

    Raises:
        OSError: a file cannot be read.
    """
    bases = segments.bases(folder, files)
    if doubted:
        words[BOOT] = 0  # first of all: from here on nobody takes the page for current
        words[DURABLE] = words[DURABLE_COUNTER] = 0
        path = segments.segment_path(folder, bases[-1]) if bases else ""
        if path and bases[-1] + files.stat(path).st_size - SEGMENT_HEADER_BYTES == words[TAIL]:
            words[COUNTER] = 0  # all that was put is there, so the blocks tell it
    for word in (TAIL, COUNTER, SEGMENT, DURABLE, DURABLE_COUNTER):
        if words[word] >= _SANE:
            words[word] = 0
    if words[ARRIVAL] > _now_ms() + _DAY_MS:
        words[ARRIVAL] = 0
    if words[HORIZON] and (not bases or _horizon(folder, files, words, bases, (stream_id, shard))):
        words[HORIZON] = bases[0] if bases else 0


def _last(folder: str, files: Files, words: Sequence[int], bases: Sequence[int], owner: tuple[int, int]) -> str:
    """Compare tail, counter and arrival with the end of the last segment."""
    opened = _open(folder, files, bases[-1], owner)
    if opened is None:
        return ""
    try:
        tail = words[TAIL]
        end = opened.base + files.fstat(opened.fd).st_size - SEGMENT_HEADER_BYTES
        if end != tail:
            return f"the tail is {tail}, and the last segment ends at {end}"
        reached, counter, arrival_ms = opened.base, opened.first_counter, opened.arrival_ms
        for point in reversed(segments.points(opened, files)):
            if point.offset < tail and any(segments.scan(opened, files, point.offset, tail)):
                reached, counter, arrival_ms = point
                break
        for header in segments.scan(opened, files, reached, tail):
            reached, counter, arrival_ms = header.end, header.first_counter + header.count, header.arrival_ms
    finally:
        files.close(opened.fd)
    if reached != tail:
        return ""  # the segment is damaged
    goes_on_above = words[SEGMENT] > tail  # after power loss, until the next append
    if words[COUNTER] < counter or (words[COUNTER] > counter and not goes_on_above):
        return f"the next counter is {words[COUNTER]}, and the last record's {counter - 1}"
    if not arrival_ms <= words[ARRIVAL] <= max(arrival_ms, _now_ms()) + _DAY_MS:
        return f"the last arrival is {words[ARRIVAL]}, and the last record's {arrival_ms}"
    return ""


def _horizon(folder: str, files: Files, words: Sequence[int], bases: Sequence[int], owner: tuple[int, int]) -> str:
    """The horizon is where a segment begins, or where a block did when it was the tail."""
    horizon = words[HORIZON]
    if horizon <= bases[0] or horizon in bases or horizon == words[TAIL]:
        return ""
    opened = _open(folder, files, max(base for base in bases if base < horizon), owner)
    if opened is None:
        return ""
    try:
        end = opened.base + files.fstat(opened.fd).st_size - SEGMENT_HEADER_BYTES
        if horizon == end or any(segments.scan(opened, files, horizon, words[TAIL])):
            return ""
    finally:
        files.close(opened.fd)
    return f"no block begins at its horizon {horizon}"


def _open(folder: str, files: Files, base: int, owner: tuple[int, int]) -> Segment | None:
    try:
        return segments.open_segment(folder, files, base, stream_id=owner[0], shard=owner[1])
    except Damaged:
        return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
