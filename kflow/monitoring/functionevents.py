"""The events of functions' logs: lines of their files, with the times and streams that the index beside them has.

Runs in a thread, one call at a time. What an index says is kept between calls, and read on from where it ended: who
follows a log costs what was written since.
"""

from __future__ import annotations

import os
import re
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from kflow.aws.calls import Place
from kflow.broker.functionlogs import (
    FILES,
    Identity,
    Notes,
    Stretches,
    functions,
    index_path,
    log_path,
    older,
)
from kflow.monitoring.logged import Bounds, Logged, event_id, merged, time_of

PREFIX: Final = "/aws/lambda/"
"""Of the names of functions' log groups."""
_ELSEWHERE: Final = re.compile(r"(.+)@([0-9]{12})\.([a-z0-9-]+)")
_KIND: Final = 0
_KEPT: Final = 16
"""So many indices are kept in memory."""
_READ_BYTES: Final = 1 << 20
_EVENT_BYTES: Final = 256 << 10
"""A longer line is several events. Source: documented: CloudWatch Logs quotas, event size."""
_UNKNOWN: Final = "[$LATEST]" + "0" * 32
_UNFINISHED_S: Final = 1.0
"""A line without an end that is older than this has none to come."""

Wanted = Container[str] | None
"""Names of log streams; None: all."""


class StreamFacts(NamedTuple):
    """What is known of a function's log stream without reading the log.

    Attributes:
        name: of the stream.
        created_ms: milliseconds since the epoch, as all here.
        first_ms: of its first event; None where it has none.
        last_ms: of its last event.
    """

    name: str
    created_ms: int
    first_ms: int | None
    last_ms: int | None


@dataclass(slots=True)
class _File:
    """One file of a log, open."""

    fd: int
    identity: Identity
    size: int
    written_s: float
    path: Path


