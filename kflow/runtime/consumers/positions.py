"""Where mappings of streams stand, as files: made, moved to another function, forgotten; and what leases follow.

File work alone, for any thread: at the start of the node, and in its threads later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping as Dict
from typing import NamedTuple

from kflow import arn
from kflow.broker.checkpoints import SlotFile, slots_path
from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.slots import Slot, SlotState
from kflow.broker.streammap import StreamMap
from kflow.broker.windows import windows_path
from kflow.declarations import StreamTrigger
from kflow.errors import StorageError
from kflow.lambda_.control.mappingfacts import Mapping
from kflow.runtime.consumers import beginning
from kflow.runtime.plan.functions import nothing
from kflow.runtime.plan.lease import Lease

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """What a function needs to read a stream.

    Attributes:
        leases: without numbers; the caller says of which trigger they are.
        ends: by (stream id, shard): its readable end, and the counter of its next record.
        closed: shards that take no more records, as (stream id, shard).
    """

    leases: list[Lease]
    ends: dict[tuple[int, int], tuple[int, int]]
    closed: list[tuple[int, int]]


def trigger_of(mapping: Mapping, *, enabled: bool) -> StreamTrigger:
    """A mapping as a trigger of its function."""
    return StreamTrigger(
        stream=mapping.source,
        options=mapping.options,
        enabled=enabled,
        consumer=arn.consumer_name(mapping.source),
        uuid=mapping.uuid,
        counts=mapping.counts,
    )


def ends_of(folder: DataFolder, stream: StreamMap, opened: Opened) -> None:
    """Note where the shards of a stream end. Opens no shard for appending."""
    for shard in stream.shards:
        reader = ShardReader(folder, stream, shard.index)
        try:
            opened.ends[stream.id, shard.index] = (reader.tail, reader.next_counter)
        finally:
            reader.close()
        if not shard.is_open:
            opened.closed.append((stream.id, shard.index))


def open_for(
    folder: DataFolder, function: str, trigger: StreamTrigger, stream: StreamMap, now_s: float, *, moved_from: str = ""
) -> Opened:
    """The slots of a mapping, those that are missing made, and its leases; on return its position is durable.

    Args:
        folder: the data folder.
        function: key of the function.
        trigger: the mapping.
        stream: that it reads.
        now_s: monotonic seconds: the leases begin to wait here.
        moved_from: key of another function, whose position it takes over; empty: none.

    Raises:
        StorageError: they cannot be read or written.
    """
    if moved_from:
        _move(folder, moved_from, function, stream)
    begin = beginning.Begin(nothing(function, (trigger,)), 0, stream)
    slots = beginning.make_slots(folder, begin)
    opened = Opened([], {}, [])
    try:
        ends_of(folder, stream, opened)
        opened.leases.extend(beginning.leases_of(begin, stream.shards, opened.ends, now_s, slots))
    finally:
        slots.close()
    return opened


def forget(folder: DataFolder, function: str, stream_id: int) -> None:
    """Remove the position of a function on a stream, and the states of its windows."""
    folder.files.discard(slots_path(folder.path, function, stream_id))
    folder.files.remove_tree(windows_path(folder.path, function, stream_id))


def last_result(folder: DataFolder, function: str, stream_id: int) -> str:
    """What became of the last batch, as far as the slots tell: `ok`, `failed`; empty where there was none.

    And where they cannot be read, which is logged: a list of mappings must not fail for the sake of one.
    """
    path = slots_path(folder.path, function, stream_id)
    try:
        if not folder.files.exists(path):
            return ""
        slots = SlotFile.open(folder.path, function, stream_id, files=folder.files)
        try:
            found = [slots.load(*key) for key in slots.keys()]  # noqa: SIM118  # not a dict
        finally:
            slots.close()
    except StorageError as error:
        if folder.files.exists(path):  # else it was forgotten just now
            log.warning("the position cannot be read function=%s: %s", function, error)
        return ""
    if any(slot.state is not SlotState.IDLE and slot.error_type for slot in found):
        return "failed"
    if any(slot.succeeded for slot in found):
        return "ok"
    return "failed" if any(slot.failures for slot in found) else ""


def _move(folder: DataFolder, before: str, function: str, stream: StreamMap) -> None:
    """Have the position of another function; of a batch that is being retried nothing is kept but its beginning."""
    if not folder.files.exists(slots_path(folder.path, before, stream.id)):
        return  # it was moved already
    slots = SlotFile.open(folder.path, before, stream.id, files=folder.files)
    try:
        factor = slots.factor
        least: Dict[int, Slot] = {
            shard: Slot(checkpoint=position, checkpoint_counter=counter, start=position, end=position)
            for shard in dict.fromkeys(shard for shard, _ in slots.keys())  # noqa: SIM118  # not a dict
            for position, counter in (slots.least(shard),)
        }
    finally:
        slots.close()
    if not least:
        raise StorageError(f"the positions of {before} on stream {stream.name} are empty")
    forget(folder, function, stream.id)
    SlotFile.open(
        folder.path,
        function,
        stream.id,
        files=folder.files,
        stream=stream.name,
        create_for=least,
        initial=least.__getitem__,
        sync=folder.fsync != "none",
        factor=factor,
    ).close()
    forget(folder, before, stream.id)
