"""What is done before a shard is opened for appending when its control page cannot simply be believed.

After the machine went down (or the folder was copied) the page says little: blocks are scanned from the durable tail
on, torn bytes copied aside and cut, here and only here, and the shard goes on 2**40 above everything that may ever have
been issued, in offsets and in counters, so that neither is used twice. What lies between is a lost range, and is listed
as such (`damage`).

    scan (reads only) --> lost ranges listed --> page: where it goes on --> cut --> page: believed
                          each durable before the next one begins: a crash at any point leads to the same, or further up
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

from kflow.broker import damage, segment, soundness
from kflow.broker.checkpoints import SlotFile
from kflow.broker.ctl import (
    ARRIVAL,
    BOOT,
    COUNTER,
    DIRTY,
    DURABLE,
    DURABLE_COUNTER,
    HORIZON,
    POISONED,
    SEGMENT,
    TAIL,
    Ctl,
    sync_page,
)
from kflow.broker.damage import DAMAGE, POWER_LOSS, LostRange
from kflow.broker.files import Files
from kflow.broker.scan import Scan
from kflow.broker.segment import SEGMENT_HEADER_BYTES
from kflow.errors import StorageError

log = logging.getLogger(__name__)

GAP: Final = damage.JUMP
"""How far above everything known a shard goes on after power loss; a page may be stale by less than this."""
_COPY_BYTES: Final = 1 << 20

Marks = dict[int, tuple[int, int]]
"""By shard: the greatest offset and the greatest counter that a checkpoint names."""


def open_ctl(
    folder: str,
    files: Files,
    *,
    name: str,
    stream_id: int,
    shard: int,
    closed: bool,
    aside: str,
    now_ms: int = 0,
    marks: Callable[[], Marks] = dict,
    told_when_durable: bool = False,
) -> Ctl:
    """The control page of a shard, with recovery from power loss where that is due. The caller holds `writer.lock`.

    Args:
        folder: of the shard.
        files: file calls.
        name: of the shard, for people.
        stream_id: of the stream.
        shard: index of the shard.
        closed: whether the map says that it takes no more records.
        aside: folder for copies of torn bytes.
        now_ms: the time, milliseconds since the epoch.
        marks: what checkpoints of the stream name (`checkpointed`); asked only where recovery is due.
        told_when_durable: records are acknowledged, and shown to readers, only once they are durable (`always`).

    Raises:
        StorageError: the folder is gone or cannot be used.
        OSError: from the file system.
    """
    ctl: Ctl | None = None
    try:
        ctl = Ctl.open(folder, files, owner=(stream_id, shard), write=True)
    except FileNotFoundError:
        files.stat(folder)
    except StorageError as error:
        log.warning("control page not usable shard=%s error=%s", name, error)
    if ctl is not None:
        owner = {"stream_id": stream_id, "shard": shard}
        doubt = soundness.doubt(folder, files, ctl.words, **owner) if ctl.is_current else ""
        if ctl.is_current and not doubt:
            return ctl
        if doubt:
            log.error("control page not believed shard=%s: %s", name, doubt)
        soundness.curb(folder, files, ctl.words, **owner, doubted=bool(doubt))
    is_known = ctl is not None and ctl.words[BOOT] != 0
    if ctl is None:
        Ctl.create(folder, files, stream_id=stream_id, shard=shard, believed=False)
        ctl = Ctl.open(folder, files, write=True)
    recovery = _Recovery(folder, files, ctl, name, stream_id, shard, is_known=is_known)
    recovery.run(
        closed=closed,
        aside=aside,
        now_ms=now_ms,
        mark=marks().get(shard, (0, 0)),
        told_when_durable=told_when_durable,
    )
    return ctl


class _Recovery:
    """Recovery of one shard after the machine went down."""

    def __init__(
        self, folder: str, files: Files, ctl: Ctl, name: str, stream_id: int, shard: int, *, is_known: bool
    ) -> None:
        self._folder = folder
        self._files = files
        self._ctl = ctl
        self._name = name
        self._is_known = is_known
        words = ctl.words
        self._known_tail, self._known_counter = words[TAIL], words[COUNTER]
        self._listed = damage.read(folder, files)
        durable, horizon = (words[DURABLE], words[HORIZON]) if is_known else (0, 0)
        self._scan = Scan(
            folder, files, stream_id, shard, durable=durable, horizon=horizon, is_known=is_known, listed=self._listed
        )

    def run(self, *, closed: bool, aside: str, now_ms: int, mark: tuple[int, int], told_when_durable: bool) -> None:
        """Recover; the page is current on return."""
        ctl, found = self._ctl, self._scan
        words = ctl.words
        if told_when_durable and self._is_known:
            # The page may be older: what a checkpoint names was durable, too.
            found.nothing_was_told_past(max(found.durable, mark[0]), words[DURABLE_COUNTER])
        found.run()
        counter = max(found.counter, self._known_counter)
        base = max(found.end, self._known_tail, words[SEGMENT])
        if not closed:  # also where nothing was ever appended, as far as a page knows that may be of any age
            base = max(base, found.highest, mark[0], *(entry.end for entry in self._listed)) + GAP
            counter = max(counter, mark[1], *(entry.next_counter for entry in self._listed)) + GAP
        self._list_lost(base, counter, now_ms)
        words[DIRTY] = 1
        words[HORIZON] = min(found.horizon, found.end)  # what had expired may be lost as well
        words[DURABLE] = min(words[DURABLE], found.end)
        words[ARRIVAL] = max(words[ARRIVAL], found.arrival_ms)
        words[COUNTER] = counter
        words[SEGMENT] = max(words[SEGMENT], found.last_base) if closed else base
        words[TAIL] = found.end
        self._sync_page()
        self._cut(aside)
        words[DURABLE_COUNTER] = counter
        words[DURABLE] = found.end
        words[POISONED] = words[DIRTY] = 0
        ctl.adopt()
        self._sync_page()
        log.info("recovered after a restart of the machine shard=%s tail=%d", self._name, found.end)

    def _list_lost(self, base: int, counter: int, now_ms: int) -> None:
        """List what is not there and was: holes between valid blocks, and from their end to where the shard goes on."""
        found = self._scan
        if not self._is_known:
            log.warning("the control page was lost and made anew shard=%s", self._name)
        for start, end, first, following in found.holes:
            if not any(entry.start <= start and end <= entry.end for entry in self._listed):
                self._note(start, end, first, following, (following - first) % GAP, now_ms)
        if base > found.end:
            lost = max(0, self._known_counter - found.counter) % GAP
            self._note(found.end, base, min(found.counter, counter), counter, lost, now_ms)

    def _note(self, start: int, end: int, first: int, following: int, records: int, now_ms: int) -> None:
        reason = DAMAGE if start < self._scan.durable else POWER_LOSS
        damage.note(self._folder, self._files, LostRange(start, end, first, following, records, reason, now_ms))
        if records or self._scan.end < self._known_tail:
            log.warning(
                "records lost with the machine: shard=%s records=%d bytes=%d to %d",
                self._name,
                records,
                start,
                self._known_tail if start == self._scan.end else end,
            )

    def _cut(self, aside: str) -> None:
        """Cut what is torn, after a copy of it was kept; then everything that is left is synced."""
        files, folder, found = self._files, self._folder, self._scan
        for base, end in found.cuts:
            path = segment.segment_path(folder, base)
            size = files.stat(path).st_size
            keep = end - base + SEGMENT_HEADER_BYTES if end > base else 0
            if size > max(keep, SEGMENT_HEADER_BYTES):
                log.warning("torn bytes set aside shard=%s segment=%d bytes=%d", self._name, base, size - keep)
                self._keep_aside(path, keep, size, aside)
            if not keep:
                segment.remove(folder, files, base)
                continue
            fd = files.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                files.ftruncate(fd, keep)
            finally:
                files.close(fd)
        for base in found.unsynced:
            fd = files.open(segment.segment_path(folder, base), os.O_RDONLY | os.O_CLOEXEC)
            try:
                files.fdatasync(fd)
            finally:
                files.close(fd)
        files.sync_folder(folder)

    def _sync_page(self) -> None:
        """Also with `none`: after the next loss of power nothing else tells what was issued since this one."""
        sync_page(self._folder, self._files)
        self._files.sync_folder(self._folder)

    def _keep_aside(self, path: str, begin: int, end: int, aside: str) -> None:
        """Copy bytes that are about to be cut into the trash, for people; a full disk must not stop recovery."""
        files = self._files
        target = os.path.join(aside, f"{os.path.basename(os.path.dirname(path))}-{os.path.basename(path)}.{begin}")
        try:
            files.make_folder(aside)
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
        except OSError as error:
            log.warning("torn bytes not copied file=%s error=%s", target, error)


def checkpointed(folder_path: str, files: Files, stream_id: int) -> Marks:
    """What the checkpoints of all functions on a stream name; of those that can be read.

    Args:
        folder_path: the data folder.
        files: file calls.
        stream_id: of the stream.
    """
    marks: Marks = {}
    try:
        functions = files.listdir(os.path.join(folder_path, "checkpoints"))
    except FileNotFoundError:
        return marks
    for function in functions:
        try:
            slots = SlotFile.open(folder_path, function, stream_id, files=files)
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                log.warning("checkpoints not readable function=%s error=%s", function, error)
            continue
        try:
            for shard, lane in slots.keys():  # noqa: SIM118  # no mapping
                try:
                    slot = slots.load(shard, lane)
                except StorageError as error:
                    log.warning("checkpoint not readable function=%s shard=%d error=%s", function, shard, error)
                    continue
                offset, counter = marks.get(shard, (0, 0))
                marks[shard] = (max(offset, slot.checkpoint.offset), max(counter, slot.checkpoint_counter))
        finally:
            slots.close()
    return marks