class FunctionEvents:
    """Of all functions of a data folder.

    Args:
        data_dir: the folder.
        home: account and region of functions that name none.
        now_ms: the clock.
    """

    def __init__(self, data_dir: Path, home: Place, now_ms: Callable[[], int]) -> None:
        self._data_dir = data_dir
        self._home = home
        self._now_ms = now_ms
        self._notes: OrderedDict[Path, Notes] = OrderedDict()

    def function(self, place: Place, group: str) -> str | None:
        """The function whose log a group is, as its files are named; None: it is no function's."""
        if not group.startswith(PREFIX):
            return None
        name = group.removeprefix(PREFIX)
        key = name if place == self._home else f"{name}@{place.account}.{place.region}"
        if "/" in name or "@" in name or "\0" in name:
            return None
        return key if log_path(self._data_dir, key).exists() else None

    def groups(self, place: Place) -> dict[str, str]:
        """The functions of a place that have a log, by the names of their groups."""
        found = {}
        for key in functions(self._data_dir):
            elsewhere = _ELSEWHERE.fullmatch(key)
            name, where = (key, self._home) if elsewhere is None else (elsewhere[1], Place(elsewhere[2], elsewhere[3]))
            if where == place:
                found[PREFIX + name] = key
        return found

    def created_ms(self, function: str) -> int:
        """When the oldest file that is there was begun."""
        with ExitStack() as stack:
            files = self._files(function, stack)
            return min((self._begun_ms(file, self._known(file, files)) for file in files), default=self._now_ms())

    def stored_bytes(self, function: str) -> int:
        """What its files take."""
        with ExitStack() as stack:
            return sum(file.size for file in self._files(function, stack))

    def streams(self, function: str) -> dict[str, StreamFacts]:
        """Its log streams, by name."""
        found: dict[str, StreamFacts] = {}
        with ExitStack() as stack:
            files = self._files(function, stack)
            for file in files:
                known = self._known(file, files)
                if file.size and not (known.offsets and known.offsets[0] == 0):
                    _add(found, self._unknown(file), self._begun_ms(file, known), self._begun_ms(file, known))
                for writer in known.writers:
                    found.setdefault(writer.stream, StreamFacts(writer.stream, writer.since_ms, None, None))
                for ms, whose in zip(known.times, known.whose, strict=True):
                    _add(found, known.writers[whose].stream, known.writers[whose].since_ms, ms)
        return found

    def events(self, function: str, bounds: Bounds, wanted: Wanted = None) -> Iterator[Logged]:
        """Its events, in order. Close the iterator where it is not read to its end."""
        with ExitStack() as stack:
            files = self._files(function, stack)
            yield from merged([self._of(file, self._known(file, files), bounds, wanted) for file in files])

    def remove(self, function: str) -> None:
        """Remove its files. Who writes goes on in a new one within a moment."""
        path = log_path(self._data_dir, function)
        for number in range(FILES):
            _remove(older(path, number) if number else path)

    def expire(self, function: str, before_ms: int) -> None:
        """Remove the older files that hold nothing of this time or later."""
        path = log_path(self._data_dir, function)
        for number in range(1, FILES):
            file = older(path, number)
            try:
                is_old = file.stat().st_mtime * 1000 < before_ms
            except FileNotFoundError:
                continue
            if is_old:
                _remove(file)

    # ------------------------------------------------------------------ files

    def _files(self, function: str, stack: ExitStack) -> list[_File]:
        """Its files, the oldest first, each once, though one may be renamed meanwhile."""
        found: dict[Identity, _File] = {}
        path = log_path(self._data_dir, function)
        for number in range(FILES):
            each = older(path, number) if number else path
            try:
                fd = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            stack.callback(os.close, fd)
            status = os.fstat(fd)
            identity = (status.st_dev, status.st_ino)
            found.setdefault(identity, _File(fd, identity, status.st_size, status.st_mtime, each))
        return list(reversed(found.values()))

    def _known(self, file: _File, files: list[_File]) -> Stretches:
        """What the index says; where it is another file's by now, for logs were rotated since, what its own does."""
        others = [each.identity for each in files if each is not file]
        path = index_path(file.path)
        own = self._noted(path)
        if not own.knows(file.identity):
            base = file.path.with_suffix("") if file.path.suffix[1:].isdigit() else file.path
            for number in range(FILES):
                moved = index_path(older(base, number) if number else base)
                if moved != path and (found := self._noted(moved)).knows(file.identity):
                    return found.of(file.identity, others)
            with suppress(FileNotFoundError):
                status = file.path.stat()
                if (status.st_dev, status.st_ino) != file.identity:
                    others.append((status.st_dev, status.st_ino))
        return own.of(file.identity, others)

    def _noted(self, path: Path) -> Notes:
        notes = self._notes.get(path)
        if notes is None:
            notes = self._notes[path] = Notes(path)
        self._notes.move_to_end(path)
        if len(self._notes) > _KEPT:
            self._notes.popitem(last=False)
        notes.refresh()
        return notes

    def _begun_ms(self, file: _File, known: Stretches) -> int:
        """Of a log without an index nobody knows more than when it was written last."""
        return known.begun_ms or int(file.written_s * 1000)

    def _unknown(self, file: _File) -> str:
        """The stream of what nobody has noted: written before there was an index, or while the disk was full."""
        return f"{time.strftime('%Y/%m/%d', time.gmtime(file.written_s))}/{_UNKNOWN}"

    def _of(self, file: _File, known: Stretches, bounds: Bounds, wanted: Wanted) -> Iterator[Logged]:
        """The events of one file."""
        source = known.begun_ms
        text = _Text(file.fd)
        is_settled = self._now_ms() / 1000 - file.written_s > _UNFINISHED_S
        for stretch in self._stretches(file, known, max(bounds.since_ms, time_of(bounds.after))):
            if stretch.ms >= bounds.until_ms:
                return
            if wanted is not None and stretch.stream not in wanted:
                continue
            for offset, line in text.pieces(stretch, is_settled=is_settled or stretch.end < file.size):
                event = event_id(stretch.ms, _KIND, source, offset)
                if event > bounds.after:
                    yield Logged(
                        event, stretch.ms, stretch.stream, line.decode("utf-8", "backslashreplace"), stretch.ms
                    )

    def _stretches(self, file: _File, known: Stretches, since_ms: int) -> Iterator[_Stretch]:
        """The stretches of a file that were written at this time or later; what nobody has noted is the first."""
        offsets, times, count = known.offsets, known.times, len(known.offsets)
        noted = offsets[0] if count else file.size
        begun_ms = self._begun_ms(file, known)
        if noted and begun_ms >= since_ms:
            yield _Stretch(0, noted, begun_ms, self._unknown(file), is_event=False)
        for number in range(bisect_left(times, since_ms), count):
            end = offsets[number + 1] if number + 1 < count else file.size
            stream = known.writers[known.whose[number]].stream
            is_event = bool(known.events[number])
            yield _Stretch(offsets[number], min(end, file.size), times[number], stream, is_event=is_event)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of a file that was written at one time by one writer."""

    begin: int
    end: int
    ms: int
    stream: str
    is_event: bool


class _Text:
    """The text of a file, read ahead."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._window = b""

    def pieces(self, stretch: _Stretch, *, is_settled: bool) -> Iterator[tuple[int, bytes]]:
        """The events of a stretch, and where they begin."""
        begin, at, rest = stretch.begin, stretch.begin, b""
        while at < stretch.end:
            part = self._read(at, min(stretch.end, at + _READ_BYTES))
            if not part:  # it was cut
                return
            at += len(part)
            rest += part
            if stretch.is_event and at < stretch.end and len(rest) < _EVENT_BYTES:
                continue
            whole = [] if stretch.is_event else rest.split(b"\n")[:-1]
            for line in whole:
                yield from _cut(begin, line + b"\n")
                begin += len(line) + 1
            rest = rest[sum(map(len, whole)) + len(whole) :]
            while len(rest) >= _EVENT_BYTES:
                yield begin, rest[:_EVENT_BYTES]
                begin, rest = begin + _EVENT_BYTES, rest[_EVENT_BYTES:]
        if rest and (is_settled or stretch.is_event):
            yield begin, rest

    def _read(self, begin: int, end: int) -> bytes:
        start = begin - self._start
        if start < 0 or end - self._start > len(self._window):
            self._start, start = begin, 0
            self._window = os.pread(self._fd, max(end - begin, _READ_BYTES), begin)
        return self._window[start : start + end - begin]


def _cut(begin: int, line: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(line), _EVENT_BYTES):
        yield begin + at, line[at : at + _EVENT_BYTES]


def _add(found: dict[str, StreamFacts], stream: str, since_ms: int, ms: int) -> None:
    known = found.get(stream)
    if known is None:
        found[stream] = StreamFacts(stream, since_ms, ms, ms)
    else:
        first = ms if known.first_ms is None else min(known.first_ms, ms)
        last = ms if known.last_ms is None else max(known.last_ms, ms)
        found[stream] = known._replace(first_ms=first, last_ms=last)


def _remove(log: Path) -> None:
    """With its index; that first, for one that is left would be taken for the next log's."""
    index_path(log).unlink(missing_ok=True)
    log.unlink(missing_ok=True)
