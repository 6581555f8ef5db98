"""Log groups: functions' own, and those that somebody made. Everything here runs in a thread, one call at a time.

The group that a function writes to is there as soon as its log is: nobody makes it; several functions may share one.
What is put to it by `PutLogEvents` stands beside what functions wrote. Retention hides what is older at once, and
removes it with the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from kflow.aws.calls import Place
from kflow.broker.folder import DataFolder
from kflow.broker.logevents import EventRow, GroupFacts, LogEvents
from kflow.monitoring.errors import AlreadyExists, InvalidParameter, NoGroup, NoStream
from kflow.monitoring.functionevents import FunctionEvents, Part, StreamFacts
from kflow.monitoring.logged import DIGITS, LAST_ID, NO_ID, Bounds, Logged, event_id, first_id, merged, time_of
from kflow.monitoring.logpages import PAGE_BYTES, Last, first

DAY_MS: Final = 86_400_000
_KIND: Final = 1
_FAR_MS: Final = 99_999_999_999_999
LOOKED_BYTES: Final = 8 << 20
"""A filter looks at so much before it answers with what it found, and a token (chosen)."""
_WINDOWS_MS: Final = (60_000, 3_600_000, DAY_MS, 10**14)
_OLDEST_MS: Final = 14 * DAY_MS
_NEWEST_MS: Final = 2 * 3_600_000
"""Events that are put are within these. Source: documented: PutLogEvents."""


class Group(NamedTuple):
    """A group, as it is shown.

    Attributes:
        name: of the group.
        facts: what is kept of it, or would be.
        stored_bytes: what it takes.
    """

    name: str
    facts: GroupFacts
    stored_bytes: int


class Stream(NamedTuple):
    """A stream, as it is shown; times in milliseconds since the epoch, None: no event."""

    name: str
    created_ms: int
    first_ms: int | None
    last_ms: int | None
    taken_ms: int | None


class Page(NamedTuple):
    """Events, and where to go on.

    Attributes:
        events: in order.
        after: id behind which it goes on; empty: there is nothing more.
    """

    events: list[Logged]
    after: str


class Rejected(NamedTuple):
    """Which of the events that were put were not taken: those before `too_old`, before `expired`, from `too_new`."""

    too_old: int | None
    expired: int | None
    too_new: int | None


class _Open(NamedTuple):
    """A group that is there.

    Attributes:
        number: of what is kept of it; 0: nothing is.
        facts: as above.
        parts: of functions' logs that are in it.
    """

    number: int
    facts: GroupFacts
    parts: tuple[Part, ...]


class LogGroups:
    """Of a data folder.

    Args:
        folder: the data folder.
        home: account and region of functions that name none.
        now_ms: the clock.
    """

    def __init__(self, folder: DataFolder, home: Place, now_ms: Callable[[], int]) -> None:
        self._store = LogEvents(folder)
        self._logs = FunctionEvents(folder.path, home, now_ms)
        self._now_ms = now_ms

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def clear(self) -> None:
        """Forget all that is kept; functions' logs stay."""
        with self._store.turn():
            self._store.clear()

    # ------------------------------------------------------------------ groups

    def groups(self, place: Place) -> list[Group]:
        """All of a place, by name."""
        kept = self._store.groups(*place)
        functions = self._logs.groups(place)
        found = []
        for name in sorted({*functions, *(name for name, facts in kept.items() if facts.is_made)}):
            group = self._found(place, name, functions.get(name, ()))
            if group is None:
                continue
            stored = self._store.stored_bytes(group.number) if group.number else 0
            stored += sum(map(self._logs.stored_bytes, group.parts))
            found.append(Group(name, group.facts, stored))
        return found

    def facts(self, place: Place, name: str) -> GroupFacts:
        """Of one group. `NoGroup`: there is none."""
        return self._open(place, name).facts

    def make(self, place: Place, name: str, *, kind: str, tags: dict[str, str], key: str, is_protected: bool) -> None:
        """Make a group. `AlreadyExists`: there is one."""
        if self._found(place, name) is not None:
            raise AlreadyExists("log group")
        kept = self._store.group(*place, name)
        facts = GroupFacts(
            created_ms=self._now_ms(),
            kind=kind,
            tags=tags,
            key=key,
            is_protected=is_protected,
            emptied_ms=0 if kept is None else kept[1].emptied_ms,
        )
        with self._store.turn():
            self._store.put_group(*place, name, facts)

    def change(self, place: Place, name: str, change: Callable[[GroupFacts], GroupFacts]) -> None:
        """Keep other facts of a group."""
        group = self._open(place, name)
        with self._store.turn():
            self._store.put_group(*place, name, change(group.facts))
        self._expire(self._open(place, name))

    def delete(self, place: Place, name: str) -> None:
        """Delete a group with all it holds. A function that writes again has one again.

        What a file has beside lines of other groups stays in it, and is hidden.
        """
        group = self._open(place, name)
        if group.facts.is_protected:
            raise InvalidParameter("The specified log group is protected from deletion.")  # chosen
        are_gone = [self._logs.remove(part) for part in group.parts]
        emptied_ms = self._now_ms() + 1
        with self._store.turn():
            if group.number:
                self._store.drop_group(group.number)
            if not all(are_gone):
                left = GroupFacts(created_ms=emptied_ms, is_made=False, emptied_ms=emptied_ms)
                self._store.put_group(*place, name, left)

    # ------------------------------------------------------------------ streams

    def streams(self, place: Place, name: str) -> list[Stream]:
        """All of a group, by name."""
        group = self._open(place, name)
        found: dict[str, Stream] = {}
        for part in group.parts:
            for each in self._written(group, part).values():
                found[each.name] = Stream(each.name, each.created_ms, each.first_ms, each.last_ms, each.last_ms)
        for row in self._store.streams(group.number) if group.number else ():
            if row.is_hidden:
                found.pop(row.name, None)
            elif row.name in found and row.last_ms is not None and row.first_ms is not None:
                own = found[row.name]
                first = row.first_ms if own.first_ms is None else min(own.first_ms, row.first_ms)
                last = row.last_ms if own.last_ms is None else max(own.last_ms, row.last_ms)
                found[row.name] = own._replace(first_ms=first, last_ms=last, taken_ms=max(last, row.taken_ms or 0))
            else:
                found.setdefault(row.name, Stream(row.name, row.created_ms, row.first_ms, row.last_ms, row.taken_ms))
        return [found[each] for each in sorted(found)]

    def make_stream(self, place: Place, name: str, stream: str) -> None:
        """Make a stream. `AlreadyExists`: there is one."""
        group = self._open(place, name)
        if self._has_stream(group, stream):
            raise AlreadyExists("log stream")
        with self._store.turn():
            self._store.make_stream(self._number(place, name, group), stream, self._now_ms())

    def delete_stream(self, place: Place, name: str, stream: str) -> None:
        """Delete a stream. What a function wrote to it is shown no more."""
        group = self._open(place, name)
        if not self._has_stream(group, stream):
            raise NoStream
        is_functions = any(stream in self._written(group, part) for part in group.parts)
        with self._store.turn():
            number = self._number(place, name, group)
            known = self._store.stream(number, stream)
            if known is not None:
                self._store.drop_stream(known.number)
            if is_functions:
                self._store.make_stream(number, stream, self._now_ms(), is_hidden=True)

    # ------------------------------------------------------------------ events

    def put(self, place: Place, name: str, stream: str, events: Sequence[tuple[int, str]], size: int) -> Rejected:
        """Take in events, which are in order and at least one.

        Args:
            place: account and region.
            name: of the group.
            stream: of the stream.
            events: times and texts.
            size: bytes of them, as they are counted.
        """
        group = self._open(place, name)
        if not self._has_stream(group, stream):
            raise NoStream
        now_ms = self._now_ms()
        days = group.facts.retention_days
        expired_ms = 0 if days is None else now_ms - days * DAY_MS
        too_old = sum(ms < now_ms - _OLDEST_MS for ms, _ in events)
        expired = sum(ms < expired_ms for ms, _ in events)
        too_new = sum(ms <= now_ms + _NEWEST_MS for ms, _ in events)
        taken = events[max(too_old, expired) : too_new]
        if taken:
            with self._store.turn():
                number = self._number(place, name, group)
                self._store.put(number, self._store.make_stream(number, stream, now_ms), taken, now_ms, size)
        self._expire(group)
        return Rejected(too_old or None, expired or None, too_new if too_new < len(events) else None)

    def page(
        self,
        place: Place,
        name: str,
        stream: str,
        *,
        since_ms: int,
        until_ms: int,
        after: str = "",
        before: str = "",
        limit: int,
    ) -> list[Logged]:
        """Events of one stream, in order.

        Args:
            place: account and region.
            name: of the group.
            stream: of the stream.
            since_ms: not before this time.
            until_ms: before this time.
            after: the first behind this id; empty: see `before`.
            before: else the last before this id.
            limit: at most so many, and `PAGE_BYTES`.

        Raises:
            NoGroup: there is no such group.
            NoStream: there is no such stream.
        """
        group = self._open(place, name)
        if not self._has_stream(group, stream):
            raise NoStream
        since_ms = max(since_ms, self._kept_since(group))
        if after:
            bounds = Bounds(max(after, first_id(since_ms)), since_ms, until_ms)
            return first(self._events(group, bounds, [stream]), limit)
        until_ms = min(until_ms, time_of(before) + 1)
        end_ms = min(until_ms, self._now_ms())
        for window_ms in _WINDOWS_MS:  # the last events are usually not old: most of the log need not be read
            begin_ms = max(since_ms, end_ms - window_ms)
            ring = Last(limit)
            for event in self._events(group, Bounds(first_id(begin_ms), begin_ms, until_ms), [stream]):
                if event.id >= before:
                    break
                ring.add(event)
            if ring.is_full or begin_ms == since_ms:
                break
        return ring.events()

    def search(
        self,
        place: Place,
        name: str,
        *,
        streams: Collection[str] | None,
        prefix: str,
        since_ms: int,
        until_ms: int,
        after: str,
        before: str = "",
        limit: int,
        matches: Callable[[str], bool] | None,
    ) -> Page:
        """Events of a group that match.

        Args:
            place: account and region.
            name: of the group.
            streams: names of its streams; None: those with the prefix.
            prefix: of their names; empty: all.
            since_ms: not before this time.
            until_ms: before this time.
            after: behind this id; empty: see `before`.
            before: else the last before this id, the latest first.
            limit: at most so many, and `PAGE_BYTES`.
            matches: which; None: all.
        """
        group = self._open(place, name)
        if streams is not None:
            known = {each.name for each in self.streams(place, name)}
            if not known.issuperset(streams):
                raise NoStream
        elif prefix:
            streams = {each.name for each in self.streams(place, name) if each.name.startswith(prefix)}
        since_ms = max(since_ms, self._kept_since(group))
        bounds = Bounds(max(after, first_id(since_ms)), since_ms, until_ms)
        if before:
            return self._backward(self._events(group, bounds, streams), before, limit, matches)
        found: list[Logged] = []
        size = looked = 0
        last = ""
        for event in self._events(group, bounds, streams):
            is_wanted = matches is None or matches(event.text)
            if looked >= LOOKED_BYTES or (is_wanted and found and (len(found) == limit or size >= PAGE_BYTES)):
                return Page(found, last)
            looked += len(event.text)
            last = event.id
            if is_wanted:
                found.append(event)
                size += event.size
        self._expire(group)
        return Page(found, "")

    @staticmethod
    def _backward(events: Iterator[Logged], before: str, limit: int, matches: Callable[[str], bool] | None) -> Page:
        """The last that match, the latest first."""
        ring = Last(limit)
        count = 0
        for event in events:
            if event.id >= before:
                break
            if matches is None or matches(event.text):
                ring.add(event)
                count += 1
        found = ring.events()[::-1]
        return Page(found, found[-1].id if len(found) < count else "")

    # ------------------------------------------------------------------ inside

    def _found(self, place: Place, name: str, parts: tuple[Part, ...] | None = None) -> _Open | None:
        """A group; with the parts that it has at most, where these are known."""
        kept = self._store.group(*place, name)
        emptied_ms = 0 if kept is None else kept[1].emptied_ms
        if parts is None or emptied_ms:
            parts = self._logs.parts(place, name, since_ms=emptied_ms)
        if kept is not None and (kept[1].is_made or parts):
            return _Open(*kept, parts)
        if not parts:
            return None
        facts = GroupFacts(created_ms=min(map(self._logs.created_ms, parts)), is_made=False)
        return _Open(0, facts, parts)

    def _written(self, group: _Open, part: Part) -> dict[str, StreamFacts]:
        """The streams of functions that were written since the group was deleted last."""
        since_ms = group.facts.emptied_ms
        found = self._logs.streams(part)
        if not since_ms:
            return found
        return {
            name: each
            for name, each in found.items()
            if (each.created_ms if each.last_ms is None else each.last_ms) >= since_ms
        }

    def _open(self, place: Place, name: str) -> _Open:
        found = self._found(place, name)
        if found is None:
            raise NoGroup
        return found

    def _number(self, place: Place, name: str, group: _Open) -> int:
        """Within a turn: of what is kept of it, from now on."""
        return group.number or self._store.put_group(*place, name, group.facts)

    def _has_stream(self, group: _Open, stream: str) -> bool:
        kept = self._store.stream(group.number, stream) if group.number else None
        if kept is not None:
            return not kept.is_hidden
        return any(stream in self._written(group, part) for part in group.parts)

    def _events(self, group: _Open, bounds: Bounds, streams: Collection[str] | None) -> Iterator[Logged]:
        hidden: set[str] = set()
        sources: list[Iterator[Logged]] = []
        if group.number:
            rows = list(self._store.streams(group.number))
            hidden = {row.name for row in rows if row.is_hidden}
            one = next((row.number for row in rows if streams is not None and list(streams) == [row.name]), None)
            sources.append(self._put(group.number, bounds, one, streams))
        since_ms = group.facts.emptied_ms
        written = Bounds(max(bounds.after, first_id(since_ms)), max(bounds.since_ms, since_ms), bounds.until_ms)
        for part in group.parts:
            own = self._logs.events(part, written if since_ms else bounds, streams)
            sources.append((each for each in own if each.stream not in hidden) if hidden else own)
        return merged(sources)

    def _put(self, group: int, bounds: Bounds, stream: int | None, streams: Collection[str] | None) -> Iterator[Logged]:
        """Events that were put."""
        after = bounds.after
        # Behind an id of another kind at the same time comes all of this kind, or none of it.
        kind = int(after[14:16])
        number = int(after[DIGITS - 20 :]) if kind == _KIND else (-1 if kind < _KIND else _FAR_MS)
        rows = self._store.events(group, after=(time_of(after), number), until_ms=bounds.until_ms, stream=stream)
        for row in rows:
            if streams is None or row.stream in streams:
                yield _shown(row)

    def _kept_since(self, group: _Open) -> int:
        days = group.facts.retention_days
        return 0 if days is None else self._now_ms() - days * DAY_MS

    def _expire(self, group: _Open) -> None:
        """Remove what retention has hidden."""
        before_ms = self._kept_since(group)
        if before_ms:
            for part in group.parts:
                self._logs.expire(part, before_ms)
            with self._store.turn():
                self._store.expire(group.number, before_ms)


def _shown(row: EventRow) -> Logged:
    return Logged(event_id(row.ms, _KIND, 0, row.number), row.ms, row.stream, row.text, row.taken_ms)


def tagged(facts: GroupFacts, tags: dict[str, str], *, without: Iterable[str] = ()) -> GroupFacts:
    """Facts with other tags."""
    gone = set(without)
    return msgspec.structs.replace(
        facts, tags={key: value for key, value in {**facts.tags, **tags}.items() if key not in gone}
    )


__all__ = ["LAST_ID", "NO_ID", "Group", "LogGroups", "Page", "Rejected", "Stream", "tagged"]
