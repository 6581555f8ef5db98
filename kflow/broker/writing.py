"""Appending without a node: the writer lock for one call, and what a process keeps between two of them."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final

from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.sync import THREADS, run_all
from kflow.errors import NotDurable, ResourceNotFound, StorageError

log = logging.getLogger(__name__)

KEPT: Final = 32
"""So many folders' files a process keeps open between two calls; those of others are opened when they are needed."""
SYNC_INTERVAL_S: Final = 0.1
"""With `interval`: what was appended is synced at most this often, and at exit."""


class writing:  # noqa: N801  # used as a function: `with writing(folder) as log:`
    """Append without a node: holds `writer.lock` for the `with` block and yields the folder's log.

    Under the lock nothing remembered is trusted: FORMAT, the stream's map, control pages and descriptors are looked at
    anew. After the block, and once the lock is free again, bytes are synced where the policy asks for it: with
    `interval` at most every 100 ms and at exit; with `always` before the block counts as done. Any thread; threads of
    one process queue up.

    Args:
        folder: opened.
        timeout_s: how long to wait for the lock; 0 tries once.

    Raises:
        DataFolderBusy: a node or another process holds the lock.
        StorageError: the folder is gone, replaced or unusable.
        NotDurable: after the block, with `always`: what was appended is stored, and whether it survives a loss of power
            nobody knows.
    """

    __slots__ = ("_timeout_s", "_writer")

    def __init__(self, folder: DataFolder, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        key = os.fspath(folder.path)
        writer = _writers.get(key)
        self._writer = writer if writer is not None and writer.serves(folder) else _writer(key, folder)

    def __enter__(self) -> Log:
        writer = self._writer
        writer.lock.acquire(self._timeout_s)
        try:
            writer.folder.recheck()
            writer.folder.upgrade()
            writer.log.begin_turn()
        except BaseException:
            writer.lock.release()
            raise
        return writer.log

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        writer = self._writer
        commits: list[Callable[[], object]] = []
        try:
            commits = writer.log.commits()
        finally:
            writer.lock.release()
        if commits:
            _commit(commits, failed=error is not None)
        elif writer.folder.fsync == "interval":
            now_s = time.monotonic()
            if now_s - writer.synced_s >= SYNC_INTERVAL_S:
                writer.synced_s = now_s
                writer.sync()


def _commit(commits: Sequence[Callable[[], object]], *, failed: bool) -> None:
    """With `always`: make durable what was appended, or say that it may not be. `failed` has its own error to tell."""
    try:
        run_all(commits)
    except (StorageError, ResourceNotFound) as error:
        if failed:
            log.error("sync failed error=%s", error)  # noqa: TRY400  # the text says it all
            return
        raise NotDurable(str(error)) from error


class _Writer:
    """What a process keeps between two calls of `writing` for one folder."""

    __slots__ = ("folder", "lock", "log", "synced_s")

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.lock = folder.writer_lock()
        self.log = Log(folder)
        self.synced_s = 0.0

    def serves(self, folder: DataFolder) -> bool:
        """Whether `folder` is this writer's folder, though perhaps opened another time."""
        own = self.folder
        return own is folder or (own.id == folder.id and own.files is folder.files)

    def is_let_go(self) -> bool:
        """Sync and close what is open, unless somebody writes. Whoever has it still may write: it is opened again."""
        try:
            if not self.lock.try_acquire():
                return False
        except StorageError:  # the folder is gone
            self.log.close()
            return True
        try:
            self.sync()
            self.log.close()
        finally:
            self.lock.release()
        return True

    def sync(self, *, threads: int = THREADS) -> None:
        try:
            self.log.sync(threads=threads)
        except StorageError as error:  # the shard is poisoned, so the next append says so; this one is committed
            log.error("sync failed error=%s", error)  # noqa: TRY400  # the text says it all


_writers: dict[str, _Writer] = {}
_writers_lock = threading.Lock()


def _writer(key: str, folder: DataFolder) -> _Writer:
    with _writers_lock:
        found = _writers.get(key)
        if found is None or not found.serves(folder):
            if found is not None:
                found.sync()
            elif not _writers:
                atexit.register(_sync_at_exit)
            found = _writers[key] = _Writer(folder)
            if len(_writers) > KEPT:
                _let_go_of_one(found)
        return found


def _let_go_of_one(newest: _Writer) -> None:
    """Close the files of the folder that came first, of those that nobody writes to now."""
    for key, writer in _writers.items():
        if writer is not newest and writer.is_let_go():
            del _writers[key]
            return


def _sync_at_exit() -> None:
    for writer in list(_writers.values()):
        writer.sync(threads=1)


def _after_fork_in_child() -> None:
    """A child has its own descriptors and its own lock, or none: what it inherited belongs to the parent."""
    global _writers_lock  # noqa: PLW0603  # another thread of the parent may have held it
    _writers_lock = threading.Lock()
    for writer in list(_writers.values()):
        writer.log.forget()
    _writers.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
