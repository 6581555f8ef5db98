"""The log of a data folder, as its one writer sees it: open shards, appends, streams made and deleted.

Whoever uses a `Log` holds the folder's `writer.lock`: a node for its life, a script without a node for one call
(`kflow.broker.writing`).
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from kflow import limits
from kflow.broker import attributes as attributefiles
from kflow.broker import catalogue, opening, streammap, streams
from kflow.broker.attributes import DEFAULTS, Attributes
from kflow.broker.ctl import DURABLE, TAIL, Ctl
from kflow.broker.encode import Part
from kflow.broker.files import storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.opening import name_of
from kflow.broker.recovery import Marks, checkpointed
from kflow.broker.retention import Retention
from kflow.broker.shard import Shard, Space
from kflow.broker.streammap import StreamMap, StreamMode
from kflow.broker.sync import THREADS, Committed, SyncTask, make_durable, not_held, run_all
from kflow.clock import Clock, Now, SystemClock
from kflow.errors import (
    KflowError,
    ResourceInUse,
    StaleMap,
    StorageError,
)

log = logging.getLogger(__name__)

OPEN_SHARDS: Final = 256
"""Shards kept open at once; each holds a segment's descriptor and, before Python 3.13, its page's."""

_GATES: Final = 64
"""Shards that are opened at the same time; two of them may have to wait for each other."""

_Key = tuple[int, int]


class End(NamedTuple):
    """Where a shard ends.

    Attributes:
        tail: logical offset past the last committed block.
        readable: logical offset up to which readers may read.
    """

    tail: int
    readable: int


class _Evicted:
    """A shard that was dropped from the open ones, and how often it is still to be synced."""

    __slots__ = ("folder", "name", "rounds")

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.name = name
        self.rounds = 2


class Log:
    """All shards of a folder, for appending.

    `shard` and the tasks of `sync_due` may be used from any thread, and what `shard` returns by one thread at a time,
    but for what it says of itself; everything else belongs to one thread.
    """

    def __init__(self, folder: DataFolder, *, clock: Clock | None = None, open_shards: int = OPEN_SHARDS) -> None:
        self.folder = folder
        self._clock = clock or SystemClock()
        self._files = folder.files
        self._space = Space(os.fspath(folder.path), folder.files)
        self._open_shards = open_shards
        self._shards: OrderedDict[_Key, Shard] = OrderedDict()
        self._alive: weakref.WeakValueDictionary[_Key, Shard] = weakref.WeakValueDictionary()
        self._gates = tuple(threading.Lock() for _ in range(_GATES))
        self._evicted: dict[_Key, _Evicted] = {}
        self._syncing: set[_Key] = set()
        self._again: set[_Key] = set()
        self._lock = threading.Lock()
        self._retention = Retention(told_when_durable=folder.fsync == "always")
        self._recovering = False
        self._marks: dict[int, Marks] = {}  # by stream id, while all shards are recovered
        self._turn = 0
        self._turn_of: dict[int, int] = {}  # stream id -> turn in which its map was verified

    def now(self) -> Now:
        """The time, by the clock that records are stamped with."""
        return self._clock.now()

    def begin_turn(self) -> None:
        """From here on trust nothing remembered: every map and descriptor is verified once before it is used.

        For a process that runs user code or takes the lock for one call; a node never calls it.
        """
        self._turn += 1

    def shard(self, stream: StreamMap, index: int) -> Shard:
        """The open shard, recovered where that was due.

        Raises:
            ResourceNotFound: the stream has no such shard, or is gone.
            StorageError: it cannot be opened.
        """
        key = (stream.id, index)
        found = self._known(key)
        if found is None:
            with self._gates[hash(key) % _GATES]:  # one at a time: opening is recovery, where a writer died
                found = self._known(key)
                if found is None:
                    found = self._open(stream, index)
                    with self._lock:
                        self._keep(key, found)
        return found

    def _known(self, key: _Key) -> Shard | None:
        """The shard where it is open, and what was remembered of it holds."""
        with self._lock:
            found = self._shards.get(key)
            if found is not None:
                self._shards.move_to_end(key)
            else:
                # Evicted, and somebody is in its `append`: a second one would cut what is being written.
                found = self._alive.get(key)
                if found is not None:
                    self._keep(key, found)
        if found is not None and found.verified != self._turn:
            if not found.verify():
                return None
            found.verified = self._turn
        return found

    def _keep(self, key: _Key, opened: Shard) -> None:
        """Have a shard among the open ones; under the lock."""
        self._shards[key] = self._alive[key] = opened
        self._evicted.pop(key, None)
        while len(self._shards) > self._open_shards:
            # Not closed here: a thread may be in its `append`. It closes with the last reference.
            old, dropped = self._shards.popitem(last=False)
            if self.folder.syncs:
                self._evicted[old] = _Evicted(*dropped.place)

    def end(self, stream: StreamMap, index: int) -> End:
        """Where a shard ends. Opens none for appending, as long as its page can be believed; any thread.

        Raises:
            ResourceNotFound: the stream has no such shard, or is gone.
            StorageError: it cannot be looked at.
        """
        key = (stream.id, index)
        with self._lock:
            opened = self._shards.get(key) or self._alive.get(key)
        if opened is None and 0 <= index < len(stream.shards):
            folder = os.fspath(self.folder.shard_dir(stream, index))
            try:
                ctl = Ctl.open(folder, self._files, owner=key, write=False)
            except (OSError, StorageError):
                ctl = None  # opening it says why, or mends it
            if ctl is not None and ctl.is_current:
                words = ctl.words
                return End(words[TAIL], words[DURABLE if self.folder.fsync == "always" else TAIL])
        shard = opened or self.shard(stream, index)
        return End(shard.tail, shard.readable_end)

    def append(
        self, stream: StreamMap, parts: Sequence[Part], producer: int = 0, frame: int = 0
    ) -> list[tuple[int, int]]:
        """Append the parts of one call, in order.

        Returns:
            First counter and arrival (milliseconds) of each part.

        Raises:
            KflowError: of the first part that failed. Parts before it are stored, parts after it for other shards too;
                use `append_each` to learn which.
        """
        answers: list[tuple[int, int]] = []
        for answer in self.append_each(stream, parts, producer, frame):
            if isinstance(answer, KflowError):
                raise answer
            answers.append(answer)
        return answers

    def append_each(
        self, stream: StreamMap, parts: Sequence[Part], producer: int = 0, frame: int = 0
    ) -> list[tuple[int, int] | KflowError]:
        """As `append`, with an error in the place of each part that was not stored.

        After a failure the shard's later parts are not tried, so that nothing overtakes within a partition key.
        """
        if self._turn:
            self._verify_map(stream)
        answers: list[tuple[int, int] | KflowError] = []
        failed: dict[int, KflowError] = {}
        for number, part in enumerate(parts):
            try:
                if failed and part.shard in failed:
                    raise failed[part.shard]
                answers.append(
                    self.shard(stream, part.shard).append(
                        part.body, part.count, part.crc, part.flags, producer, frame, number
                    )
                )
            except KflowError as error:
                failed[part.shard] = error
                answers.append(error)
        return answers

    def find(
        self, stream: StreamMap, shard: int, producer: int, frame: int, part: int, from_offset: int
    ) -> tuple[int, int] | None:
        """Whether a block that may have been appended was: look through the headers from `from_offset` on.

        Args:
            stream: its map.
            shard: index of the shard.
            producer: id of the producer.
            frame: number of its frame.
            part: place in the frame.
            from_offset: a tail that the producer knew before it first sent the block.

        Returns:
            First counter and arrival of the block, or None.

        Raises:
            StorageError: the shard cannot be read.
        """
        opened = self.shard(stream, shard)
        try:
            return opening.find(self.folder, stream, shard, (producer, frame, part), from_offset, opened.tail)
        except OSError as error:
            raise storage_error(error, f"read {name_of(stream, shard)}") from error

    def create_stream(
        self,
        name: str,
        shards: int,
        *,
        retention_hours: int = limits.RETENTION_HOURS,
        max_record_bytes: int = limits.RECORD_BYTES,
        mode: StreamMode = StreamMode.PROVISIONED,
        account: str = "",
        region: str = "",
        attributes: Attributes | None = None,
    ) -> StreamMap:
        """Make a stream; on return it exists, durably unless the policy is `none`.

        Args:
            name: 1 to 128 letters, digits, `_`, `.`, `-`.
            shards: 1 to 1,000, with even hash key ranges.
            retention_hours: 24 to 8,760.
            max_record_bytes: 1 MiB to 10 MiB.
            mode: capacity mode.
            account: of the place that it belongs to; empty for the folder's own.
            region: as `account`.
            attributes: what is kept of it beside its map.

        Raises:
            ResourceInUse: it exists in that place.
            ValidationFailed, InvalidArgument, LimitExceeded: a value is not acceptable.
            StorageError: it could not be written.

        Source: documented: CreateStream.
        """
        streams.check(name, shards, retention_hours, max_record_bytes)
        for found in self.folder.live_maps():
            if (found.name, found.account, found.region) == (name, account, region):
                raise ResourceInUse(f"Stream {name} under account {account or self.folder.account} already exists.")
        wanted = streams.Wanted(name, shards, retention_hours, max_record_bytes, mode, account, region, attributes)
        made = streams.make(self.folder, self._clock, wanted)
        self._catalogue()
        return made

    def alter_stream(self, stream: StreamMap, **changes: Any) -> StreamMap:
        """Change settings of a stream.

        Args:
            stream: whose; its map may be an older one.
            changes: `retention_hours`, `max_record_bytes`, `mode`.

        Returns:
            The new map.

        Raises:
            ResourceNotFound: it is gone.
            InvalidArgument, ValidationFailed: a value is not acceptable.
            StorageError: it could not be written; the old map stands.
        """
        found = self.folder.current(stream)
        hours = changes.get("retention_hours", found.retention_hours)
        streams.check(found.name, 1, hours, changes.get("max_record_bytes", found.max_record_bytes))
        expired_ms = found.trim_ms(self._clock.now().epoch_ms)
        if hours > found.retention_hours and expired_ms > found.created_s * 1000:
            changes["expired_ms"] = expired_ms  # documented: it makes nothing accessible that has expired already
        new = streams.alter(self.folder, found, changes)
        with self._lock:
            for (stream_id, _), shard in self._alive.items():
                if stream_id == new.id:
                    shard.retain_for(hours)
        self._catalogue()
        return new

    def delete_stream(self, name: str, *, unlink: bool = True) -> StreamMap:
        """Delete a home stream with all its records.

        Args:
            name: of the stream.
            unlink: remove the files now; else `empty_trash` does, later and perhaps in another thread.

        Raises:
            ResourceNotFound: there is none.
            StorageError: it could not be written.
        """
        return self.delete(self.folder.map(name), unlink=unlink)

    def delete(self, stream: StreamMap, *, unlink: bool = True) -> StreamMap:
        """Delete a stream of any place with all its records.

        Args:
            stream: its map, perhaps an older one.
            unlink: as for `delete_stream`.

        Raises:
            ResourceNotFound: it is gone.
            StorageError: it could not be written.
        """
        found = self.folder.current(stream)
        self._delete(found)
        self._catalogue()
        if unlink:
            self.empty_trash()
        return found

    def reset_stream(self, name: str) -> StreamMap:
        """Delete a home stream and create it anew, as `reset` does.

        Raises:
            ResourceNotFound: there is none.
            StorageError: it could not be written.
        """
        return self.reset(self.folder.map(name))

    def reset(self, stream: StreamMap) -> StreamMap:
        """Delete a stream and create it anew with as many shards, the same settings and what is kept beside its map.

        The new one is there before the old one goes, so that a crash between leaves one of them.

        Returns:
            The new map.

        Raises:
            ResourceNotFound: it is gone.
            StorageError: it could not be written.
        """
        old = self.folder.current(stream)
        kept = attributefiles.load(self.folder.stream_dir(old), self._files)
        wanted = streams.Wanted(
            old.name,
            len(old.open_shards),
            old.retention_hours,
            old.max_record_bytes,
            old.mode,
            old.account,
            old.region,
            None if kept == DEFAULTS else msgspec.structs.replace(kept, pending=None, created_ms=0),
        )
        made = streams.make(self.folder, self._clock, wanted)
        self._delete(old)
        self._catalogue()
        self.empty_trash()
        return made

    def empty_trash(self) -> None:
        """Remove what deletion has put aside.

        Raises:
            StorageError: something could not be removed.
        """
        streams.empty_trash(self.folder)

    def recover_all(self, *, threads: int = THREADS) -> None:
        """At the start of a node: finish what a crash interrupted, and recover every shard that needs it.

        Args:
            threads: how many shards are recovered at once; 1 does it in this thread.

        Raises:
            StorageError: something could not be written or read.
        """
        due: list[Callable[[], object]] = []
        try:
            streams.remove_leftovers(self.folder)
            for stream in self.folder.live_maps():
                path = self.folder.stream_dir(stream) / streammap.FILE_NAME
                streammap.settle(path, stream, self._files, sync=self.folder.syncs)
                attributefiles.settle(path.parent, self._files, sync=self.folder.syncs)
                due += [
                    functools.partial(self.shard, stream, shard.index)
                    for shard in stream.shards
                    if not opening.is_sound(self.folder, stream, shard.index)
                ]
        except OSError as error:
            raise storage_error(error, f"recover {self.folder.path}") from error
        self._recovering = True
        try:
            run_all(due, threads=threads)
        finally:
            self._recovering = False
            self._marks.clear()
        if self.folder.fsync == "always":  # readers see nothing before
            self.sync(threads=threads)
        self._catalogue()

    def sync_due(self) -> list[SyncTask]:
        """Tasks that make durable what has been committed up to now; run each exactly once, in any thread.

        A shard whose task is still running gets no second one: the running one does its work again.
        """
        if not self.folder.syncs:
            return []
        tasks = []
        with self._lock:
            for key, shard in self._shards.items():
                if not shard.is_unsynced:
                    continue
                if key in self._syncing:
                    self._again.add(key)
                else:
                    self._syncing.add(key)
                    tasks.append(shard.sync_task(functools.partial(self._synced, key)))
            for key, evicted in list(self._evicted.items()):
                if key in self._syncing:
                    self._again.add(key)
                    continue
                # Twice, for a thread that was in `append` while the shard was evicted may have committed after the
                # first.
                evicted.rounds -= 1
                if not evicted.rounds:
                    del self._evicted[key]
                self._syncing.add(key)
                done = functools.partial(self._synced, key)
                tasks.append(SyncTask(evicted.folder, not_held, self._files, evicted.name, done))
        return tasks

    def commits(self) -> list[Callable[[], object]]:
        """With `fsync = "always"`, before the writer lock is given back: what must succeed before anything is answered.

        To be run after that, so that others append meanwhile; whoever waits behind a sync that covers its own records
        has nothing left to do.
        """
        if self.folder.fsync != "always":
            return []
        with self._lock:
            found: list[Callable[[], object]] = [
                functools.partial(shard.make_durable, shard.tail)
                for shard in self._shards.values()
                if shard.verified == self._turn and not shard.is_durable
            ]
            found += [
                functools.partial(make_durable, evicted.folder, self._files, evicted.name)
                for evicted in self._evicted.values()
            ]
            self._evicted.clear()
            return found

    def make_durable(self, stream: StreamMap, index: int) -> Committed:
        """Make one shard durable up to its tail, whatever the policy. Any thread, also while it is appended to.

        Returns:
            The durable tail, and the counter of the first record at or behind it.

        Raises:
            NotDurable: the sync failed, or one before it; the shard takes no more records.
            StorageError: it could not be begun.
            ResourceNotFound: the shard is gone.
        """
        with self._lock:
            opened = self._shards.get((stream.id, index))
        if opened is not None:
            return opened.make_durable()
        # Not opened here: that may mean recovery, which is for the thread that appends.
        return make_durable(os.fspath(self.folder.shard_dir(stream, index)), self._files, name_of(stream, index))

    def sync(self, *, threads: int = THREADS) -> None:
        """Make everything durable that was appended by this log. Does nothing with `none`.

        Args:
            threads: how many syncs run at once; 1 runs them in this thread.

        Raises:
            StorageError: a sync failed; that shard takes no more records.
        """
        run_all(self.sync_due(), threads=threads)

    def retain(self, now: Now) -> int:
        """Let records expire whose retention is over, and remove their files. Call it about once a minute.

        Returns:
            How many bytes of the log expired.

        Raises:
            StorageError: a shard could not be read or written; the others were looked at.
        """
        self._retention.begin(now)
        expired = 0
        failure: StorageError | None = None
        for stream in self.folder.live_maps():
            for shard in stream.shards:
                folder = os.fspath(self.folder.shard_dir(stream, shard.index))
                try:
                    ctl = Ctl.open(folder, self._files, owner=(stream.id, shard.index), write=True)
                    if ctl.is_current:
                        expired += self._retention.look(folder, self._files, ctl, stream, shard.index, now)
                except FileNotFoundError as error:
                    if self._files.exists(folder):  # else the stream was deleted meanwhile
                        failure = storage_error(error, f"expire records of {name_of(stream, shard.index)}")
                except OSError as error:
                    failure = storage_error(error, f"expire records of {name_of(stream, shard.index)}")
                except StorageError as error:
                    failure = error
        if failure is not None:
            raise failure
        return expired

    def close(self) -> None:
        """Close all descriptors. The log can be used again."""
        with self._lock:
            for shard in self._shards.values():
                shard.close()
            self._shards.clear()
            self._alive.clear()
            self._evicted.clear()

    def forget(self) -> None:
        """In a forked child: close what was inherited."""
        self._lock = threading.Lock()
        self._gates = tuple(threading.Lock() for _ in range(_GATES))
        self.close()

    def fds(self) -> list[tuple[int, int, int]]:
        """What is open: (descriptor, device, inode)."""
        with self._lock:
            return [fd for shard in self._shards.values() for fd in shard.fds()]

    def _open(self, stream: StreamMap, index: int) -> Shard:
        opened = opening.open_shard(
            self.folder,
            stream,
            index,
            clock=self._clock,
            space=self._space,
            marks=functools.partial(self._marks_of, stream.id),
        )
        opened.verified = self._turn
        return opened

    def _marks_of(self, stream_id: int) -> Marks:
        """What checkpoints name; read once for all shards of a stream that are recovered together."""
        found = self._marks.get(stream_id)
        if found is None:
            found = checkpointed(os.fspath(self.folder.path), self._files, stream_id)
            if self._recovering:
                self._marks[stream_id] = found
        return found

    def _verify_map(self, stream: StreamMap) -> None:
        if self._turn_of.get(stream.id) == self._turn:
            return
        found = self.folder.current(stream)
        if found.generation != stream.generation:
            raise StaleMap(f"the shards of stream {stream.name} have changed: read its map again")
        self._turn_of[stream.id] = self._turn

    def _delete(self, stream: StreamMap) -> None:
        with self._lock:
            for key in [key for key in self._shards if key[0] == stream.id]:
                del self._shards[key]
            for key in [key for key in self._alive if key[0] == stream.id]:
                del self._alive[key]
            for key in [key for key in self._evicted if key[0] == stream.id]:
                del self._evicted[key]
        streams.delete(self.folder, stream)

    def _synced(self, key: _Key) -> bool:
        """A task has ended; whether it must do its work again."""
        with self._lock:
            if key in self._again:
                self._again.discard(key)
                return True
            self._syncing.discard(key)
            return False

    def _catalogue(self) -> None:
        import sqlite3  # weight: only administration needs it

        try:
            catalogue.rebuild(self.folder.path, self.folder.live_maps(), self._files)
        except (OSError, StorageError, sqlite3.Error) as error:  # a copy for people: the maps are what counts
            log.warning("catalogue not written error=%s", error)
