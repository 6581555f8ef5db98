"""What lies in the segments of a shard after the machine went down: a scan that reads and changes nothing.

From the durable tail on, any write may have reached the disk or not. What follows the last valid block of a segment is
torn, and to be cut, but never below the durable tail: what is not valid there is damage, and stays (`quarantine`).

Valid blocks behind a hole: where records are acknowledged before they are durable, those may have been, and are kept.
Where none is (`always`), a hole past the durable tail says that nothing behind it was acknowledged. It is cut: what
filled the hole is sent again, and must not come behind a later record of its key.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from kflow.broker import damage, salvage
from kflow.broker import segment as segments
from kflow.broker.block import Header
from kflow.broker.damage import LostRange
from kflow.broker.files import Files
from kflow.broker.segment import SEGMENT_HEADER_BYTES, Segment
from kflow.errors import Damaged
from kflow.records import BEGIN_COUNTER

log = logging.getLogger(__name__)

_EVERYTHING: Final = 1 << 63


class Hole(NamedTuple):
    """A range of offsets without a valid block, before one; and the counters around it."""

    start: int
    end: int
    first_counter: int
    next_counter: int


class Scan:
    """One scan. `run` it, then look.

    Attributes:
        durable: what was synced for sure.
        horizon: offset below which records have expired.
        end: where valid blocks end.
        counter: of the record after the last one found.
        arrival_ms: greatest arrival found; 0 for none.
        highest: greatest offset that a file's name or end tells.
        last_base: of the last segment that stays; 0 for none.
        holes: between valid blocks.
        cuts: (base, offset) of segments that end there from now on; one that ends at its base goes.
        unsynced: bases of the segments that stay and were not known to be durable as a whole.
    """

    def __init__(
        self,
        folder: str,
        files: Files,
        stream_id: int,
        shard: int,
        *,
        durable: int,
        horizon: int,
        is_known: bool,
        listed: Sequence[LostRange] = (),
    ) -> None:
        self.durable = durable
        self.horizon = horizon
        self.end = horizon
        self.counter = BEGIN_COUNTER
        self.arrival_ms = 0
        self.highest = 0
        self.last_base = 0
        self.holes: list[Hole] = []
        self.cuts: list[tuple[int, int]] = []
        self.unsynced: list[int] = []
        self._folder = folder
        self._files = files
        self._owner = (stream_id, shard)
        self._is_known = is_known
        self._listed = listed
        self._told: int | None = None
        self._counter = BEGIN_COUNTER
        self._is_over = False  # what lies further on was never acknowledged
        self._reached: int | None = None  # where the next block is expected; None: nothing is known before

    def nothing_was_told_past(self, offset: int, counter: int) -> None:
        """Before `run`: nothing behind a hole was ever acknowledged, where the hole lies at or past an offset.

        Args:
            offset: that one.
            counter: of the first record at or behind the durable tail.
        """
        self._told = offset
        self._counter = counter

    def run(self) -> None:
        """Look through the segments that the durable tail lies in or below.

        Raises:
            OSError: from the file system.
        """
        found = segments.bases(self._folder, self._files)
        if found and not self._is_known:
            self.horizon = self.end = found[0]  # whatever lay below has expired
        for base, following in itertools.pairwise([*found, _EVERYTHING]):
            size = self._files.stat(segments.segment_path(self._folder, base)).st_size
            limit = base + max(0, size - SEGMENT_HEADER_BYTES)
            self.highest = max(self.highest, limit)
            # One that ends at the durable tail is looked through: where the next one holds nothing, it is the last.
            if following < self.durable or following <= self.horizon:
                self.last_base = base
            else:
                self._look_through(base, min(limit, following))

    def _look_through(self, base: int, limit: int) -> None:
        opened = None if self._is_over else self._open(base)
        if opened is None:
            self._end_of(base, base, limit)
            return
        try:
            self.arrival_ms = max(self.arrival_ms, opened.arrival_ms)
            offset, counter = self._start(opened)
            if self._reached is None:
                self._begin(offset, counter)
            valid = offset
            while offset < limit:
                for header in segments.scan(opened, self._files, offset, limit, bodies=True):
                    self._is_over = self._was_never_told(header)
                    if self._is_over:
                        break
                    self._add(header)
                    valid = header.end
                following = None
                if not self._is_over:
                    following = salvage.next_block(opened, self._files, max(valid, offset + 1), limit)
                if following is None:
                    break
                offset = following.offset  # its body may not pass: then the next one is looked for
        finally:
            self._files.close(opened.fd)
        self._end_of(base, valid, limit)

    def _open(self, base: int) -> Segment | None:
        """A segment, or None where its header tells nothing."""
        stream_id, shard = self._owner
        for attempt in (1, 2):
            try:
                return segments.open_segment(self._folder, self._files, base, stream_id=stream_id, shard=shard)
            except Damaged as error:
                # Nothing says that it is not durable: its blocks may tell what its header was.
                if attempt > 1 or self._is_known or not self._mended(base):
                    log.warning("segment without a header error=%s", error)
                    return None
        return None

    def _mended(self, base: int) -> bool:
        stream_id, shard = self._owner
        return salvage.mend_header(
            self._folder, self._files, base, stream_id=stream_id, shard=shard, first_counter=self.counter, sync=True
        )

    def _start(self, opened: Segment) -> tuple[int, int]:
        """Where to begin, and its counter: the last point of the index at or below the durable tail that is valid."""
        if opened.base < self.durable:
            for point in reversed(segments.points(opened, self._files)):
                if point.offset <= self.durable and any(segments.scan(opened, self._files, point.offset, _EVERYTHING)):
                    return point.offset, point.first_counter
        return opened.base, opened.first_counter

    def _begin(self, offset: int, counter: int) -> None:
        """The first block is expected here; where the one at the durable tail has gone with its file, it was there."""
        known = max(self.durable, self.horizon)
        if self._told is not None and offset > known:
            offset, counter = known, self._counter
        self._reached, self.counter = offset, max(self.counter, counter)

    def _was_never_told(self, header: Header) -> bool:
        """Whether this block lies behind a hole, where nothing behind a hole was acknowledged."""
        if self._told is None or self._reached is None:
            return False
        known = damage.holding(self._listed, self._reached)
        if known is not None and header.offset < known.end:
            return True  # a recovery that was interrupted has listed it as lost
        reached = self._reached if known is None else known.end
        return header.offset > reached >= self._told

    def _add(self, header: Header) -> None:
        if self._reached is not None and header.offset > self._reached:
            self.holes.append(Hole(self._reached, header.offset, self.counter, header.first_counter))
        self.counter = max(self.counter, header.first_counter + header.count)
        self.arrival_ms = max(self.arrival_ms, header.arrival_ms)
        self.end = self._reached = header.end

    def _end_of(self, base: int, valid: int, limit: int) -> None:
        """Where the segment ends from now on: behind its last valid block, never below the durable tail."""
        end = max(valid, min(self.durable, limit))
        if end > base:
            self.end = max(self.end, end)
            self.last_base = base
            self.unsynced.append(base)
        if end < limit or end == base:
            self.cuts.append((base, end))
