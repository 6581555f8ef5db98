"""A process that ends at a file call: for tests that kill it at each in turn, without a process."""

from __future__ import annotations

import os

from kflow.broker.files import Files


class Killed(BaseException):
    """The process ends here."""


class MortalFiles(Files):
    """File calls that change something, of which only so many are made before the process ends.

    Attributes:
        left: how many; None for no end.
    """

    def __init__(self) -> None:
        self.left: int | None = None

    def _live(self) -> None:
        if self.left is not None:
            if not self.left:
                raise Killed
            self.left -= 1

    def open(self, path, flags, mode=0o777):
        if flags & os.O_CREAT:
            self._live()
        return os.open(path, flags, mode)

    def pwrite(self, fd, content, offset):
        self._live()
        return os.pwrite(fd, content, offset)

    def replace(self, source, target):
        self._live()
        os.replace(source, target)

    def rename(self, source, target):
        self._live()
        os.rename(source, target)

    def unlink(self, path):
        self._live()
        os.unlink(path)

    def rmdir(self, path):
        self._live()
        os.rmdir(path)

    def mkdir(self, path, mode=0o777):
        self._live()
        os.mkdir(path, mode)
