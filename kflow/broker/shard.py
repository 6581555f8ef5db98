"""The writer's side of one shard: append, roll, recover.

    clean --append: dirty stored--> dirty --written; counter, arrival, tail stored (committed)--> clean
    dirty --found by the next append or opening: recover (cut what is past the tail)--> clean
    any   --a sync failed--> poisoned: appends fail until the shard is opened anew and rewritten (`recovery`)

The commit point is the store of the tail: readers look at nothing past it, and nothing is acknowledged before it. With
`fsync = "always"` both hold for the durable tail instead, which a sync moves up (`sync`).
Whoever holds `writer.lock` has the only object of this class for a shard; one thread at a time uses it.
"""

from __future__ import annotations

import errno
import logging
import weakref
from collections.abc import Callable
from typing import Final

from crc32c import crc32c

from kflow import limits
from kflow.broker import segment as segments
from kflow.broker.block import HEADER_BYTES, MAGIC, VERSION, pack_checked, pack_crc
from kflow.broker.ctl import (
    ARRIVAL,
    CLOSED,
    COUNTER,
    DIRTY,
    DURABLE,
    DURABLE_COUNTER,
    FILE_NAME,
    POISONED,
    SEGMENT,
    TAIL,
    Ctl,
)
from kflow.broker.files import Files, storage_error
from kflow.broker.segment import INDEX_BYTES, SEGMENT_HEADER_BYTES, Point, Segment
from kflow.broker.sync import Committed, Held, SyncTask, make_durable
from kflow.clock import Clock, Now
from kflow.errors import Damaged, StorageError, StorageFull

log = logging.getLogger(__name__)

_LOOK_MS: Final = 1000
_CLOCK_STEP_MS: Final = 60_000


class Space:
    """Free space below the data folder, looked at no more than once a second. Shared by the shards of a log."""

    __slots__ = ("_due_ms", "_files", "_path")

    def __init__(self, path: str, files: Files) -> None:
        self._path = path
        self._files = files
        self._due_ms = 0

    def check(self, now: Now) -> None:
        """Refuse below 64 MiB, so that checkpoints, parked files and maps can still be written.

        Raises:
            StorageFull: there is less.
        """
        if now.monotonic_ms < self._due_ms:
            return
        found = self._files.statvfs(self._path)
        if found.f_bavail * found.f_frsize < limits.FREE_BYTES:
            free_mib = found.f_bavail * found.f_frsize >> 20
            raise StorageFull(
                f"only {free_mib} MiB are free below {self._path}: puts are refused below "
                f"{limits.FREE_BYTES >> 20} MiB, so that handlers can go on; free some space and try again"
            )
        self._due_ms = now.monotonic_ms + _LOOK_MS


