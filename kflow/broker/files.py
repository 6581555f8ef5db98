"""All file calls of the broker, in one small object that is handed in.

Nothing in `kflow.broker` calls `os` for a file by itself: tests subclass `Files` to inject full disks, I/O errors and
short writes. The plain calls are the functions of `os` themselves, so that the object costs an attribute look-up.
"""

# ruff: noqa: D102  # the plain calls are those of `os`, described there

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kflow.errors import StorageError, StorageFull

Path = str | os.PathLike[str]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_serial = itertools.count()
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class Files:
    """The file system. Stateless; any thread may use it. Errors are the `OSError`s of the system."""

    __slots__ = ()

    if TYPE_CHECKING:  # what whoever takes their place must take, which is less than what `os` takes

        def open(self, path: Path, flags: int, mode: int = 0o777, /) -> int: ...
        def close(self, fd: int, /) -> None: ...
        def pread(self, fd: int, length: int, offset: int, /) -> bytes: ...
        def pwrite(self, fd: int, content: bytes, offset: int, /) -> int: ...
        def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int, /) -> int: ...
        def fstat(self, fd: int, /) -> os.stat_result: ...
        def stat(self, path: Path, /) -> os.stat_result: ...
        def lstat(self, path: Path, /) -> os.stat_result: ...
        def statvfs(self, path: Path, /) -> os.statvfs_result: ...
        def ftruncate(self, fd: int, length: int, /) -> None: ...
        def rename(self, source: Path, target: Path, /) -> None: ...
        def replace(self, source: Path, target: Path, /) -> None: ...
        def link(self, source: Path, target: Path, /) -> None: ...
        def unlink(self, path: Path, /) -> None: ...
        def mkdir(self, path: Path, mode: int = 0o777, /) -> None: ...
        def rmdir(self, path: Path, /) -> None: ...
        def listdir(self, path: Path, /) -> list[str]: ...
        def flock(self, fd: int, operation: int, /) -> None: ...
        def fsync(self, fd: int, /) -> None: ...
        def fdatasync(self, fd: int, /) -> None: ...

    else:
        open = staticmethod(os.open)
        close = staticmethod(os.close)
        pread = staticmethod(os.pread)
        pwrite = staticmethod(os.pwrite)
        pwritev = staticmethod(os.pwritev)
        fstat = staticmethod(os.fstat)
        stat = staticmethod(os.stat)
        lstat = staticmethod(os.lstat)
        statvfs = staticmethod(os.statvfs)
        ftruncate = staticmethod(os.ftruncate)
        rename = staticmethod(os.rename)
        replace = staticmethod(os.replace)
        link = staticmethod(os.link)
        unlink = staticmethod(os.unlink)
        mkdir = staticmethod(os.mkdir)
        rmdir = staticmethod(os.rmdir)
        listdir = staticmethod(os.listdir)
        flock = staticmethod(fcntl.flock)

        if sys.platform == "darwin":  # pragma: no cover

            def fsync(self, fd: int) -> None:
                """Make the file durable; on macOS that takes F_FULLFSYNC, for fsync stops at the drive's cache."""
                fcntl.fcntl(fd, _FULL_SYNC)

            fdatasync = fsync
        else:
            fsync = staticmethod(os.fsync)
            fdatasync = staticmethod(os.fdatasync)

    def map_page(self, fd: int, length: int, write: bool) -> memoryview:
        """Map the first `length` bytes of a file that is no shorter: every process sees what is stored, at once.

        The view does not need the descriptor, and holds the mapping for as long as it lives. Before Python 3.13 the
        mapping keeps a descriptor of its own.

        Args:
            fd: open for reading, and for writing if `write`.
            length: a whole number of pages.
            write: whether the view may be stored into.
        """
        options: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        return memoryview(mmap.mmap(fd, length, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ, **options))

    def pread_cached(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Read what is in memory already, and never wait for a disk.

        Returns:
            How many bytes that was; less than fit where the file ends there, or the rest is not in memory.

        Raises:
            OSError: nothing is in memory, or the system or the file system cannot tell.
        """
        if _NO_WAIT is None:
            raise BlockingIOError(errno.EAGAIN, "this system cannot tell what is in memory")
        return os.preadv(fd, (buffer,), offset, _NO_WAIT)

    def exists(self, path: Path) -> bool:
        """Whether there is something at `path`; False where it cannot be looked at."""
        try:
            self.stat(path)
        except (OSError, ValueError):
            return False
        return True

    def is_folder(self, path: Path) -> bool:
        """Whether there is a folder at `path` itself: a link to one is none."""
        try:
            return stat.S_ISDIR(self.lstat(path).st_mode)
        except OSError:
            return False

    def is_link(self, path: Path) -> bool:
        """Whether there is a symbolic link at `path`, wherever it leads."""
        try:
            return stat.S_ISLNK(self.lstat(path).st_mode)
        except OSError:
            return False

    def read_bytes(self, path: Path) -> bytes:
        """The whole content of a file."""
        fd = self.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pieces: list[bytes] = []
            offset = 0
            while piece := self.pread(fd, 1 << 20, offset):
                pieces.append(piece)
                offset += len(piece)
            return b"".join(pieces)
        finally:
            self.close(fd)

    def write_new(self, path: Path, content: bytes, *, sync: bool) -> None:
        """Write a file that nobody looks at yet (replacing a leftover of that name), durable if `sync`.

        Raises:
            OSError: not everything was written; the file is removed again where that is possible.
        """
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            try:
                self.write_all(fd, content, 0)
                if sync:
                    self.fsync(fd)
            finally:
                self.close(fd)
        except OSError:
            self.discard(path)
            raise

    def write_all(self, fd: int, content: bytes, offset: int) -> None:
        """`pwrite` that counts a short write as what it is: a full disk.

        Raises:
            OSError: ENOSPC for a short write, else what `pwrite` raised.
        """
        written = self.pwrite(fd, content, offset)
        if written != len(content):
            raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes were written")

    def write_replace(self, path: Path, content: bytes, *, sync: bool) -> None:
        """Replace a file in one step: written under a temporary name, synced if asked, renamed, its folder synced."""
        temporary = temporary_name(path)
        try:
            self.write_new(temporary, content, sync=sync)
            self.replace(temporary, path)
        except OSError:
            self.discard(temporary)
            raise
        if sync:
            self.sync_folder(os.path.dirname(os.fspath(path)))

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        fd = self.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.fsync(fd)
        finally:
            self.close(fd)

    def make_folder(self, path: Path, *, sync: bool = False) -> None:
        """Create a folder, and its parents, that may exist already; the names of those that did not, durable if `sync`.

        Without that, a loss of power takes the folder with all that was synced in it.
        """
        try:
            self.mkdir(path)
        except FileExistsError:
            try:
                is_folder = stat.S_ISDIR(self.stat(path).st_mode)
            except FileNotFoundError:
                if self.is_link(path):  # it leads nowhere: that disk is not there, and nothing is to be made instead
                    raise
                self.make_folder(path, sync=sync)  # somebody has removed it in between
                return
            if not is_folder:
                raise
        except FileNotFoundError:
            parent = os.path.dirname(os.fspath(path))
            if parent in ("", os.fspath(path)):
                raise
            self.make_folder(parent, sync=sync)
            self.make_folder(path, sync=sync)
        else:
            if sync:
                self.sync_folder(os.path.dirname(os.fspath(path)) or ".")

    def discard(self, path: Path) -> None:
        """Remove a file that may be gone already."""
        try:
            self.unlink(path)
        except FileNotFoundError:
            return

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, however much of it is left."""
        try:
            names = self.listdir(path)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            self.discard(path)
            return
        for name in names:
            child = os.path.join(path, name)
            if self.is_folder(child):
                self.remove_tree(child)
            else:
                self.discard(child)
        self.rmdir(path)

    def close_if(self, fd: int, device: int, inode: int) -> None:
        """Close `fd` only if it is still the file it was.

        User code may have closed it, and its next `open` got the number: closing that would be closing the user's file.
        """
        try:
            found = self.fstat(fd)
        except OSError as error:
            if error.errno == errno.EBADF:
                return
            raise
        if (found.st_dev, found.st_ino) == (device, inode):
            self.close(fd)


FILES = Files()
"""The file system itself, for whoever was handed nothing else."""


def temporary_name(path: Path) -> str:
    """A name beside `path` that no other thread or process uses."""
    return f"{os.fspath(path)}.{os.getpid():x}-{next(_serial):x}.tmp"


def storage_error(error: OSError, what: str) -> StorageError:
    """Say an `OSError` in words that help: what could not be done, why, and what to do about it.

    Args:
        error: as the system raised it.
        what: the deed, as in "append to shard 3 of stream orders".
    """
    if error.errno in _FULL:
        return StorageFull(f"cannot {what}: the disk is full ({error}); free some space and try again")
    if error.errno in _FORBIDDEN:
        return StorageError(f"cannot {what}: the folder is read-only for this user ({error})")
    return StorageError(f"cannot {what}: {error}")
