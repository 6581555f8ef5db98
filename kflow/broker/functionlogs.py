"""Where functions' logs are, and the index beside each file: when a stretch of it was written, and by whom.

    logs/bill.log         what the function printed, as text
    logs/bill.log.idx     @ 5f1c09aa 1790000000000 64769 131 2026/11/26/[$LATEST]d84f...   a writer, and the log's inode
                          0 1790000000000 5f1c09aa
                          4711 1790000000060 5f1c09aa
                          5000 1790000000070 5f1c09aa 812
    logs/groups/bill.log  /app/all    log groups, other than its own, that anything of the log was ever written for

A writer's line ends with the name of its log group, where that is not the function's own.

A line of numbers says: from this offset on, the text was written at this time (milliseconds since the epoch) by this
writer; with a length, so many bytes are one event, of however many lines. Lines are appended with one write each, so
writers never mix theirs. What is lost of an index costs precision of times, and nothing of the log; half a line, which
a full disk leaves, ends where the next one begins.

A line belongs to a log by the inode that its writer names, not by the index' name: a crash between the renames of the
two, or a writer between them, leaves no wrong times.
"""

from __future__ import annotations

import errno
import os
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, NamedTuple

FILES: Final = 5
"""How many files there are of a function's log, the one that is written included."""
_GROUPS: Final = "groups"
_STEP_S: Final = 0.05
"""So precise are the times."""
_seek = os.lseek
_CURRENT: Final = os.SEEK_CUR
STORAGE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""What a disk refuses a log with: then some of it is lost, and nothing that a function prints fails it."""
_MARK: Final = 4
"""Bytes of chance that tell a writer from others."""
_NOTE: Final = 4
"""Words of a line that has a length."""

_MIXED_BYTES: Final = 1 << 20
"""Two notes that are in the wrong order are nearer than this."""

Identity = tuple[int, int]
"""Device and inode."""


def log_name(function: str) -> str:
    """The log of a function's key: all versions and aliases have one together."""
    return function.partition(":")[0]


def log_path(data_dir: Path, function: str) -> Path:
    """The log file of a function that is written now, by its name or its key."""
    return data_dir / "logs" / f"{log_name(function)}.log"


def functions(data_dir: Path) -> list[str]:
    """Functions that have a log, by name."""
    return sorted(each.name.removesuffix(".log") for each in (data_dir / "logs").glob("*.log"))


def older(path: Path, number: int) -> Path:
    """The older file of this number, from 1."""
    return path.with_name(f"{path.name}.{number}")


def index_path(log: Path) -> Path:
    """The index beside a log file, an older one too."""
    return log.with_name(f"{log.name}.idx")


def groups_path(data_dir: Path, function: str) -> Path:
    """The names of the log groups, other than its own, that a function has written for."""
    return _groups_path(log_path(data_dir, function))


def shared_groups(data_dir: Path) -> dict[str, list[str]]:
    """Functions that have written for other log groups than their own, and these."""
    found = {}
    for path in sorted((data_dir / "logs" / _GROUPS).glob("*.log")):
        try:
            text = path.read_text("utf-8", "replace")
        except FileNotFoundError:  # its log was removed just now
            continue
        found[path.name.removesuffix(".log")] = text.splitlines()
    return found


def _groups_path(log: Path) -> Path:
    return log.parent / _GROUPS / log.name


def stream_name(version: str, *, function: str = "", seconds: float | None = None) -> str:
    """A new name for the log stream of an environment.

    Args:
        version: `$LATEST`, or a number.
        function: its name, where the log group is not its own.
        seconds: since the epoch; None: now.

    Source: recorded: `YYYY/MM/DD/[$LATEST]` and 32 hexadecimal digits; documented:
    monitoring-cloudwatchlogs-loggroups: in a group of another name the function's stands before the version.
    """
    return f"{time.strftime('%Y/%m/%d', time.gmtime(seconds))}/{function}[{version}]{os.urandom(16).hex()}"


