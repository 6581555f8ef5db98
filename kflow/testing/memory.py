"""File calls on a disk in memory, for tests: fast, repeatable, and able to lose power.

    files = MemoryFiles()
    folder = DataFolder.open("/data", create=True, files=files)
    ...
    for found in itertools.islice(files.crash_images(random), 20):
        DataFolder.open("/data", files=found)      # as after a loss of power

One `MemoryFiles` stands for one process: `process()` makes another one on the same disk, and `kill()` takes the
descriptors and locks of a process away, as its end does, without touching what was written.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from kflow.broker.files import Files, Path
from kflow.testing.disk import Disk, Inode

FIRST_DESCRIPTOR: Final = 1 << 20
"""Above every real one, so that a call that goes around `Files` fails at once."""

_descriptors = itertools.count(FIRST_DESCRIPTOR)


class _Opened:
    __slots__ = ("inode", "reads", "writes")

    def __init__(self, inode: Inode, flags: int) -> None:
        access = flags & os.O_ACCMODE
        self.inode = inode
        self.reads = access != os.O_WRONLY
        self.writes = access != os.O_RDONLY


class MemoryFiles(Files):
    """The file calls of one process on a disk in memory.

    Attributes:
        disk: files, folders, and what of them would survive a loss of power.
    """

    __slots__ = ("_opened", "disk")

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self._opened: dict[int, _Opened] = {}

    def process(self) -> MemoryFiles:
        """Another process on the same disk, with descriptors and locks of its own."""
        return type(self)(self.disk)

    def kill(self) -> None:
        """As the end of the process does: close all descriptors, give back all locks; everything written stays."""
        for fd in list(self._opened):
            self.close(fd)

    def crash_image(self, random: Random, *, survives: float | None = None) -> MemoryFiles:
        """What a machine might find that lost its power now: all that was synced, and any subset of the rest.

        Args:
            random: decides what survives.
            survives: 0: nothing that was not synced; 1: everything; None: any subset.

        Returns:
            File calls on a disk of its own; this one goes on unchanged.
        """
        with self.disk.lock:
            return type(self)(self.disk.image(random, survives=survives))

    def crash_images(self, random: Random) -> Iterator[MemoryFiles]:
        """Without end: the image where nothing survived but what was synced, that where all did, then random ones."""
        yield self.crash_image(random, survives=0)
        yield self.crash_image(random, survives=1)
        while True:
            yield self.crash_image(random)

    @property
    def open_descriptors(self) -> int:
        """How many descriptors this process has open."""
        return len(self._opened)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:  # noqa: ARG002  # `os.open` has a mode
        """As `os.open`."""
        with self.disk.lock:
            folder, name = self._parent(path)
            inode = self._entry(folder, name)
            if inode is None:
                if not flags & os.O_CREAT:
                    raise _error(errno.ENOENT, path)
                inode = self.disk.make(is_folder=False)
                self.disk.rename((folder, name, inode))
            elif flags & os.O_CREAT and flags & os.O_EXCL:
                raise _error(errno.EEXIST, path)
            elif inode.names is not None and (flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_CREAT):
                raise _error(errno.EISDIR, path)
            elif inode.names is None and flags & os.O_DIRECTORY:
                raise _error(errno.ENOTDIR, path)
            elif flags & os.O_TRUNC and inode.data:
                self.disk.cut(inode, 0)
            fd = next(_descriptors)
            self._opened[fd] = _Opened(inode, flags)
            inode.users += 1
            return fd

    def close(self, fd: int) -> None:
        """As `os.close`."""
        with self.disk.lock:
            opened = self._opened.pop(fd, None)
            if opened is None:
                raise _error(errno.EBADF)
            inode = opened.inode
            if inode.locks.pop(opened, None) is not None:
                self.disk.unlocked.notify_all()
            inode.users -= 1
            self.disk.release(inode)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """As `os.pread`."""
        opened = self._opened.get(fd)
        if opened is None or not opened.reads:
            raise _error(errno.EBADF)
        if opened.inode.names is not None:
            raise _error(errno.EISDIR)
        return bytes(opened.inode.data[offset : offset + length])

    def pwrite(self, fd: int, content: bytes, offset: int) -> int:
        """As `os.pwrite`; on a full disk it writes what there is room for, and fails where there is none."""
        opened = self._opened.get(fd)
        if opened is None or not opened.writes:
            raise _error(errno.EBADF)
        with self.disk.lock:
            written = self.disk.write(opened.inode, offset, bytes(content))
        if not written and content:
            raise _error(errno.ENOSPC)
        return written

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        """As `os.pwritev`."""
        return self.pwrite(fd, b"".join(buffers), offset)

    def ftruncate(self, fd: int, length: int) -> None:
        """As `os.ftruncate`."""
        opened = self._opened.get(fd)
        if opened is None or not opened.writes:
            raise _error(errno.EBADF)
        with self.disk.lock:
            self.disk.cut(opened.inode, length)

    def fstat(self, fd: int) -> os.stat_result:
        """As `os.fstat`."""
        opened = self._opened.get(fd)
        if opened is None:
            raise _error(errno.EBADF)
        return self._status(opened.inode)

    def stat(self, path: Path) -> os.stat_result:
        """As `os.stat`."""
        return self._status(self._find(path))

    lstat = stat

    def statvfs(self, path: Path) -> os.statvfs_result:
        """As `os.statvfs`."""
        self._find(path)
        size = 4096
        free = max(0, self.disk.capacity_bytes - self.disk.used_bytes) // size
        total = self.disk.capacity_bytes // size
        return os.statvfs_result((size, size, total, free, free, 1 << 30, 1 << 30, 1 << 30, 0, 255))

    def rename(self, source: Path, target: Path) -> None:
        """As `os.rename`: over what is there."""
        with self.disk.lock:
            from_folder, from_name = self._parent(source)
            to_folder, to_name = self._parent(target)
            inode = self._entry(from_folder, from_name)
            if inode is None:
                raise _error(errno.ENOENT, source)
            old = self._entry(to_folder, to_name)
            if old is inode:
                return
            if inode is to_folder or self._is_below(to_folder, inode):
                raise _error(errno.EINVAL, target)
            if old is not None and inode.names is not None:
                if old.names is None:
                    raise _error(errno.ENOTDIR, target)
                if old.names:
                    raise _error(errno.ENOTEMPTY, target)
            elif old is not None and old.names is not None:
                raise _error(errno.EISDIR, target)
            self.disk.rename((from_folder, from_name, None), (to_folder, to_name, inode))
            if old is not None:
                self.disk.release(old)

    replace = rename

    def link(self, source: Path, target: Path) -> None:
        """As `os.link`."""
        with self.disk.lock:
            inode = self._find(source)
            folder, name = self._parent(target)
            if self._entry(folder, name) is not None:
                raise _error(errno.EEXIST, target)
            if inode.names is not None:
                raise _error(errno.EPERM, source)
            self.disk.rename((folder, name, inode))

    def unlink(self, path: Path) -> None:
        """As `os.unlink`."""
        with self.disk.lock:
            folder, name = self._parent(path)
            inode = self._entry(folder, name)
            if inode is None:
                raise _error(errno.ENOENT, path)
            if inode.names is not None:
                raise _error(errno.EISDIR, path)
            self.disk.rename((folder, name, None))
            self.disk.release(inode)

    def mkdir(self, path: Path, mode: int = 0o777) -> None:  # noqa: ARG002  # `os.mkdir` has a mode
        """As `os.mkdir`."""
        with self.disk.lock:
            folder, name = self._parent(path)
            if self._entry(folder, name) is not None:
                raise _error(errno.EEXIST, path)
            self.disk.rename((folder, name, self.disk.make(is_folder=True)))

    def rmdir(self, path: Path) -> None:
        """As `os.rmdir`."""
        with self.disk.lock:
            folder, name = self._parent(path)
            inode = self._entry(folder, name)
            if inode is None:
                raise _error(errno.ENOENT, path)
            if inode.names is None:
                raise _error(errno.ENOTDIR, path)
            if inode.names:
                raise _error(errno.ENOTEMPTY, path)
            self.disk.rename((folder, name, None))

    def listdir(self, path: Path) -> list[str]:
        """As `os.listdir`."""
        names = self._find(path).names
        if names is None:
            raise _error(errno.ENOTDIR, path)
        return list(names)

    def flock(self, fd: int, operation: int) -> None:
        """As `fcntl.flock`; what waits longer than `Disk.patience_s` fails as a deadlock."""
        opened = self._opened.get(fd)
        if opened is None:
            raise _error(errno.EBADF)
        with self.disk.lock:
            locks = opened.inode.locks
            if operation & fcntl.LOCK_UN:
                locks.pop(opened, None)
                self.disk.unlocked.notify_all()
                return
            exclusive = bool(operation & fcntl.LOCK_EX)

            def is_free() -> bool:
                return not any(exclusive or held for other, held in locks.items() if other is not opened)

            if not is_free():
                if operation & fcntl.LOCK_NB:
                    raise _error(errno.EWOULDBLOCK)
                if not self.disk.unlocked.wait_for(is_free, self.disk.patience_s):
                    raise _error(errno.EDEADLK)
            locks[opened] = exclusive

    def fsync(self, fd: int) -> None:
        """As `os.fsync`."""
        opened = self._opened.get(fd)
        if opened is None:
            raise _error(errno.EBADF)
        with self.disk.lock:
            self.disk.sync(opened.inode)

    fdatasync = fsync

    def map_page(self, fd: int, length: int, write: bool) -> memoryview:
        """As of `Files`; a mapped file cannot change its length here."""
        opened = self._opened.get(fd)
        if opened is None or (write and not opened.writes):
            raise _error(errno.EBADF)
        if len(opened.inode.data) < length:
            raise ValueError("mmap length is greater than file size")
        with self.disk.lock:
            self.disk.watch(opened.inode)
        view = memoryview(opened.inode.data)[:length]
        return view if write else view.toreadonly()

    def _status(self, inode: Inode) -> os.stat_result:
        kind = stat.S_IFREG | 0o644 if inode.names is None else stat.S_IFDIR | 0o755
        changed = inode.changed
        seconds = changed // 1_000_000_000
        return os.stat_result(
            (kind, inode.number, self.disk.device, inode.links, 0, 0, len(inode.data), seconds, seconds, seconds),
            {"st_atime_ns": changed, "st_mtime_ns": changed, "st_ctime_ns": changed},
        )

    def _parent(self, path: Path) -> tuple[Inode, str]:
        """The folder that holds `path`, and its name there; empty for the folder at the top."""
        folders, name = _parts(os.fspath(path))
        inode = self.disk.root
        for part in folders:
            names = inode.names
            if names is None:
                raise _error(errno.ENOTDIR, path)
            found = names.get(part)
            if found is None:
                raise _error(errno.ENOENT, path)
            inode = found
        if inode.names is None:
            raise _error(errno.ENOTDIR, path)
        return inode, name

    def _entry(self, folder: Inode, name: str) -> Inode | None:
        assert folder.names is not None
        return folder.names.get(name) if name else self.disk.root

    def _is_below(self, folder: Inode, above: Inode) -> bool:
        found = folder.folder
        while found is not None and found is not above:
            found = found.folder
        return found is not None

    def _find(self, path: Path) -> Inode:
        inode = self._entry(*self._parent(path))
        if inode is None or not os.fspath(path):
            raise _error(errno.ENOENT, path)
        return inode


@functools.lru_cache(4096)
def _parts(path: str) -> tuple[tuple[str, ...], str]:
    """Names of the folders on the way, and the last one; all empty for the folder at the top."""
    parts = tuple(part for part in path.split("/") if part and part != ".")
    return parts[:-1], parts[-1] if parts else ""


def _error(code: int, path: Path | None = None) -> OSError:
    return OSError(code, os.strerror(code)) if path is None else OSError(code, os.strerror(code), os.fspath(path))
