"""Where a consumer begins: the slots of a function on a stream, one a lane of each shard, with their starts in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kflow.broker.checkpoints import Slot, SlotFile, SlotState, slots_path
from kflow.broker.folder import DataFolder
from kflow.broker.quarantine import past_damage
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.declarations import Handler, MappingOptions, StartingPosition
from kflow.records import Position
from kflow.runtime.plan.lease import Lease, LeaseState

Ends = Mapping[tuple[int, int], tuple[int, int]]
"""By (stream id, shard): readable end, and the counter of the next record."""
_Initial = Callable[[int], Slot]


class Begin(NamedTuple):
    """What is known of a stream that a function reads, before the leases are made.

    Attributes:
        handler: the function.
        trigger: which trigger of it.
        stream: the stream's map.
    """

    handler: Handler
    trigger: int
    stream: StreamMap

    @property
    def options(self) -> MappingOptions:
        """Of the mapping."""
        return self.handler.triggers[self.trigger].options


def make_slots(folder: DataFolder, consumer: Begin) -> SlotFile:
    """The slots of all shards of a stream, those that are missing made; the caller closes the file.

    The starting position holds for a consumer that is new to the stream. Shards that came to be later are children of
    shards it had: it reads them from their beginning, else it would miss records.

    Source: documented: starting position; chosen: children, and the closed shards of a new consumer as AWS lists them.
    """
    options, stream = consumer.options, consumer.stream
    before = _shards_with_slots(folder, consumer)

    def initial(shard: int) -> Slot:
        return _slot_at(folder, stream, shard, None if _descends(stream, shard, before) else options)

    return _open(folder, consumer, [shard.index for shard in stream.shards], initial)


def add_children(
    folder: DataFolder, handler: Handler, trigger: int, stream: StreamMap, shards: Iterable[ShardInfo]
) -> None:
    """Slots for shards that are new while the function runs: they begin at their beginning.

    From any thread. On return the slots are durable, unless the policy is `none`.

    Raises:
        StorageError: they could not be written, or a shard not be read.
    """
    consumer = Begin(handler, trigger, stream)
    _open(
        folder, consumer, [shard.index for shard in shards], lambda shard: _slot_at(folder, stream, shard, None)
    ).close()


def leases_of(
    consumer: Begin, shards: Iterable[ShardInfo], ends: Ends, now_s: float, slots: SlotFile | None = None
) -> list[Lease]:
    """The leases on some shards, parents before children; the node numbers them.

    Args:
        consumer: the function and its stream.
        shards: rising by index.
        ends: where each shard ends now.
        now_s: monotonic seconds: here they begin to wait.
        slots: what has been settled: a lane with nothing left to read waits for news, so that no worker starts in vain.
            None: they are at their beginning.
    """
    leases = []
    factor = consumer.options.parallelization_factor
    for info in sorted(shards, key=lambda shard: shard.index):
        end = ends.get((consumer.stream.id, info.index), (0, 0))[0]
        for lane in range(factor):
            lease = Lease(
                0,
                consumer.handler.name,
                consumer.stream.id,
                info.index,
                consumer.trigger,
                settled_at=now_s,
                lane=lane,
                parents=info.parents,
                state=LeaseState.READY if slots is not None or end > 0 else LeaseState.NEWS,
                ages=consumer.options.maximum_record_age_in_seconds > 0,
            )
            if slots is not None:
                slot = slots.load(info.index, lane)
                lease.settled_offset = slot.checkpoint.offset
                is_open = slot.state is not SlotState.IDLE or slot.window_start_s != 0
                if not is_open and slot.checkpoint.offset >= end:
                    lease.state = LeaseState.NEWS
                    lease.read_offset = slot.checkpoint.offset
            leases.append(lease)
    return leases


def _open(folder: DataFolder, consumer: Begin, shards: list[int], initial: _Initial) -> SlotFile:
    return SlotFile.open(
        folder.path,
        consumer.handler.name,
        consumer.stream.id,
        files=folder.files,
        stream=consumer.stream.name,
        create_for=shards,
        initial=initial,
        sync=folder.fsync != "none",
        factor=consumer.options.parallelization_factor,
    )


def _shards_with_slots(folder: DataFolder, consumer: Begin) -> set[int]:
    name, stream_id = consumer.handler.name, consumer.stream.id
    if not folder.files.exists(slots_path(folder.path, name, stream_id)):
        return set()
    slots = SlotFile.open(folder.path, name, stream_id, files=folder.files)
    try:
        return {key[0] for key in slots.keys()}  # noqa: SIM118  # not a dict
    finally:
        slots.close()


def _descends(stream: StreamMap, shard: int, known: set[int]) -> bool:
    """Whether a shard came out of one of the known ones, over any number of splits and merges."""
    waiting, seen = [shard], set[int]()
    while waiting:
        for parent in stream.shards[waiting.pop()].parents:
            if parent in known:
                return True
            if parent not in seen and parent < len(stream.shards):
                seen.add(parent)
                waiting.append(parent)
    return False


def _slot_at(folder: DataFolder, stream: StreamMap, shard: int, options: MappingOptions | None) -> Slot:
    """A slot at the starting position; at the shard's beginning where there are no options."""
    return past_damage(folder, stream, shard, lambda: _read_slot_at(folder, stream, shard, options))


def _read_slot_at(folder: DataFolder, stream: StreamMap, shard: int, options: MappingOptions | None) -> Slot:
    reader = ShardReader(folder, stream, shard)
    try:
        if options is not None and options.starting_position is StartingPosition.LATEST:
            return Slot(checkpoint=Position(reader.tail, 0), checkpoint_counter=reader.next_counter)
        if (
            options is not None
            and options.starting_position is StartingPosition.AT_TIMESTAMP
            and options.starting_position_ms is not None
        ):
            position = reader.seek_time(options.starting_position_ms)
        else:
            position = reader.clamp(Position(0, 0))
        return Slot(checkpoint=position, checkpoint_counter=_counter_at(reader, position))
    finally:
        reader.close()


def _counter_at(reader: ShardReader, position: Position) -> int:
    if position.offset >= reader.tail:
        return reader.next_counter
    first = next(iter(reader.read(position.offset, 1)), None)
    if first is None:
        return reader.next_counter
    return first.first_counter + (position.index if first.offset == position.offset else 0)  # else it is lost