class Index:
    """One writer's side of an index. A look takes 0.4 us, a note 2 us.

    Args:
        log: path of the file.
        fd: the file's descriptor; opened for appending, for its offset is where it ends.
        stream: name of the writer's log stream.
        now_s: the clock.
        group: of the stream; empty: the function's own.
    """

    def __init__(
        self, log: Path, fd: int, stream: str, now_s: Callable[[], float] = time.time, *, group: str = ""
    ) -> None:
        self._log = log
        self._log_fd = fd
        self._mark = os.urandom(_MARK).hex()
        self._stream = stream
        self._group = group
        self._now_s = now_s
        self._fd = -1
        self._is_known = False  # the index says whose our mark is
        self._is_torn = False  # it may not end with a line's end
        self._identity: Identity = (0, 0)
        self._end = -1
        self._stamp = 0.0
        self._is_open = False  # what was written last has not ended its line
        self.follow()

    def follow(self) -> None:
        """The log's descriptor is another file now."""
        self.close()
        self._end = -1
        try:
            self._fd = os.open(index_path(self._log), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._fd).st_size
            self._is_torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
            if self._group:
                self._note_group()
        except OSError as error:
            if error.errno not in STORAGE:
                raise
            if self._fd < 0:
                return  # its times are those of the file, then
        self._identity = _identity(self._fd)
        self._say_who()

    def _say_who(self) -> None:
        now_ms = int(self._now_s() * 1000)
        device, inode = _identity(self._log_fd)
        group = f" {self._group}" if self._group else ""
        self._is_known = self._write(f"@ {self._mark} {now_ms} {device} {inode} {self._stream}{group}\n")

    def _note_group(self) -> None:
        """Once for each group: readers look there for who writes for one."""
        path = _groups_path(self._log)
        path.parent.mkdir(exist_ok=True)
        with path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            text = file.read()
            if f"{self._group}\n" not in text.splitlines(keepends=True):
                torn = "\n" if text and not text.endswith("\n") else ""
                file.write(f"{torn}{self._group}\n")

    def wrote(self, length: int, data: bytes = b"\n") -> None:
        """So many bytes were just written to the log, by this process or one that has the descriptor from it.

        Called with each write: 0.5 us where nothing is to be said.

        Args:
            length: how many.
            data: what was written, for its line ends: what goes on with a line is of that line's event.
        """
        end = _seek(self._log_fd, 0, _CURRENT)
        if end - length != self._end:
            self._note(end - length, "")
        elif not -_STEP_S < self._now_s() - self._stamp < _STEP_S:
            rest = data.find(b"\n") + 1 if self._is_open else 0
            if not self._is_open or 0 < rest < length:
                self._note(end - length + rest, "")
        self._is_open = data[-1:] != b"\n"
        self._end = end

    def wrote_event(self, length: int) -> None:
        """The same, and all of it is one event, of however many lines."""
        end = _seek(self._log_fd, 0, _CURRENT)
        self._note(end - length, f" {length}")
        self._is_open = False
        self._end = end

    def _note(self, start: int, length: str) -> None:
        if not self._is_known and self._fd >= 0:  # the disk was full
            self._say_who()
        self._stamp = now = self._now_s()
        self._write(f"{start} {int(now * 1000)} {self._mark}{length}\n")

    def close(self) -> None:
        """Close the descriptor."""
        if self._is_ours():
            os.close(self._fd)
        self._fd = -1

    def _is_ours(self) -> bool:
        """Whether the descriptor is still what it was: user code closes what it finds, and its files get the number."""
        try:
            return self._fd >= 0 and _identity(self._fd) == self._identity
        except OSError:
            return False

    def _write(self, text: str) -> bool:
        """Add a line; whether all of it was written. Half a line must not become a wrong one with the next."""
        if self._fd < 0:
            return False
        if not self._is_ours():
            self.follow()
            return False  # what was to be said is said with the next write
        line = text.encode("utf-8", "backslashreplace")
        if self._is_torn:
            line = b"\n" + line
        try:
            self._is_torn = os.write(self._fd, line) != len(line)
        except OSError as error:
            if error.errno not in STORAGE:
                raise
            self._is_torn = True  # where there was no room, others may have written halves
        if self._is_torn:
            self._stamp = 0.0  # noted with the next write that succeeds
        return not self._is_torn


def _identity(fd: int) -> Identity:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


