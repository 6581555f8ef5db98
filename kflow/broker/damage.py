"""A shard's list of lost ranges: what power loss took, and what was quarantined because it is damaged.

`damage.json` in the shard's folder, kept twice (`kflow.broker.checked`). Only the writer adds to it; every reader obeys
it: a lost range is a gap, to be reported, never read. Offsets and counters are never issued twice, so an entry stays
true for ever. A shard that never lost anything has no list, and pays nothing for it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from kflow.broker import checked
from kflow.broker.files import Files
from kflow.errors import Damaged

FILE_NAME: Final = "damage.json"
POWER_LOSS: Final = "power loss"
DAMAGE: Final = "damage"

JUMP: Final = 1 << 40
"""How far above everything known a shard goes on after power loss, in offsets and in counters; it never has as many."""

_noting = threading.Lock()


class LostRange(msgspec.Struct, frozen=True):
    """Records that were acknowledged and cannot be read any more.

    Attributes:
        start: logical offset of the first byte that is lost.
        end: logical offset where reading goes on.
        first_counter: counter of the first record that is lost.
        next_counter: counter of the first record at or behind `end`.
        records: how many are lost: those of `first_counter` and the next ones. After power loss fewer than the counters
            between the two, for the shard goes on far above; 0 where nobody knows.
        reason: `power loss` or `damage`.
        at_ms: when it was found, milliseconds since the epoch.
    """

    start: int
    end: int
    first_counter: int
    next_counter: int
    records: int
    reason: str
    at_ms: int


class _Stored(msgspec.Struct):
    lost: list[LostRange]


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_stored = msgspec.json.Decoder(_Stored).decode


def read(folder: str, files: Files) -> tuple[LostRange, ...]:
    """The list of the shard in `folder`, ascending; empty where there is none.

    Raises:
        Damaged: neither the file nor its twin is valid.
        OSError: it cannot be read.
    """
    path = _path(folder)
    texts = [checked.read_optional(path, files), checked.read_optional(checked.twin_path(path), files)]
    if texts == [None, None]:
        return ()
    for text in texts:
        found = None if text is None else _decode(text)
        if found is not None:
            return found
    raise Damaged(f"{path}: the list of lost ranges fails its checksum, and so does its copy; `kflow doctor --repair`")


def note(folder: str, files: Files, entry: LostRange, *, sync: bool = True) -> None:
    """Add a range; one that begins at the same offset is replaced, so that an interrupted recovery can say it again.

    The caller holds `writer.lock`. On return it is durable if `sync`.

    Raises:
        Damaged: the list that is there is not valid.
        OSError: it could not be written; the old list stands.
    """
    with _noting:  # a node quarantines in one thread, and opens shards in others
        kept = [each for each in read(folder, files) if each.start != entry.start]
        store(folder, files, [*kept, entry], sync=sync)


def store(folder: str, files: Files, entries: Sequence[LostRange], *, sync: bool = True) -> None:
    """Replace the list.

    Raises:
        OSError: it could not be written; the old list stands.
    """
    text = msgspec.json.encode(_Stored(sorted(entries, key=lambda each: each.start)))
    checked.write_twice(_path(folder), checked.seal(text) + b"\n", files, sync=sync)


def is_intact(folder: str, files: Files) -> bool:
    """Whether the file and its twin are both valid, or both missing."""
    path = _path(folder)
    texts = [checked.read_optional(path, files), checked.read_optional(checked.twin_path(path), files)]
    return texts == [None, None] or all(text is not None and _decode(text) is not None for text in texts)


def holding(entries: Sequence[LostRange], offset: int) -> LostRange | None:
    """The range that `offset` lies in; of several that follow each other without a byte between, the last one."""
    found = None
    for entry in entries:
        if entry.start <= offset < entry.end:
            found, offset = entry, entry.end
    return found


def issued(entries: Sequence[LostRange], first: int, stop: int) -> int:
    """How many records ever had a counter in [first, stop): after power loss a shard leaves counters out.

    Also where nothing is listed, for an older kflow lists nothing: whole jumps never count.
    """
    left_out = sum(
        max(0, min(stop, entry.next_counter) - max(first, entry.first_counter + entry.records)) for entry in entries
    )
    return max(0, stop - first - left_out) % JUMP


def _path(folder: str) -> str:
    return f"{folder}/{FILE_NAME}"


def _decode(text: bytes) -> tuple[LostRange, ...] | None:
    content = checked.unseal(text.rstrip(b"\n"))
    if content is None:
        return None
    try:
        return tuple(_stored(content).lost)
    except ValueError:
        return None
