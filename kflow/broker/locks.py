"""A lock file that excludes processes and threads alike.

`flock` alone does neither fully: a second thread that locks the same descriptor succeeds, a forked child shares its
parent's lock, and a lock on a file that somebody replaced excludes nobody. So: one mutex per lock in this process, the
descriptor compared with the path after locking, a lock file never unlinked, and a forked child closes its descriptors
without unlocking.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import random
import threading
import time
import weakref

from kflow.broker.files import Files, storage_error
from kflow.errors import DataFolderBusy

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.01
_HOLDER_BYTES = 64
_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB


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
        if not self._mutex.acquire(False):  # by position: this is on every put without a node
            timeout_s = self._wait_for_thread(timeout_s)
        try:
            if self._fd < 0 or not self._locked_at_once():
                self._lock(timeout_s)
            self.held = True
            if announce:
                self._announced = True
                self._write_holder(b"%d %d:%d\n" % (os.getpid(), *self._identity))
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
            self._write_holder(b"")
        self._unlock()

    def holder(self) -> int | None:
        """Process id of the holder, as far as the system or the file tells; None where neither does."""
        return _holder_by_kernel(self._files, self.path) or self._holder_by_content()

    def descriptors(self) -> list[tuple[int, int, int]]:
        """What is open: (descriptor, device, inode)."""
        return [(self._fd, *self._identity)] if self._fd >= 0 else []

    def _wait_for_thread(self, timeout_s: float) -> float:
        """Wait for the mutex; what is left of the time."""
        deadline = time.monotonic() + timeout_s
        if timeout_s <= 0 or not self._mutex.acquire(timeout=timeout_s):
            raise DataFolderBusy(f"{self.path} is held by another thread of this process ({os.getpid()})")
        return max(0.0, deadline - time.monotonic())

    def _lock(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s if timeout_s > 0 else 0.0
        pause_s = _FIRST_PAUSE_S
        while True:
            if self._fd < 0:
                self._open()
            if self._locked_at_once():
                return
            if self._fd < 0:
                continue  # it was not the file at our path: open that one
            remaining_s = deadline - time.monotonic()
            if not deadline or remaining_s <= 0:
                raise self._busy()
            # Jitter: two that wait must not keep meeting; the pause is short, since puts hold the lock for
            # microseconds.
            time.sleep(min(remaining_s, pause_s * (0.5 + random.random())))  # noqa: S311  # no secret
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def _open(self) -> None:
        files = self._files
        try:
            fd = files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_error(error, f"open the lock file {self.path}") from error
        try:
            opened = files.fstat(fd)
        except OSError as error:
            files.close(fd)
            raise storage_error(error, f"look at the lock file {self.path}") from error
        self._fd = fd
        self._identity = (opened.st_dev, opened.st_ino)

    def _locked_at_once(self) -> bool:
        """Lock the open descriptor, then compare it with what was opened and with the path.

        Returns:
            False where somebody else holds the lock; and, with the descriptor dropped, where it was not the file at our
            path any more.
        """
        files = self._files
        try:
            files.flock(self._fd, _EXCLUSIVE)
            found = files.fstat(self._fd)
            named = files.stat(self.path)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            self._drop()
            return False
        except OSError as error:
            if error.errno != errno.EBADF:
                raise storage_error(error, f"lock {self.path}") from error
            self._fd = -1
            return False
        device, inode = self._identity
        if found.st_ino == inode == named.st_ino and found.st_dev == device == named.st_dev:
            return True
        if (found.st_dev, found.st_ino) != self._identity:
            # User code closed ours, and this is a file of its own under the same number.
            files.flock(self._fd, fcntl.LOCK_UN)
            self._fd = -1
            return False
        self._drop()
        return False

    def _busy(self) -> DataFolderBusy:
        pid = self.holder()
        who = f"process {pid}" if pid else "another process"
        return DataFolderBusy(f"{self.path} is held by {who}")

    def _unlock(self) -> None:
        try:
            if self.held:
                self._files.flock(self._fd, fcntl.LOCK_UN)
        except OSError as error:
            if error.errno == errno.EBADF:  # closed by user code in another thread: that gave the lock back
                self._fd = -1
            else:  # closing gives it back too
                self._drop()
        finally:
            self.held = False
            self._mutex.release()

    def __del__(self) -> None:
        self._drop()

    def _drop(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close_if(fd, *self._identity)

    def _write_holder(self, content: bytes) -> None:
        """Where that cannot be done (the disk is full), others cannot name the holder, and nothing more."""
        try:
            self._files.ftruncate(self._fd, 0)
            if content:
                self._files.write_all(self._fd, content, 0)
        except OSError as error:
            if error.errno != errno.EBADF:  # a descriptor that user code closed has given the lock back already
                log.warning("holder of the lock not noted file=%s error=%s", self.path, error)

    def _holder_by_content(self) -> int | None:
        try:
            words = self._files.read_bytes(self.path)[:_HOLDER_BYTES].split()
            found = self._files.stat(self.path)
        except OSError:  # for a message only
            return None
        if len(words) > 1 and words[1] != b"%d:%d" % (found.st_dev, found.st_ino):
            return None  # copied, with the folder, from one that was in use
        return int(words[0]) if words and words[0].isdigit() else None

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
