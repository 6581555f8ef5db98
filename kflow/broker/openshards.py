"""Shards that are open for appending: which, for how long, and which of them are still to be synced.

not open --shard--> open --+--> evicted, for others were used since: synced twice more --> not open
+--> dropped: its stream is deleted
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from kflow.broker import opening
from kflow.broker.folder import DataFolder
from kflow.broker.opening import name_of
from kflow.broker.recovery import Marks, checkpointed
from kflow.broker.shard import Shard, Space
from kflow.broker.streammap import StreamMap
from kflow.broker.sync import THREADS, Committed, SyncTask, make_durable, not_held, run_all
from kflow.clock import Clock, Now, SystemClock
from kflow.errors import StaleMap

OPEN_SHARDS: Final = 256
"""Shards kept open at once; each holds a segment's descriptor and, before Python 3.13, its page's."""

_GATES: Final = 64
"""Shards that are opened at the same time; two of them may have to wait for each other."""

_Key = tuple[int, int]


class _Evicted:
    """A shard that was dropped from the open ones, and how often it is still to be synced."""

    __slots__ = ("folder", "name", "rounds")

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.name = name
        self.rounds = 2


class OpenShards:
    """The open shards of a folder.

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

    def open_all(self, due: Sequence[tuple[StreamMap, int]], *, threads: int) -> None:
        """Open shards, each of which may have to be recovered; what checkpoints name is read once for each stream.

        Args:
            due: maps and indexes.
            threads: how many are opened at once; 1 does it in this thread.

        Raises:
            StorageError: one could not be opened; all others were tried.
        """
        self._recovering = True
        try:
            run_all([functools.partial(self.shard, stream, index) for stream, index in due], threads=threads)
        finally:
            self._recovering = False
            self._marks.clear()

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

    def _retain_for(self, stream_id: int, hours: int) -> None:
        """The records of a stream are to be kept so long from now on."""
        with self._lock:
            for (found, _), shard in self._alive.items():
                if found == stream_id:
                    shard.retain_for(hours)

    def _drop(self, stream_id: int) -> None:
        """A stream is about to go: its shards are nobody's any more."""
        with self._lock:
            for key in [key for key in self._shards if key[0] == stream_id]:
                del self._shards[key]
            for key in [key for key in self._alive if key[0] == stream_id]:
                self._alive.pop(key, None)  # the last who used it may let it go at this moment
            for key in [key for key in self._evicted if key[0] == stream_id]:
                del self._evicted[key]

    def _verify_map(self, stream: StreamMap) -> None:
        if self._turn_of.get(stream.id) == self._turn:
            return
        found = self.folder.current(stream)
        if found.generation != stream.generation:
            raise StaleMap(f"the shards of stream {stream.name} have changed: read its map again")
        self._turn_of[stream.id] = self._turn

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

    def _synced(self, key: _Key) -> bool:
        """A task has ended; whether it must do its work again."""
        with self._lock:
            if key in self._again:
                self._again.discard(key)
                return True
            self._syncing.discard(key)
            return False
