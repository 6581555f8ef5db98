"""The events of functions' logs: lines of their files, with the times and streams that the index beside them has.

A function's lines are in the log group that is named after it, or in another one that it was told to write to, alone or
with others: its log is one all the same, and the index says which lines are of which group.

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
from zlib import crc32

from kflow.aws.calls import Place
from kflow.broker.functionlogs import (
    FILES,
    Identity,
    Notes,
    Stretches,
    functions,
    groups_path,
    index_path,
    log_path,
    older,
    shared_groups,
)
from kflow.monitoring.logged import Bounds, Logged, event_id, merged, time_of
from kflow.monitoring.logtext import LogText, Stretch

PREFIX: Final = "/aws/lambda/"
"""Of the names of functions' log groups."""
_ELSEWHERE: Final = re.compile(r"(.+)@([0-9]{12})\.([a-z0-9-]+)")
_KIND: Final = 0
_FUNCTIONS: Final = 10**6
_KEPT: Final = (16, 128)
"""So many indices are kept in memory: the first, and up to the second as long as they have no more than `_NOTES`."""
_NOTES: Final = 1_000_000
"""32 MB."""
_UNKNOWN: Final = "[$LATEST]" + "0" * 32
_UNFINISHED_S: Final = 1.0
"""A line without an end that is older than this has none to come."""

Wanted = Container[str] | None
"""Names of log streams; None: all."""