class Writer(NamedTuple):
    """Who wrote to a file.

    Attributes:
        stream: name of the log stream.
        since_ms: since when, milliseconds since the epoch.
        group: of the stream; empty: the function's own.
    """

    stream: str
    since_ms: int
    group: str = ""


class Stretches:
    """What is known of one log file.

    Attributes:
        begun_ms: when its first writer came; 0: unknown.
        writers: in the order in which they came.
        offsets: where each stretch begins; rises.
        times: when it was written, milliseconds since the epoch; never falls.
        whose: by whom, an index into `writers`.
        events: lengths of stretches that are one event; 0: its lines are events.
    """

    def __init__(self) -> None:
        self.begun_ms = 0
        self.writers: list[Writer] = []
        self.offsets = array("Q")
        self.times = array("Q")
        self.whose = array("l")
        self.events = array("Q")

    def add(self, offset: int, ms: int, whose: int, length: int) -> None:
        """A note. `ValueError`, `OverflowError`: it is none."""
        if min(offset, ms, length) < 0 or max(offset + length, ms) >> 63:
            raise ValueError("no such place")
        if self.offsets and self.offsets[-1] - offset > _MIXED_BYTES:  # the log was cut: all before is gone
            for column in (self.offsets, self.times, self.whose, self.events):
                del column[:]
        self._insert(offset, ms, whose, length)
        if length:  # what follows is no part of it
            self._insert(offset + length, ms, whose, 0)

    def _insert(self, offset: int, ms: int, whose: int, length: int) -> None:
        """Usually at the end; notes of two writers may come in the wrong order."""
        times = self.times
        at = bisect_right(self.offsets, offset)
        if at and ms < times[at - 1]:
            ms = times[at - 1]
        if at < len(times):
            ms = min(ms, times[at])
        self.offsets.insert(at, offset)
        times.insert(at, ms)
        self.whose.insert(at, whose)
        self.events.insert(at, length)


class Notes:
    """What an index file says. `refresh` reads what was added since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin((0, 0))

    def _begin(self, identity: Identity) -> None:
        self._identity = identity
        self._at = 0
        self._marks: dict[str, tuple[Stretches, int]] = {}
        self._logs: dict[Identity, Stretches] = {}

    @property
    def count(self) -> int:
        """How many notes are in memory."""
        return sum(len(each.offsets) for each in self._logs.values())

    def knows(self, log: Identity) -> bool:
        """Whether it speaks of a log file."""
        return log in self._logs

    def of(self, log: Identity, others: Collection[Identity]) -> Stretches:
        """What is known of a log file.

        Args:
            log: its device and inode.
            others: those of the function's other files: of a folder that was copied no inode is as it was, and an
                index that speaks of one file only, and of none of these, means this one.
        """
        found = self._logs.get(log)
        if found is None and len(self._logs) == 1:
            (identity, only) = next(iter(self._logs.items()))
            if identity not in others:
                return only
        return found or Stretches()

    def refresh(self) -> None:
        """Read what was added; where it is another file now, all of it. A file that is not there says nothing."""
        try:
            file = self._path.open("rb", buffering=0)
        except FileNotFoundError:
            self._begin((0, 0))
            return
        with file:
            found = os.fstat(file.fileno())
            identity = (found.st_dev, found.st_ino)
            if identity != self._identity or found.st_size < self._at:
                self._begin(identity)
            if found.st_size == self._at:
                return
            file.seek(self._at)
            data = file.read(found.st_size - self._at)
        end = data.rfind(b"\n") + 1
        self._at += end
        for line in data[:end].decode("utf-8", "replace").splitlines():
            self._take(line.split(" "))

    def _take(self, words: list[str]) -> None:
        """One line; what cannot be read is passed over: a torn write of a full disk."""
        try:
            if words[0] == "@":
                log = self._logs.setdefault((int(words[3]), int(words[4])), Stretches())
                self._marks[words[1]] = (log, len(log.writers))
                log.writers.append(Writer(words[5], int(words[2]), *words[6:7]))
                log.begun_ms = log.begun_ms or int(words[2])
            else:
                log, whose = self._marks[words[2]]
                log.add(int(words[0]), int(words[1]), whose, int(words[3]) if len(words) == _NOTE else 0)
        except (LookupError, ValueError, OverflowError):
            return
