"""Everything in a data folder that carries a checksum, or can be compared with something that does, is looked at.

Changes nothing, asks nobody, and may run beside a node: what is being written meanwhile is looked at twice before it is
called damaged. Reads all records: as fast as the disk, and about a second for some gigabytes that are in memory.
"""

from __future__ import annotations

import enum
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from kflow.broker import (
    attributes,
    catalogue,
    checked,
    checkpoints,
    damage,
    mapmending,
    salvage,
    soundness,
    streammap,
    windows,
)
from kflow.broker import segment as segments
from kflow.broker.ctl import HORIZON, TAIL, Ctl
from kflow.broker.damage import LostRange
from kflow.broker.files import Files, storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.segment import SEGMENT_HEADER_BYTES, Segment
from kflow.broker.streammap import StreamMap
from kflow.broker.windows import WindowStore
from kflow.errors import Damaged, StorageError

STREAM_FOLDER: Final = re.compile(r"(.+)\.([0-9a-f]{16})")
_SLOT_FILE: Final = re.compile(r"([0-9a-f]{16})\.slots")
_QUEUES: Final = "kinesis-queues"
_LOOKS: Final = 3
_PAUSE_S: Final = 0.05


class Kind(enum.IntEnum):
    """What is damaged, in the order in which it is repaired: what others need to be looked at comes first."""

    MAP = 1
    PAGE = 2
    LIST = 3
    SEGMENT = 4
    INDEX = 5
    SLOTS = 6
    WINDOW = 7
    PARKED = 8
    CATALOGUE = 9
    KEPT = 10


class Fault(NamedTuple):
    """Something that is damaged.

    Attributes:
        kind: what it is.
        path: the file.
        text: what is wrong with it.
        remedy: what `repair` will do about it, as a sentence without its end; empty where it can do nothing.
        stream: name of the stream's folder; for slots and windows, of the function.
        shard: index of the shard, or -1.
        number: where the damage begins (a segment), id of the stream (slots, windows), number of a parked batch.
        is_harmless: whether everything works as before, with something less to fall back upon.
    """

    kind: Kind
    path: str
    text: str
    remedy: str
    stream: str = ""
    shard: int = -1
    number: int = 0
    is_harmless: bool = False


def faults(folder: DataFolder) -> Iterator[Fault]:
    """All damage in a data folder.

    Raises:
        StorageError: something cannot be read at all.
    """
    files = folder.files
    try:
        maps: list[StreamMap] = []
        is_complete = True
        streams = os.fspath(folder.path / "streams")
        for name in sorted(files.listdir(streams)):
            if STREAM_FOLDER.fullmatch(name) is None:
                continue
            fault, found = _map(folder, name)
            if fault is not None:
                is_complete = is_complete and fault.is_harmless
                yield fault
            if found is not None and not found.deleted:
                maps.append(found)
                for shard in found.shards:
                    yield from _shard(folder, found, shard.index)
        yield from _kept(folder, maps)
        yield from _slots(folder, {found.id: found for found in maps})
        for each in ParkedStore(folder.path, files).damaged():
            remedy = f"set it aside in {trash(folder)}: its records are in the stream until they expire there"
            yield Fault(Kind.PARKED, each.text.split(": ", 1)[0], each.text, remedy, each.function, -1, each.number)
        text = catalogue.difference(folder.path, folder.live_maps()) if is_complete else ""
        if text:
            path = os.fspath(folder.path / catalogue.FILE_NAME)
            yield Fault(Kind.CATALOGUE, path, text, "make it anew from the maps of the streams", is_harmless=True)
    except OSError as error:
        raise storage_error(error, f"look through {folder.path}") from error


def losses(folder: DataFolder) -> Iterator[tuple[StreamMap, int, LostRange]]:
    """What is listed as lost: stream, shard and range. Lists that are damaged are left out; they are faults.

    Raises:
        StorageError: a map or a list cannot be read.
    """
    for found in folder.live_maps():
        for shard in found.shards:
            try:
                entries = damage.read(os.fspath(folder.shard_dir(found, shard.index)), folder.files)
            except Damaged:
                continue
            except OSError as error:
                raise storage_error(error, f"look through {folder.path}") from error
            for entry in entries:
                yield found, shard.index, entry


def trash(folder: DataFolder) -> str:
    """Where what is set aside is kept, for people."""
    return os.fspath(folder.trash_dir / "torn.repair")


