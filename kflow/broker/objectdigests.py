"""MD5s of files, computed once for as long as a file looks the same."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from kflow.broker.files import Files

_PIECE: Final = 1 << 20
_MOST: Final = 1 << 14

Stamp = tuple[int, int, int, int]


def stamp(found: os.stat_result) -> Stamp:
    """What a file looks like: another one, or another content, looks different."""
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


class Digests:
    """Those that are known. Any thread."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._known: dict[Stamp, str] = {}

    def of(self, fd: int, found: os.stat_result) -> str:
        """That of an open file, hexadecimal."""
        known = self._known.get(stamp(found))
        if known is not None:
            return known
        hashed, offset = hashlib.md5(usedforsecurity=False), 0
        while piece := self._files.pread(fd, _PIECE, offset):
            hashed.update(piece)
            offset += len(piece)
        md5 = hashed.hexdigest()
        self.remember(found, md5)
        return md5

    def remember(self, found: os.stat_result, md5: str) -> None:
        """It was computed as the file was written."""
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[stamp(found)] = md5
