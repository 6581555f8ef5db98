"""A lock file that excludes processes and threads alike.

`flock` alone does neither fully: a second thread that locks the same descriptor succeeds, a forked child shares its
parent's lock, and a lock on a file that somebody replaced excludes nobody. So: one mutex per lock in this process, the
descriptor compared with the path after locking, a lock file never unlinked, and a forked child closes its descriptors
without unlocking.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import threading
import time
import weakref

from kflow.broker.files import Files, storage_error
from kflow.errors import DataFolderBusy

_FIRST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.01
_HOLDER_BYTES = 32


class FileLock:
    """An exclusive lock on `path`, held by at most one thread of one process. Any thread may use it; not reentrant."""

    def __init__(self, path: str | os.PathLike[str], files: Files) -> None:
        self.path = os.fspath(path)
        self._files = files
        self._mutex = threading.Lock()
        self._fd = -1
        self._identity = (0, 0)
        self._announced = False
        self.held = False
        _LOCKS.add(self)

    def acquire(self, timeout_s: float, *, announce: bool = False) -> None:
        """Take the lock, waiting at most `timeout_s`; 0 tries once.

        Args:
            timeout_s: seconds.
            announce: write this process's id into the file until `release`, so that others can name the holder; for
                locks that are held for long.

        Raises:
            DataFolderBusy: somebody else holds it; names the process where that is known.
            StorageError: the file cannot be opened.
        """
        if not self._mutex.acquire(blocking=False):
            deadline = time.monotonic() + timeout_s
            if timeout_s <= 0 or not self._mutex.acquire(timeout=timeout_s):
                raise DataFolderBusy(f"{self.path} is held by another thread of this process ({os.getpid()})")
            timeout_s = max(0.0, deadline - time.monotonic())
        try:
            self._lock(timeout_s)
            self.held = True
            if announce:
                self._write_holder(b"%d\n" % os.getpid())
                self._announced = True
        except BaseException:
            self._unlock()
            raise

    def try_acquire(self, *, announce: bool = False) -> bool:
        """Take the lock if it is free this moment."""
        try:
            self.acquire(0, announce=announce)
        except DataFolderBusy:
            return False
        return True

    def release(self) -> None:
        """Give the lock back. Does nothing in a forked child, where it is not held."""
        if not self.held:
            return
        if self._announced:
            self._announced = False
            try:
                self._write_holder(b"")
            except OSError as error:
                # A descriptor that user code closed has given the lock back already.
                if error.errno != errno.EBADF:
                    raise
        self._unlock()

    def holder(self) -> int | None:
        """Process id of the holder, as far as the system or the file tells; None where neither does."""
        return _holder_by_kernel(self._files, self.path) or self._holder_by_content()

    def descriptors(self) -> list[tuple[int, int, int]]:
        """What is open: (descriptor, device, inode)."""
        return [(self._fd, *self._identity)] if self._fd >= 0 else []

    def _lock(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s if timeout_s > 0 else 0.0
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                if self._locked_once():
                    return
            except BlockingIOError:
                remaining_s = deadline - time.monotonic()
                if not deadline or remaining_s <= 0:
                    raise self._busy() from None
                # Jitter: two that wait must not keep meeting; the pause is short, since puts hold the lock for microseconds.
                time.sleep(min(remaining_s, pause_s * (0.5 + random.random())))  # noqa: S311  # no secret
                pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def _locked_once(self) -> bool:
        """Lock and compare. False: the descriptor or the file was not what it was, look again.

        Raises:
            BlockingIOError: somebody else holds the lock.
        """
        files = self._files
        if self._fd < 0:
            try:
                fd = files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise storage_error(error, f"open the lock file {self.path}") from error
            opened = files.fstat(fd)
            self._fd = fd
            self._identity = (opened.st_dev, opened.st_ino)
        try:
            found = files.fstat(self._fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            self._fd = -1
            return False
        if (found.st_dev, found.st_ino) != self._identity:
            self._fd = -1  # user code closed it and opened a file of its own under this number
            return False
        files.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            named = files.stat(self.path)
        except FileNotFoundError:
            named = None
        if named is not None and (named.st_dev, named.st_ino) == self._identity:
            return True
        self._drop()
        return False

    def _busy(self) -> DataFolderBusy:
        pid = self.holder()
        who = f"process {pid}" if pid else "another process"
        return DataFolderBusy(f"{self.path} is held by {who}")

    def _unlock(self) -> None:
        try:
            if self.held and self._is_ours():
                self._files.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self.held = False
            self._mutex.release()

    def _is_ours(self) -> bool:
        try:
            found = self._files.fstat(self._fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            self._fd = -1
            return False
        return True

    def _drop(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close_if(fd, *self._identity)

    def _write_holder(self, content: bytes) -> None:
        self._files.ftruncate(self._fd, 0)
        if content:
            self._files.write_all(self._fd, content, 0)

    def _holder_by_content(self) -> int | None:
        try:
            text = self._files.read_bytes(self.path)[:_HOLDER_BYTES]
        except OSError:  # for a message only
            return None
        digits = text.strip()
        return int(digits) if digits.isdigit() else None

    def _forget_in_child(self) -> None:
        self._mutex = threading.Lock()  # another thread of the parent may have held it
        self.held = False
        self._announced = False
        self._drop()


def _holder_by_kernel(files: Files, path: str) -> int | None:
    """The process that holds a `flock` on `path`, by Linux's list of locks."""
    try:
        named = files.stat(path)
        table = files.read_bytes("/proc/locks").decode()
    except OSError:  # for a message only; other systems have no such list
        return None
    wanted = f"{os.major(named.st_dev):02x}:{os.minor(named.st_dev):02x}:{named.st_ino}"
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted and int(fields[4]) > 0:
            return int(fields[4])
    return None


_LOCKS: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lock in list(_LOCKS):
        lock._forget_in_child()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork_in_child)