def _map(folder: DataFolder, name: str) -> tuple[Fault | None, StreamMap | None]:
    path = os.fspath(folder.path / "streams" / name / streammap.FILE_NAME)
    twin = checked.twin_path(path)
    try:
        found = streammap.load(path, folder.files)
    except FileNotFoundError:
        if not folder.files.exists(twin):
            return None, None  # being made, or on its way out
        text = "the map of the stream is missing"
    except Damaged as error:
        text = str(error).removeprefix(f"{path} ").split("; `kflow doctor", 1)[0]
    else:
        if found.folder_name != name:
            return Fault(Kind.MAP, path, f"it is the map of {found.folder_name}", "", name), None
        content = checked.read_optional(twin, folder.files)
        if content is None or streammap.decoded(content) == found:
            return None, found
        text = "its copy is damaged, or older than it"
        return Fault(Kind.MAP, twin, text, "write the copy anew", name, is_harmless=True), found
    return Fault(Kind.MAP, path, text, mapmending.remedy(folder, name), name), None


def _kept(folder: DataFolder, maps: Sequence[StreamMap]) -> Iterator[Fault]:
    """Small files that say what the API was told, and nothing of records."""
    paths = [(os.path.join(folder.stream_dir(each), attributes.FILE_NAME), each.name) for each in maps]
    paths.append((os.fspath(folder.path / "accounts.json"), ""))
    queues = os.fspath(folder.path / _QUEUES)
    if folder.files.exists(queues):
        paths += [(f"{queues}/{name}", "") for name in sorted(folder.files.listdir(queues)) if name.endswith(".json")]
    for path, stream in paths:
        wrong = checked.trouble(path, folder.files)
        if wrong == "twin":
            text = "its copy is damaged, or older than it"
            yield Fault(Kind.KEPT, checked.twin_path(path), text, "write the copy anew", stream, is_harmless=True)
        elif wrong:
            remedy = (
                "put back its copy" if wrong == "file" else f"set it aside in {trash(folder)}: what it said is lost"
            )
            yield Fault(Kind.KEPT, path, "its checksum is wrong", remedy, stream)


def _shard(folder: DataFolder, stream: StreamMap, index: int) -> Iterator[Fault]:
    path, files = os.fspath(folder.shard_dir(stream, index)), folder.files
    place = (stream.folder_name, index)
    try:
        is_intact, known = damage.is_intact(path, files), damage.read(path, files)
    except Damaged as error:
        remedy = "make it anew from the gaps between segments; how many records a loss took is then not known"
        yield Fault(Kind.LIST, f"{path}/{damage.FILE_NAME}", str(error), remedy, *place)
        is_intact, known = True, ()
    if not is_intact:
        text = "it or its copy is damaged"
        yield Fault(Kind.LIST, f"{path}/{damage.FILE_NAME}", text, "write both anew", *place, is_harmless=True)
    text = ""
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE_S)
        try:
            ctl = Ctl.open(path, files, owner=(stream.id, index), write=False)
            if not ctl.is_current:
                return  # a start recovers it, and looks at every block
            before = list(ctl.words)
            text = soundness.doubt(path, files, before, stream_id=stream.id, shard=index)
            if before != list(ctl.words):
                text = ""  # somebody appends, who had looked at it before
        except FileNotFoundError:
            if not files.exists(path):
                return
            text = "the control page is missing"
        except StorageError as error:
            text = str(error)
        if not text:
            break
    if text:
        remedy = "make it anew as after power loss: nothing that can be read is lost, and numbers go on far above"
        yield Fault(Kind.PAGE, f"{path}/ctl", text, remedy, *place)
        return
    yield from _segments(path, files, stream, index, known, ctl.words)


def _segments(
    path: str, files: Files, stream: StreamMap, index: int, known: tuple[LostRange, ...], words: Sequence[int]
) -> Iterator[Fault]:
    """Walk over all blocks between horizon and tail, with their bodies."""
    reached, tail = words[HORIZON], words[TAIL]
    place = (stream.folder_name, index)
    remedy = "list what cannot be read, up to the next sound block, as lost: readers go on behind it"
    for base, following in segments.spans(path, files, reached, tail):
        if base > max(reached, words[HORIZON]) and damage.holding(known, reached) is None:
            is_jump = base - reached >= damage.JUMP  # after power loss; an older kflow listed nothing
            text = f"bytes {reached} to {base} are missing" + (", since the machine went down" if is_jump else "")
            name = segments.segment_path(path, base)
            yield Fault(Kind.SEGMENT, name, text, remedy, *place, reached, is_harmless=is_jump)
        reached = max(reached, base)
        try:
            opened = segments.open_segment(path, files, base, stream_id=stream.id, shard=index)
        except FileNotFoundError:  # it expired meanwhile
            reached = following
            continue
        except Damaged as error:
            lost = damage.holding(known, reached)
            if lost is None or lost.end < min(following, tail):
                text = str(error).split(": ", 1)[-1]
                mend = "write it anew from what its blocks tell, else list it as lost"
                yield Fault(Kind.SEGMENT, segments.segment_path(path, base), text, mend, *place, reached)
            reached = following
            continue
        try:
            size = files.fstat(opened.fd).st_size - SEGMENT_HEADER_BYTES
            for offset in _bad_blocks(opened, files, known, reached, min(following, tail, base + size)):
                yield Fault(Kind.SEGMENT, opened.path, f"the block at {offset} is damaged", remedy, *place, offset)
            dead = _dead_points(opened, files)
            if dead:
                text = f"{dead} of its points are damaged: searching takes longer"
                name = segments.index_path(opened.path)
                yield Fault(Kind.INDEX, name, text, "make it anew", *place, base, is_harmless=True)
        finally:
            files.close(opened.fd)
        reached = min(following, opened.base + size)


def _bad_blocks(opened: Segment, files: Files, known: tuple[LostRange, ...], begin: int, end: int) -> Iterator[int]:
    """Where blocks begin that are damaged and not listed."""
    reached = begin
    while reached < end:
        for header in segments.scan(opened, files, reached, end, bodies=True):
            reached = header.end
        if reached >= end:
            return
        lost = damage.holding(known, reached)
        if lost is not None:
            reached = lost.end
            continue
        yield reached
        header_alone = next(segments.scan(opened, files, reached, end), None)
        following = salvage.next_block(opened, files, reached + 1, end) if header_alone is None else None
        reached = header_alone.end if header_alone is not None else end if following is None else following.offset


def _dead_points(opened: Segment, files: Files) -> int:
    content = checked.read_optional(segments.index_path(opened.path), files)
    return 0 if content is None else len(content) // segments.POINT_BYTES - len(segments.points(opened, files))


def _slots(folder: DataFolder, maps: dict[int, StreamMap]) -> Iterator[Fault]:
    files, root = folder.files, os.fspath(folder.path / "checkpoints")
    for function in sorted(files.listdir(root)):
        try:
            names = sorted(files.listdir(f"{root}/{function}"))
        except NotADirectoryError:
            continue
        for name in names:
            match = _SLOT_FILE.fullmatch(name)
            found = maps.get(int(match[1], 16)) if match is not None else None
            if found is not None:
                yield from _slot_file(files, f"{root}/{function}/{name}", function, found)
                yield from _windows(folder, f"{root}/{function}/{name}", function, found)


def _windows(folder: DataFolder, path: str, function: str, stream: StreamMap) -> Iterator[Fault]:
    """States of open tumbling windows that are not what the slots name."""
    files, states = folder.files, WindowStore(folder.path, folder.files)
    damaged: dict[int, int] = {}  # shard to the number of its state
    for look in range(_LOOKS):  # a store may be under way
        if look:
            time.sleep(_PAUSE_S)
        seen = checkpoints.inspect(files.read_bytes(path), function, stream.id)
        damaged = {
            shard: slot.state_number
            for (shard, _), slot in seen.slots.items()
            if slot.window_start_s
            and slot.state_bytes
            and not windows.names(slot, states.get(function, stream.id, shard, slot.state_number))
        }
        if not damaged:
            return
    remedy = "go back to the state before, whose records come again; where that is gone, begin with a fresh one"
    for shard, number in damaged.items():
        file = f"{windows.windows_path(folder.path, function, stream.id)}/{shard}/{number}"
        text = f"the state of an open window of {function} in {stream.name}, shard {shard}, is damaged or gone"
        yield Fault(Kind.WINDOW, file, text, remedy, function, shard, stream.id)


def _slot_file(files: Files, path: str, function: str, stream: StreamMap) -> Iterator[Fault]:
    for look in range(_LOOKS):  # a store may be under way
        if look:
            time.sleep(_PAUSE_S)
        seen = checkpoints.inspect(files.read_bytes(path), function, stream.id)
        if seen.has_header and not seen.lost and not seen.halved:
            return
    rest = (function, -1, stream.id)
    if seen.lost:
        wanted = [(shard.index, lane) for shard in stream.shards for lane in range(seen.factor)]
        restarts = sorted({shard for shard, lane in wanted if (shard, lane) not in seen.slots})
        text = f"both copies of {seen.lost} of the positions of {function} in {stream.name} are damaged"
        remedy = f"restart {function} at the beginning of shard {', '.join(map(str, restarts))}: records come again"
        yield Fault(Kind.SLOTS, path, text, remedy, *rest)
    elif not seen.has_header:
        yield Fault(Kind.SLOTS, path, "its header is damaged", "write it anew; no position changes", *rest)
    elif seen.halved:
        text = f"one of the two copies of {len(seen.halved)} positions is damaged: the other one is used"
        yield Fault(Kind.SLOTS, path, text, "write both copies anew from the one", *rest, is_harmless=True)
