"""Retention: the horizon moves, and segments below it are removed.

    a segment's last record older than the retention --look 1--> noted --look 2, an hour of monotonic time later-->
    horizon stored --> files removed

The horizon is an offset that only the writer stores; consumers compare no times. Two looks, with no step of the clock
over 60 s between: a clock that jumps a month ahead must lose nothing.
"""

from __future__ import annotations

import itertools
import logging
import os
from typing import Final

from kflow.broker import segment as segments
from kflow.broker.ctl import ARRIVAL, DURABLE, HORIZON, POISONED, TAIL, Ctl, sync_page
from kflow.broker.files import Files, storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.streammap import StreamMap
from kflow.clock import Now
from kflow.errors import Damaged, StorageError

log = logging.getLogger(__name__)

APART_MS: Final = 3_600_000
"""Monotonic time between the two looks."""
_STEP_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000

_Key = tuple[int, int]
_Look = tuple[int, int]


class Retention:
    """What earlier looks have seen. In memory only: a restart begins anew, and expires later. One thread uses it."""

    def __init__(self, *, told_when_durable: bool = False) -> None:
        """Begin.

        Args:
            told_when_durable: records are shown to readers only once they are durable (`always`). Then nothing expires
                past the durable tail, where a shard whose sync failed may stand for long; and no segment goes before
                the page that says so is durable: recovery takes what is missing above it for never acknowledged.
        """
        self._told_when_durable = told_when_durable
        self._end = DURABLE if told_when_durable else TAIL
        self._looks: dict[_Key, list[_Look]] = {}  # (stream id, shard) -> (monotonic ms, expired up to), rising
        self._drift_ms: int | None = None

    def begin(self, now: Now) -> None:
        """Begin a round: where the clock was stepped since the last one, what was noted counts for nothing."""
        drift_ms = now.epoch_ms - now.monotonic_ms
        if self._drift_ms is not None and abs(drift_ms - self._drift_ms) > _STEP_MS:
            log.warning(
                "the clock was stepped by %d s: retention begins to look anew", (drift_ms - self._drift_ms) // 1000
            )
            self._looks.clear()
        self._drift_ms = drift_ms

    def look_at_all(self, folder: DataFolder, now: Now) -> int:
        """Look at every shard of a data folder.

        Returns:
            How many bytes of the log expired.

        Raises:
            StorageError: a shard could not be read or written; the others were looked at.
        """
        self.begin(now)
        files = folder.files
        expired = 0
        failure: StorageError | None = None
        there: set[_Key] = set()
        for stream in folder.live_maps():
            for shard in stream.shards:
                there.add((stream.id, shard.index))
                path = os.fspath(folder.shard_dir(stream, shard.index))
                try:
                    ctl = Ctl.open(path, files, owner=(stream.id, shard.index), write=True)
                    if ctl.is_current:
                        expired += self.look(path, files, ctl, stream, shard.index, now)
                except OSError as error:
                    # Where the folder is gone, the stream was deleted meanwhile.
                    if not isinstance(error, FileNotFoundError) or files.exists(path):
                        failure = storage_error(error, f"expire records of shard {shard.index} of stream {stream.name}")
                except StorageError as error:
                    failure = error
        for key in self._looks.keys() - there:  # their streams were deleted
            del self._looks[key]
        if failure is not None:
            raise failure
        return expired

    def look(self, folder: str, files: Files, ctl: Ctl, stream: StreamMap, index: int, now: Now) -> int:
        """Look at one shard; move its horizon and remove files where that is due.

        Returns:
            How many bytes of the log expired.

        Raises:
            OSError: from the file system.
        """
        words = ctl.words
        horizon = words[HORIZON]
        key = (stream.id, index)
        looks = self._looks.setdefault(key, [])
        if words[self._end] <= horizon:
            looks.clear()
            self._remove(folder, files, words)
            return 0
        expired = self._expired(folder, files, ctl, stream, index, now)
        mature = [offset for at, offset in looks if at <= now.monotonic_ms - APART_MS]
        moved = 0
        if mature:
            moved = min(mature[-1], expired) - horizon
            del looks[: len(mature)]
        if expired > horizon and (not looks or expired > looks[-1][1]):
            looks.append((now.monotonic_ms, expired))
        if moved > 0:
            words[HORIZON] = horizon + moved
            log.info("expired stream=%s shard=%d bytes=%d", stream.name, index, moved)
        self._remove(folder, files, words)
        return max(0, moved)

    def _expired(self, folder: str, files: Files, ctl: Ctl, stream: StreamMap, index: int, now: Now) -> int:
        """Logical offset below which every record is older than the retention."""
        words = ctl.words
        tail, arrival_ms = words[self._end], words[ARRIVAL]
        oldest_ms = now.epoch_ms - stream.retention_hours * _HOUR_MS
        if arrival_ms < oldest_ms:
            return tail
        expired = words[HORIZON]
        for base in segments.bases(folder, files):
            if expired < base < tail:
                try:
                    opened = segments.open_segment(folder, files, base, stream_id=stream.id, shard=index)
                except Damaged:  # it does not tell when what lies before it came: the one after it does
                    continue
                files.close(opened.fd)
                if opened.arrival_ms >= oldest_ms:
                    break
                expired = base
        return expired

    def _remove(self, folder: str, files: Files, words: memoryview) -> None:
        """Remove the segments that end at or below the horizon; never the last one, which is appended to."""
        horizon = words[HORIZON]
        found = segments.bases(folder, files)
        expired = [base for base, following in itertools.pairwise(found) if following <= horizon]
        if expired and self._told_when_durable:
            if words[POISONED]:
                return  # a sync that succeeds proves nothing any more, until a restart
            try:
                sync_page(folder, files)
            except OSError:
                words[POISONED] = 1
                raise
        for base in expired:
            segments.remove(folder, files, base)
