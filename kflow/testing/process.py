"""The file calls of a simulated process: it can be made to die before or after any of those that change something."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from kflow.broker.files import Path
from kflow.testing.memory import MemoryFiles


class Killed(BaseException):
    """The process is gone, in the middle of whatever it did. Nothing in kflow may catch it."""


class ProcessFiles(MemoryFiles):
    """File calls of a process that may die in any of them.

    Attributes:
        fuse: the process dies at so many changes from now, before or after the change; 0: it does not.
        dead: it has died: no call does anything any more.
        failing_syncs: so many syncs from now on fail, as on a broken disk.
    """

    __slots__ = ("dead", "failing_syncs", "fuse")

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # as MemoryFiles takes them
        self.fuse = 0
        self.dead = False
        self.failing_syncs = 0

    def kill(self) -> None:
        """As the end of the process does."""
        self.dead = True
        super().kill()

    def _burn(self) -> None:
        if self.dead:
            raise Killed
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                self.dead = True
                raise Killed

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """As `os.open`."""
        if not flags & os.O_CREAT:
            if self.dead:
                raise Killed
            return super().open(path, flags, mode)
        self._burn()
        fd = super().open(path, flags, mode)
        self._burn()
        return fd

    def close(self, fd: int) -> None:
        """As `os.close`; of a dead process all is closed already."""
        if not self.dead or fd in self._opened:
            super().close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """As `os.pread`."""
        if self.dead:
            raise Killed
        return super().pread(fd, length, offset)

    def pwrite(self, fd: int, content: bytes, offset: int) -> int:
        """As `os.pwrite`."""
        self._burn()
        written = super().pwrite(fd, content, offset)
        self._burn()
        return written

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        """As `os.pwritev`."""
        return self.pwrite(fd, b"".join(buffers), offset)

    def ftruncate(self, fd: int, length: int) -> None:
        """As `os.ftruncate`."""
        self._burn()
        super().ftruncate(fd, length)
        self._burn()

    def rename(self, source: Path, target: Path) -> None:
        """As `os.rename`."""
        self._burn()
        super().rename(source, target)
        self._burn()

    replace = rename

    def link(self, source: Path, target: Path) -> None:
        """As `os.link`."""
        self._burn()
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        """As `os.unlink`."""
        self._burn()
        super().unlink(path)

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        """As `os.mkdir`."""
        self._burn()
        super().mkdir(path, mode)

    def fsync(self, fd: int) -> None:
        """As `os.fsync`."""
        self._burn()
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(fd)

    fdatasync = fsync