class Shard:
    """One shard, open for appending."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_committed",
        "_ctl",
        "_durable_only",
        "_files",
        "_folder",
        "_index",
        "_indexed",
        "_look_due_ms",
        "_name",
        "_roll_ms",
        "_segment",
        "_space",
        "_stream_id",
        "_syncs",
        "_warned_ms",
        "_words",
        "verified",
    )

    def __init__(
        self,
        folder: str,
        ctl: Ctl,
        *,
        name: str,
        stream_id: int,
        index: int,
        retention_hours: int,
        files: Files,
        clock: Clock,
        space: Space,
        fsync: str,
    ) -> None:
        self._folder = folder
        self._ctl = ctl
        self._words = ctl.words
        self._name = name
        self._stream_id = stream_id
        self._index = index
        self._roll_ms = 0
        self.retain_for(retention_hours)
        self._files = files
        self._clock = clock
        self._space = space
        self._syncs = fsync != "none"
        self._durable_only = fsync == "always"
        self._committed: Committed = (ctl.words[TAIL], ctl.words[COUNTER])
        self._segment: Segment | None = None
        self._indexed = 0
        self._look_due_ms = 0
        self._warned_ms = 0
        self.verified = 0
        """Of which call by its owner the descriptors were last verified."""

    def retain_for(self, hours: int) -> None:
        """The stream's retention: a segment ends after a part of it, so that records go soon after they expired."""
        self._roll_ms = hours * 3_600_000 // 24

    @property
    def tail(self) -> int:
        """Logical offset past the last committed block."""
        return self._words[TAIL]

    @property
    def next_counter(self) -> int:
        """Counter that the next record gets."""
        return self._words[COUNTER]

    @property
    def readable_end(self) -> int:
        """Logical offset up to which readers may read: the tail, with `fsync = "always"` the durable tail."""
        return self._words[DURABLE if self._durable_only else TAIL]

    @property
    def readable_counter(self) -> int:
        """Counter of the first record at or behind the readable end."""
        return self._words[DURABLE_COUNTER if self._durable_only else COUNTER]

    @property
    def place(self) -> tuple[str, str]:
        """The shard's folder, and its name for people."""
        return self._folder, self._name

    @property
    def is_unsynced(self) -> bool:
        """Whether committed bytes may not be durable yet, and can still become so."""
        words = self._words
        return words[DURABLE] < words[TAIL] and not words[POISONED]

    @property
    def is_durable(self) -> bool:
        """Whether everything committed is durable."""
        words = self._words
        return words[DURABLE] >= words[TAIL]

    def sync_task(self, done: Callable[[], bool]) -> SyncTask:
        """A task that makes what is committed durable; `done` is called then, and says whether to do it once more."""
        open_one = weakref.ref(self)

        def held() -> Held | None:
            shard = open_one()
            return None if shard is None else (shard._ctl, shard._committed_now)  # noqa: SLF001  # itself

        return SyncTask(self._folder, held, self._files, self._name, done)

    def make_durable(self, wanted: int | None = None) -> Committed:
        """Sync what is committed. In any thread, also while another one appends; waits for a sync that is under way.

        Args:
            wanted: offset that is enough to be durable.

        Returns:
            The durable tail, and the counter of the first record at or behind it.

        Raises:
            NotDurable: the sync failed; the shard takes no more records.
            StorageError: it could not be begun.
            ResourceNotFound: the shard is gone.
        """
        return make_durable(self._folder, self._files, self._name, self._ctl, self._committed_now, wanted=wanted)

    def _committed_now(self) -> Committed:
        """Tail and counter of one moment, whoever appended last."""
        committed, words = self._committed, self._words
        if committed[0] == words[TAIL]:
            return committed
        counter = words[COUNTER]
        return words[TAIL], counter

    def append(
        self,
        body: bytes | memoryview,
        count: int,
        crc: int,
        flags: int = 0,
        producer: int = 0,
        frame: int = 0,
        part: int = 0,
    ) -> tuple[int, int]:
        """Append one block and commit it.

        On return readers see it, and it survives a kill of any process. The caller has verified that the body is well
        formed and that `crc` is its CRC32C.

        Args:
            body: the columns, `kflow.broker.block`.
            count: number of records in it.
            crc: CRC32C of `body`.
            flags: of the block.
            producer: id of the producer, 64 bits; with `frame` and `part` it lets a block that is sent again be found.
            frame: number of the producer's frame.
            part: place in the frame.

        Returns:
            Counter of the first record, and the arrival of all of them in milliseconds since the epoch.

        Raises:
            StorageFull: there is too little room. Nothing was stored.
            StorageError: the file could not be written, or a sync failed before. Nothing was stored.
        """
        words = self._words
        if words[DIRTY] or words[POISONED] or words[CLOSED]:
            self._refuse_or_recover()
        now = self._clock.now()
        tail = words[TAIL]
        arrival_ms = words[ARRIVAL]
        if now.epoch_ms >= arrival_ms:
            arrival_ms = now.epoch_ms
        elif arrival_ms - now.epoch_ms > _CLOCK_STEP_MS:
            self._warn_of_clock(now, arrival_ms)
        size = HEADER_BYTES + len(body)
        try:
            if now.monotonic_ms >= self._look_due_ms:
                self._look(now)
            words[DIRTY] = 1
            segment = self._segment
            if segment is None:
                segment = self._open(arrival_ms)
            used = tail - segment.base
            if used < 0:  # after power loss the next block lies far above the last one
                tail = segment.base
                used = 0
            elif used and (used + size > limits.SEGMENT_BYTES or arrival_ms - segment.created_ms > self._roll_ms):
                self._drop()
                segment = self._make(tail, arrival_ms)
                used = 0
            counter = words[COUNTER]
            checked = pack_checked(
                MAGIC, VERSION, flags, len(body), count, crc, frame, counter, arrival_ms, tail, producer, part
            )
            written = self._files.pwritev(
                segment.fd, (pack_crc(crc32c(checked, segment.seed)), checked, body), used + SEGMENT_HEADER_BYTES
            )
            if written != size:
                raise OSError(errno.ENOSPC, f"only {written} of {size} bytes were written")
        except OSError as error:
            raise storage_error(error, f"append to {self._name}") from error
        words[COUNTER] = counter + count
        words[ARRIVAL] = arrival_ms
        words[TAIL] = tail + size  # the commit point
        words[DIRTY] = 0
        self._committed = (tail + size, counter + count)
        if tail - self._indexed >= INDEX_BYTES:
            self._add_point(segment, Point(tail, counter, arrival_ms))
        return counter, arrival_ms

    def verify(self) -> bool:
        """Look at everything remembered anew, after user code or another process may have touched it.

        A segment that was closed, replaced or removed is opened again. Must be called under `writer.lock`.

        Returns:
            Whether the control page is still the one at its path, and believable; if not, open the shard anew.
        """
        try:
            page = self._files.stat(f"{self._folder}/{FILE_NAME}")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, f"look at the control page of {self._name}") from error
        if (page.st_dev, page.st_ino) != self._ctl.identity or not self._ctl.is_current:
            return False
        self._verify_segment()
        return True

    def _verify_segment(self) -> None:
        segment = self._segment
        if segment is None:
            return
        if self._words[SEGMENT] != segment.base:  # another process has rolled since
            self._drop()
            return
        try:
            found = self._files.fstat(segment.fd)
            if (found.st_dev, found.st_ino) == (segment.device, segment.inode):
                if found.st_nlink:
                    return
                self._files.close(segment.fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise storage_error(error, f"look at the segment of {self._name}") from error
            self._ctl.abandon()
        self._segment = None

    def recover(self) -> None:
        """After a writer died or failed in mid-append: remove what lies past the tail. What was committed stays.

        Raises:
            StorageError: the files could not be cut; the shard stays dirty.
        """
        words = self._words
        self._drop()
        try:
            tail = words[TAIL]
            found = segments.bases(self._folder, self._files)
            kept = [base for base in found if base < tail]
            for base in reversed(found[len(kept) :]):
                segments.remove(self._folder, self._files, base)
            if len(kept) < len(found):
                self._sync_cut(lambda: self._files.sync_folder(self._folder))
            if kept:
                opened = self._open_existing(kept[-1])
                end = tail - opened.base + SEGMENT_HEADER_BYTES
                size = self._files.fstat(opened.fd).st_size
                if size > end:
                    self._files.ftruncate(opened.fd, end)
                    self._sync_cut(lambda: self._files.fdatasync(opened.fd))
                elif size < end and words[SEGMENT] <= tail:
                    raise Damaged(f"{opened.path} ends {end - size} bytes before the tail of {self._name}")
            if words[SEGMENT] <= tail:  # above: where it goes on after power loss
                words[SEGMENT] = kept[-1] if kept else tail
            words[DIRTY] = 0
        except OSError as error:
            raise storage_error(error, f"recover {self._name}") from error
        finally:
            self._drop()
        log.info("recovered shard=%s tail=%d", self._name, words[TAIL])

    def _sync_cut(self, sync: Callable[[], None]) -> None:
        """Make sure that what was cut does not come back with a loss of power, at offsets that are issued anew."""
        if not self._syncs:
            return
        try:
            sync()
        except OSError:
            self._words[POISONED] = 1
            raise

    def close(self) -> None:
        """Close the descriptor."""
        self._drop()

    def __del__(self) -> None:
        # Dropped from its owner's list of open shards, perhaps while a thread was in `append`: this is the last use.
        self._drop()

    def fds(self) -> list[tuple[int, int, int]]:
        """What is open: (descriptor, device, inode)."""
        segment = self._segment
        return [] if segment is None else [(segment.fd, segment.device, segment.inode)]

    def _refuse_or_recover(self) -> None:
        words = self._words
        if words[POISONED]:
            raise StorageError(
                f"{self._name}: a sync of its files failed, so it takes no more records; "
                "look at the disk, then restart kflow"
            )
        if words[CLOSED]:
            raise StorageError(f"{self._name} is closed and takes no more records")
        self.recover()

    def _look(self, now: Now) -> None:
        """What is looked at once a second: free space, and whether somebody removed the files."""
        self._space.check(now)
        segment = self._segment
        if segment is not None and not self._files.fstat(segment.fd).st_nlink:
            self._drop()
            raise OSError(errno.ENOENT, f"{segment.path} was removed")
        self._look_due_ms = now.monotonic_ms + _LOOK_MS

    def _open(self, arrival_ms: int) -> Segment:
        """Open the segment that is appended to; make it where none exists at the tail yet."""
        words = self._words
        self._drop()
        base = words[SEGMENT]
        try:
            return self._open_existing(base)
        except FileNotFoundError:
            if base < words[TAIL] or not self._folder_exists():
                raise
        return self._make(base, arrival_ms)

    def _folder_exists(self) -> bool:
        self._files.stat(self._folder)
        return True

    def _open_existing(self, base: int) -> Segment:
        segment = segments.open_segment(
            self._folder, self._files, base, stream_id=self._stream_id, shard=self._index, write=True
        )
        self._segment = segment
        self._indexed = max([point.offset for point in segments.points(segment, self._files)], default=base)
        return segment

    def _make(self, base: int, arrival_ms: int) -> Segment:
        words = self._words
        segments.create(
            self._folder,
            self._files,
            base=base,
            stream_id=self._stream_id,
            shard=self._index,
            created_ms=arrival_ms,
            first_counter=words[COUNTER],
            arrival_ms=words[ARRIVAL],
        )
        words[SEGMENT] = base
        return self._open_existing(base)

    def _add_point(self, segment: Segment, point: Point) -> None:
        self._indexed = point.offset
        try:
            segments.add_point(segment, self._files, point)
        except OSError as error:  # the block is committed, and the index only a hint: seeking scans a little further
            log.warning("index not written shard=%s error=%s", self._name, error)

    def _warn_of_clock(self, now: Now, arrival_ms: int) -> None:
        if now.monotonic_ms < self._warned_ms:
            return
        self._warned_ms = now.monotonic_ms + _CLOCK_STEP_MS
        log.warning(
            "the clock stands %d s behind the last arrival: arrivals stand still until it has caught up, shard=%s",
            (arrival_ms - now.epoch_ms) // 1000,
            self._name,
        )

    def _drop(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            self._files.close_if(segment.fd, segment.device, segment.inode)
