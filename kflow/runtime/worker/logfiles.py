"""Files of a function's log: `logs/<function>.log`, and the older ones, `.log.1` the newest of them. Bounded by size.

Who writes rotates: before an invocation a worker sees whether the file is full, or has been moved by another worker,
and goes on in the new one. So what one invocation writes stays in one file, and a file may be larger than `FILE_BYTES`
by what one invocation writes; past `MOST_BYTES` the node cuts it (`cut_overlong`), and what it held is gone.

Beside each file is an index with times and writers (`kflow.broker.functionlogs`), which is renamed with it.

Renaming takes the file's own lock (`flock`), not waited for: who finds it taken goes on in the old file until the next
look. A crash in the middle of a rotation leaves a number out; readers take the files that are there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from kflow.broker.functionlogs import FILES, functions, index_path, log_path, older

__all__ = ["FILES", "FILE_BYTES", "MOST_BYTES", "Follower", "LogFile", "cut_overlong", "functions", "log_path", "older"]

FILE_BYTES: Final = 10 << 20
"""A file of this size is full."""
MOST_BYTES: Final = 4 * FILE_BYTES
"""No file grows past this by much: what a single invocation may write before its beginning is lost."""

_READ_BYTES: Final = 64 << 10
_LOOK_BYTES: Final = 1 << 20
_Identity = tuple[int, int]


class LogFile:
    """The end of a log, open for appending. One object per process; its descriptor keeps its number.

    Attributes:
        fd: the descriptor.
    """

    def __init__(self, path: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file_bytes = file_bytes
        self._files = files
        self.fd = self._open()
        self._identity = _identity(os.fstat(self.fd))

    @property
    def identity(self) -> tuple[int, int, int]:
        """Descriptor, device and inode: to be checked after user code ran."""
        return (self.fd, *self._identity)

    def look(self) -> bool:
        """Rotate the file if it is full, and go on in the new one if it was rotated.

        Returns:
            Whether the descriptor is another file now.

        Raises:
            OSError: the file cannot be renamed or made; what is written goes on into the old one.
        """
        if os.fstat(self.fd).st_size >= self._file_bytes:
            self._rotate()
        try:
            if _identity(self._path.stat()) == self._identity:
                return False
        except FileNotFoundError:
            pass  # another worker is between renaming the old one and making the new one; or somebody removed it
        fresh = self._open()
        try:
            os.dup2(fresh, self.fd, inheritable=False)
        finally:
            os.close(fresh)
        self._identity = _identity(os.fstat(self.fd))
        return True

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _rotate(self) -> None:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another worker is at it
        try:
            if _identity(self._path.stat()) != self._identity:
                return  # another worker has done it
            for number in range(self._files - 1, 0, -1):
                source = older(self._path, number - 1) if number > 1 else self._path
                if source.exists():
                    _move_index(source, older(self._path, number))
                    source.replace(older(self._path, number))
        except FileNotFoundError:
            return  # removed by somebody: there is nothing to rotate
        finally:
            fcntl.flock(self.fd, fcntl.LOCK_UN)


def _move_index(source: Path, target: Path) -> None:
    """Before its log. Where a log has none, the one that is at its place is of another log, and goes."""
    try:
        index_path(source).replace(index_path(target))
    except FileNotFoundError:
        index_path(target).unlink(missing_ok=True)


def cut_overlong(path: Path, most_bytes: int = MOST_BYTES) -> int:
    """Empty those of a log's files that have grown past all bounds: an invocation that prints for minutes.

    Writers append, so they go on at the beginning.

    Returns:
        How many bytes are gone.
    """
    gone = 0
    for each in (path, older(path, 1)):
        try:
            size = each.stat().st_size
            if size > most_bytes:
                os.truncate(each, 0)
                gone += size
        except FileNotFoundError:
            continue
    return gone


class Follower:
    """Reads a log: its last lines, then what comes, across rotations. Lines of one file keep their order."""

    def __init__(self, path: Path, *, files: int = FILES) -> None:
        self._path = path
        self._files = files
        self._open: list[_Open] = []  # the newest last

    def last(self, count: int) -> list[bytes]:
        """The last `count` lines, over all files; `look` goes on behind them. Call it first, and once."""
        self._open = self._new()
        for each in self._open:
            each.to_end()
        found: list[bytes] = []
        for each in reversed(self._open):
            if len(found) >= count:
                break
            found = each.last(count - len(found)) + found
        return found

    def unfinished(self) -> list[bytes]:
        """What stands behind the last line end of the newest file: a line, or nothing."""
        rest = self._open[-1].unfinished() if self._open else b""
        return [rest] if rest else []

    def look(self) -> tuple[list[bytes], bool]:
        """Complete lines that were written since the last look; never waits. An older file comes before a newer one.

        Returns:
            The lines, and whether more of them are there already.
        """
        self._open += self._new()
        lines: list[bytes] = []
        more = False
        for each in self._open:
            found, more = each.read()
            lines += found
            if more:
                break
        kept = [each for each in self._open if not each.is_done()]
        for each in self._open:
            if each not in kept:
                each.close()
        self._open = kept
        return lines, more

    def close(self) -> None:
        """Close the files."""
        for each in self._open:
            each.close()
        self._open = []

    def _new(self) -> list[_Open]:
        """The files that came since the last look, the oldest first: all up to the newest one that is open."""
        known = {each.identity for each in self._open}
        newest = self._open[-1].identity if self._open else None
        found: list[_Open] = []
        with ExitStack() as undo:
            for number in range(self._files):
                path = older(self._path, number) if number else self._path
                try:
                    opened = _Open(path)
                except FileNotFoundError:
                    continue
                undo.callback(opened.close)
                if opened.identity == newest:
                    opened.close()
                    break
                if opened.identity in known:  # it was renamed between two opens
                    opened.close()
                    continue
                known.add(opened.identity)
                found.insert(0, opened)
            undo.pop_all()
        return found


class _Open:
    """One open file of a log."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.identity = _identity(os.fstat(self._file.fileno()))
        self._offset = 0
        self._rest = b""

    def to_end(self) -> None:
        """Go to the end of the last complete line."""
        size = os.fstat(self._file.fileno()).st_size
        for start, piece in self._backwards(size):
            at = piece.rfind(b"\n")
            if at >= 0:
                self._offset = start + at + 1
                return
        self._offset = 0

    def last(self, count: int) -> list[bytes]:
        """The last `count` lines before where `to_end` went."""
        lines = 0
        pieces: list[bytes] = []
        for _, piece in self._backwards(self._offset):
            pieces.insert(0, piece)
            lines += piece.count(b"\n")
            if lines > count:
                break
        return b"".join(pieces).split(b"\n")[:-1][-count:]

    def unfinished(self) -> bytes:
        """What stands behind the last line end that has been read."""
        return os.pread(self._file.fileno(), _LOOK_BYTES, self._offset)

    def read(self) -> tuple[list[bytes], bool]:
        """Complete lines from where the last call ended, and whether there is more."""
        fd = self._file.fileno()
        if os.fstat(fd).st_size < self._offset:  # it was cut
            self._offset, self._rest = 0, b""
        piece = os.pread(fd, _LOOK_BYTES, self._offset)
        self._offset += len(piece)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) >= _LOOK_BYTES:  # no line at all: shown as it is
            lines.append(self._rest)
            self._rest = b""
        return lines, len(piece) == _LOOK_BYTES

    def is_done(self) -> bool:
        """Whether the file was removed, and all of it has been read."""
        found = os.fstat(self._file.fileno())
        return found.st_nlink == 0 and found.st_size <= self._offset

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _backwards(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Pieces from `end` back to the beginning, with where they begin."""
        while end > 0:
            start = max(0, end - _READ_BYTES)
            yield start, os.pread(self._file.fileno(), end - start, start)
            end = start


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino
