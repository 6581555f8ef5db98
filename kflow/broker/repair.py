"""Repair: what `inspection` found is put right, each fault in the way that its remedy says.

Nothing is destroyed that could be read: what is replaced is kept in the trash, damaged blocks stay in their segments.
The caller holds `writer.lock`, so that neither a node nor a consumer is at work.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from kflow.broker import catalogue, checked, checkpoints, damage, inspection, mapmending, streammap, windows
from kflow.broker import segment as segments
from kflow.broker.checkpoints import SlotFile
from kflow.broker.ctl import COUNTER, HORIZON, SEGMENT, TAIL, Ctl
from kflow.broker.damage import LostRange
from kflow.broker.files import storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.inspection import STREAM_FOLDER, Fault, Kind
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.quarantine import quarantine
from kflow.broker.segment import INDEX_BYTES, Point
from kflow.broker.slots import Slot, SlotState
from kflow.broker.streammap import StreamMap
from kflow.broker.windows import WindowStore
from kflow.errors import Damaged, StorageError
from kflow.records import Position


def repair(store: Log, fault: Fault) -> str:
    """Do what a fault's remedy says.

    Returns:
        What was done, for people.

    Raises:
        StorageError: it could not be done; what was there is still there.
    """
    try:
        return _REPAIRS[fault.kind](store, fault)
    except OSError as error:
        raise storage_error(error, f"repair {fault.path}") from error


def _map(store: Log, fault: Fault) -> str:
    folder = store.folder
    path = os.fspath(folder.path / "streams" / fault.stream / streammap.FILE_NAME)
    if fault.is_harmless:
        streammap.settle(path, streammap.load(path, folder.files), folder.files, sync=folder.syncs)
        return "the copy is written anew"
    answer = mapmending.found(folder, fault.stream)
    if answer is None:
        raise StorageError(f"nothing tells what {path} was: restore it from a copy of yours")
    made, origin = answer
    _keep(folder, path)
    streammap.store(path, made, folder.files, sync=folder.syncs)
    return f"put back from {origin}"


def _page(store: Log, fault: Fault) -> str:
    stream = _stream(store.folder, fault)
    opened = store.shard(stream, fault.shard)
    return f"made anew: the tail is {opened.tail}"


def _list(store: Log, fault: Fault) -> str:
    folder, files = store.folder, store.folder.files
    stream = _stream(folder, fault)
    path = os.fspath(folder.shard_dir(stream, fault.shard))
    try:
        entries = damage.read(path, files)
    except Damaged:
        _keep(folder, fault.path)
        entries = tuple(_gaps(folder, stream, fault.shard))
    damage.store(path, files, entries, sync=folder.syncs)
    return f"written anew, {len(entries)} ranges"


def _gaps(folder: DataFolder, stream: StreamMap, shard: int) -> Iterator[LostRange]:
    """The gaps between segments, as losses of nobody knows how many records."""
    path, files = os.fspath(folder.shard_dir(stream, shard)), folder.files
    words = Ctl.open(path, files, owner=(stream.id, shard), write=False).words
    now_ms = time.time_ns() // 1_000_000
    end = counter = -1
    for base in segments.bases(path, files):
        try:
            opened = segments.open_segment(path, files, base, stream_id=stream.id, shard=shard)
        except Damaged:
            end = -1  # what it holds is not known, so neither is whether there is a gap behind it
            continue
        try:
            if 0 <= end < base:
                yield LostRange(end, base, counter, opened.first_counter, 0, damage.POWER_LOSS, now_ms)
            end, counter = base, opened.first_counter
            for header in segments.scan(opened, files, base, words[TAIL]):
                end, counter = header.end, header.first_counter + header.count
        finally:
            files.close(opened.fd)
    if words[SEGMENT] > words[TAIL] == end:  # it goes on above, and has not yet
        yield LostRange(end, words[SEGMENT], counter, words[COUNTER], 0, damage.POWER_LOSS, now_ms)


def _segment(store: Log, fault: Fault) -> str:
    lost = quarantine(store, _stream(store.folder, fault), fault.shard, fault.number)
    if lost is None:
        return "mended, nothing is lost"
    records = "1 record" if lost.records == 1 else f"{lost.records:,} records"
    return f"bytes {lost.start} to {lost.end} are listed as lost: {records}"


def _index(store: Log, fault: Fault) -> str:
    folder, files = store.folder, store.folder.files
    stream = _stream(folder, fault)
    path = os.fspath(folder.shard_dir(stream, fault.shard))
    tail = Ctl.open(path, files, owner=(stream.id, fault.shard), write=False).words[TAIL]
    opened = segments.open_segment(path, files, fault.number, stream_id=stream.id, shard=fault.shard)
    try:
        points = []
        last = opened.base
        for header in segments.scan(opened, files, opened.base, tail):
            if header.offset - last >= INDEX_BYTES:
                last = header.offset
                points.append(Point(last, header.first_counter, header.arrival_ms))
        files.discard(segments.index_path(opened.path))
        for point in points:
            segments.add_point(opened, files, point)
    finally:
        files.close(opened.fd)
    return f"made anew, {len(points)} points"


def _slots(store: Log, fault: Fault) -> str:
    folder, files = store.folder, store.folder.files
    function = fault.stream
    stream = folder.map_by_id(fault.number)
    seen = checkpoints.inspect(files.read_bytes(fault.path), function, stream.id)
    slots = dict(seen.slots)
    if seen.lost:
        slots = {**_restarts(folder, stream, seen.factor), **slots}
    _keep(folder, fault.path)
    content = checkpoints.compose(function, stream.name, stream.id, seen.factor, slots)
    files.write_replace(fault.path, content, sync=folder.syncs)
    restarted = sorted({shard for shard, lane in slots if (shard, lane) not in seen.slots})
    where = ", ".join(map(str, restarted))
    return f"{function} restarts at the beginning of shard {where}" if restarted else "written anew"


def _restarts(folder: DataFolder, stream: StreamMap, factor: int) -> Mapping[tuple[int, int], Slot]:
    """A slot at the beginning for every lane of every shard: another place could be past what was never delivered."""
    slots = {}
    for shard in stream.shards:
        path = os.fspath(folder.shard_dir(stream, shard.index))
        words = Ctl.open(path, folder.files, owner=(stream.id, shard.index), write=False).words
        counter = _counter_at(folder, stream, shard.index, words[HORIZON], words[TAIL], words[COUNTER])
        at = Position(words[HORIZON], 0)
        for lane in range(factor):
            slots[shard.index, lane] = Slot(checkpoint=at, checkpoint_counter=counter, start=at, end=at)
    return slots


def _counter_at(folder: DataFolder, stream: StreamMap, shard: int, horizon: int, tail: int, otherwise: int) -> int:
    """Counter of the first record from the horizon on that can be read."""
    path, files = os.fspath(folder.shard_dir(stream, shard)), folder.files
    for base, _ in segments.spans(path, files, horizon, tail):
        try:
            opened = segments.open_segment(path, files, base, stream_id=stream.id, shard=shard)
        except Damaged:
            continue
        try:
            header = next(segments.scan(opened, files, max(base, horizon), tail), None)
        finally:
            files.close(opened.fd)
        if header is not None:
            return header.first_counter
    return otherwise


def _window(store: Log, fault: Fault) -> str:
    folder, files = store.folder, store.folder.files
    function, shard = fault.stream, fault.shard
    states = WindowStore(folder.path, files)
    slots = SlotFile.open(folder.path, function, fault.number, files=files)
    try:
        slot, before = slots.load(shard), slots.before(shard)
        answer = "the window begins with a fresh state"
        mended = replace(slot, state_crc=0, state_bytes=0)
        if before is not None and windows.precedes(before, slot):
            state = states.get(function, fault.number, shard, before.state_number) if before.state_bytes else None
            if windows.names(before, state):
                answer = "went back to the state before"
                mended = _back(slot, before)
        _keep(folder, fault.path)
        slots.store(shard, 0, mended)
    finally:
        slots.close()
    files.discard(fault.path)
    return answer


def _back(slot: Slot, before: Slot) -> Slot:
    """The slot with the position and the state of the one before; what it says of a batch means nothing then."""
    return replace(
        slot,
        checkpoint=before.checkpoint,
        checkpoint_counter=before.checkpoint_counter,
        state=SlotState.IDLE,
        start=before.checkpoint,
        end=before.checkpoint,
        count=0,
        attempt=0,
        interruptions=0,
        stack=(),
        state_number=before.state_number,
        state_crc=before.state_crc,
        state_bytes=before.state_bytes,
        window_flags=0,
        error_type="",
        error_message="",
    )


def _parked(store: Log, fault: Fault) -> str:
    folder = store.folder
    parked = ParkedStore(folder.path, folder.files, folder.fsync)
    return f"set aside as {parked.set_aside(fault.number, inspection.trash(folder))}"


def _told(store: Log, fault: Fault) -> str:
    folder = store.folder
    path = fault.path.removesuffix(checked.twin_path(""))
    if checked.trouble(path, folder.files) in ("file", "twin"):
        _keep(folder, fault.path)
        checked.settle(path, folder.files, sync=folder.syncs)
        return "the copy is written anew" if fault.is_harmless else "put back from its copy"
    _keep(folder, path)
    folder.files.discard(path)
    checked.discard_twin(path, folder.files)
    return "set aside"


def _catalogue(store: Log, fault: Fault) -> str:
    del fault
    import sqlite3  # weight: only administration needs it

    folder = store.folder
    try:
        catalogue.rebuild(folder.path, folder.live_maps(), folder.files)
    except sqlite3.Error as error:
        raise StorageError(f"cannot write the catalogue: {error}") from error
    return "made anew"


def _stream(folder: DataFolder, fault: Fault) -> StreamMap:
    match = STREAM_FOLDER.fullmatch(fault.stream)
    if match is None:
        raise StorageError(f"{fault.stream} is no folder of a stream")
    return folder.map_by_id(int(match[2], 16))


def _keep(folder: DataFolder, path: str) -> None:
    """Copy a file that is about to be replaced into the trash, for people."""
    content = checked.read_optional(path, folder.files)
    if content is None:
        return
    target = inspection.trash(folder)
    folder.files.make_folder(target)
    name = f"{os.path.basename(os.path.dirname(path))}.{os.path.basename(path)}"
    copies = (f"{target}/{name}{number or ''}" for number in itertools.count())
    free = next(copy for copy in copies if not folder.files.exists(copy))
    folder.files.write_replace(free, content, sync=folder.syncs)


_REPAIRS: Final[Mapping[Kind, Callable[[Log, Fault], str]]] = {
    Kind.MAP: _map,
    Kind.PAGE: _page,
    Kind.LIST: _list,
    Kind.SEGMENT: _segment,
    Kind.INDEX: _index,
    Kind.SLOTS: _slots,
    Kind.WINDOW: _window,
    Kind.PARKED: _parked,
    Kind.CATALOGUE: _catalogue,
    Kind.KEPT: _told,
}