class Part(NamedTuple):
    """What of a function's log is in a group.

    Attributes:
        function: whose log it is, as its files are named.
        group: name of the group as the index has it; empty: the function's own.
    """

    function: str
    group: str = ""


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

    def parts(self, place: Place, group: str, *, since_ms: int = 0) -> tuple[Part, ...]:
        """Whose lines a group has: those of the function that it is named after, and of those that write to it.

        Args:
            place: account and region.
            group: its name.
            since_ms: who wrote at this time or later.
        """
        shared = shared_groups(self._data_dir)
        found = [] if (own := self._own(place, group)) is None else [Part(own)]
        found += [Part(key, group) for key, names in shared.items() if group in names and self._place(key)[1] == place]
        return tuple(each for each in found if self._is_there(each, shared, since_ms))

    def groups(self, place: Place) -> dict[str, tuple[Part, ...]]:
        """What is there of a place, by the names of groups."""
        shared = shared_groups(self._data_dir)
        found: dict[str, list[Part]] = {}
        for key in functions(self._data_dir):
            name, where = self._place(key)
            if where != place:
                continue
            parts = {PREFIX + name: Part(key), **{group: Part(key, group) for group in shared.get(key, ())}}
            for group, part in parts.items():
                if self._is_there(part, shared, 0):
                    found.setdefault(group, []).append(part)
        return {group: tuple(parts) for group, parts in found.items()}

    def _own(self, place: Place, group: str) -> str | None:
        """The function that a group is named after, as its files are named; None: there is none."""
        if not group.startswith(PREFIX):
            return None
        name = group.removeprefix(PREFIX)
        key = name if place == self._home else f"{name}@{place.account}.{place.region}"
        if "/" in name or "@" in name or "\0" in name:
            return None
        return key if log_path(self._data_dir, key).exists() else None

    def _place(self, key: str) -> tuple[str, Place]:
        """A function's name, and where it is."""
        elsewhere = _ELSEWHERE.fullmatch(key)
        return (key, self._home) if elsewhere is None else (elsewhere[1], Place(elsewhere[2], elsewhere[3]))

    def _is_there(self, part: Part, shared: Container[str], since_ms: int) -> bool:
        """Whether anything is in it. Of a log that is all of one group nothing is read to see that."""
        if not since_ms and part.function not in shared:
            return log_path(self._data_dir, part.function).exists()
        found = self.streams(part)
        return any((each.created_ms if each.last_ms is None else each.last_ms) >= since_ms for each in found.values())

    def created_ms(self, part: Part) -> int:
        """When the oldest file that is there was begun, or who wrote to the group first."""
        if self._is_mixed(part.function):
            return min((each.created_ms for each in self.streams(part).values()), default=self._now_ms())
        with ExitStack() as stack:
            files = self._files(part.function, stack)
            return min((self._begun_ms(file, self._known(file, files)) for file in files), default=self._now_ms())

    def stored_bytes(self, part: Part) -> int:
        """What it takes."""
        with ExitStack() as stack:
            files = self._files(part.function, stack)
            if not self._is_mixed(part.function):
                return sum(file.size for file in files)
            stretches = (each for file in files for each in self._stretches(file, self._known(file, files), 0))
            return sum(max(each.end - each.begin, 0) for each in stretches if each.group == part.group)

    def streams(self, part: Part) -> dict[str, StreamFacts]:
        """Its log streams, by name."""
        found: dict[str, StreamFacts] = {}
        with ExitStack() as stack:
            files = self._files(part.function, stack)
            for file in files:
                known = self._known(file, files)
                if not part.group and self._has_unknown(file, known):
                    _add(found, self._unknown(file), self._begun_ms(file, known), self._begun_ms(file, known))
                for writer in known.writers:
                    if writer.group == part.group:
                        found.setdefault(writer.stream, StreamFacts(writer.stream, writer.since_ms, None, None))
                for ms, whose in zip(known.times, known.whose, strict=True):
                    writer = known.writers[whose]
                    if writer.group == part.group:
                        _add(found, writer.stream, writer.since_ms, ms)
        return found

    def events(self, part: Part, bounds: Bounds, wanted: Wanted = None) -> Iterator[Logged]:
        """Its events, in order. Close the iterator where it is not read to its end."""
        with ExitStack() as stack:
            files = self._files(part.function, stack)
            yield from merged([self._of(file, self._known(file, files), part, bounds, wanted) for file in files])

    def remove(self, part: Part) -> bool:
        """Remove its files, but for those that have lines of other groups. Who writes goes on in a new one soon.

        Returns:
            Whether all of it is gone.
        """
        paths = self._paths(part.function, 0)
        if not self._is_mixed(part.function):
            for path in paths:
                _remove(path)
            return True
        kept = self._of_others(part)
        for path in paths:
            if path not in kept:
                _remove(path)
        if not kept:
            groups_path(self._data_dir, part.function).unlink(missing_ok=True)
        return not kept

    def expire(self, part: Part, before_ms: int) -> None:
        """Remove the older files that hold nothing of this time or later, and nothing of other groups."""
        kept = self._of_others(part) if self._is_mixed(part.function) else ()
        for path in self._paths(part.function, 1):
            try:
                is_old = path.stat().st_mtime * 1000 < before_ms
            except FileNotFoundError:
                continue
            if is_old and path not in kept:
                _remove(path)

    def _is_mixed(self, function: str) -> bool:
        """Whether its log may have lines of several groups."""
        return groups_path(self._data_dir, function).exists()

    def _of_others(self, part: Part) -> set[Path]:
        """The files of its function that have lines of other groups too."""
        with ExitStack() as stack:
            files = self._files(part.function, stack)
            found = set()
            for file in files:
                known = self._known(file, files)
                wrote = set(known.whose) or range(len(known.writers))
                groups = {known.writers[each].group for each in wrote}
                if self._has_unknown(file, known):
                    groups.add("")
                if groups - {part.group}:
                    found.add(file.path)
            return found

    def _paths(self, function: str, first: int) -> list[Path]:
        path = log_path(self._data_dir, function)
        return [older(path, number) if number else path for number in range(first, FILES)]

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
        notes.refresh()
        least, most = _KEPT
        while len(self._notes) > least and (
            len(self._notes) > most or sum(each.count for each in self._notes.values()) > _NOTES
        ):
            self._notes.popitem(last=False)
        return notes

    @staticmethod
    def _has_unknown(file: _File, known: Stretches) -> bool:
        """Whether there is a text that nobody has noted."""
        return bool(file.size) and not (known.offsets and known.offsets[0] == 0)

    def _begun_ms(self, file: _File, known: Stretches) -> int:
        """Of a log without an index nobody knows more than when it was written last."""
        return known.begun_ms or int(file.written_s * 1000)

    def _unknown(self, file: _File) -> str:
        """The stream of what nobody has noted: written before there was an index, or while the disk was full."""
        return f"{time.strftime('%Y/%m/%d', time.gmtime(file.written_s))}/{_UNKNOWN}"

    def _of(self, file: _File, known: Stretches, part: Part, bounds: Bounds, wanted: Wanted) -> Iterator[Logged]:
        """The events of one file."""
        source = known.begun_ms
        if part.group:  # two functions may begin at the same time, and write to it at the same place
            source = source * _FUNCTIONS + crc32(part.function.encode()) % _FUNCTIONS
        text = LogText(file.fd)
        is_settled = self._now_ms() / 1000 - file.written_s > _UNFINISHED_S
        for stretch in self._stretches(file, known, max(bounds.since_ms, time_of(bounds.after))):
            if stretch.ms >= bounds.until_ms:
                return
            if stretch.group != part.group or (wanted is not None and stretch.stream not in wanted):
                continue
            for offset, line in text.pieces(stretch, is_settled=is_settled or stretch.end < file.size):
                event = event_id(stretch.ms, _KIND, source, offset)
                if event > bounds.after:
                    yield Logged(
                        event, stretch.ms, stretch.stream, line.decode("utf-8", "backslashreplace"), stretch.ms
                    )

    def _stretches(self, file: _File, known: Stretches, since_ms: int) -> Iterator[Stretch]:
        """The stretches of a file that were written at this time or later; what nobody has noted is the first."""
        offsets, times, count = known.offsets, known.times, len(known.offsets)
        noted = offsets[0] if count else file.size
        begun_ms = self._begun_ms(file, known)
        if noted and begun_ms >= since_ms:
            yield Stretch(0, noted, begun_ms, self._unknown(file), "", is_event=False)
        for number in range(bisect_left(times, since_ms), count):
            end = offsets[number + 1] if number + 1 < count else file.size
            writer = known.writers[known.whose[number]]
            is_event = bool(known.events[number])
            end = min(end, file.size)
            yield Stretch(offsets[number], end, times[number], writer.stream, writer.group, is_event=is_event)


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
