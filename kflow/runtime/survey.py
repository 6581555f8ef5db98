"""What a data folder holds, read from its files: streams, and where each consumer stands.

Works whether a node runs or not, asks nobody and changes nothing; each number is as of the moment it was read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kflow.broker.checkpoints import SlotFile, slots_path
from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import shard_id
from kflow.broker.slots import Slot
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.records import BEGIN_COUNTER


class ShardSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """One shard.

    Attributes:
        shard_id: `shardId-` and twelve digits.
        start: first hash key of its range.
        end: last hash key of its range.
        is_open: whether records are routed to it.
        records: how many can be read now.
        bytes: how much of the log they take.
        next_counter: counter of the next record that will be put.
        last_arrival_ms: of the newest record; 0 where there was none.
    """

    shard_id: str
    start: int
    end: int
    is_open: bool
    records: int
    bytes: int
    next_counter: int
    last_arrival_ms: int


class StreamSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """One stream.

    Attributes:
        name: its name.
        id: hexadecimal; a stream made anew has another.
        retention_hours: how long records are kept.
        max_record: largest record, bytes of data and key.
        shards: in order.
    """

    name: str
    id: str
    retention_hours: int
    max_record: int
    shards: tuple[ShardSurvey, ...]

    @property
    def records(self) -> int:
        """How many can be read now, in all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def bytes(self) -> int:
        """How much of the log they take."""
        return sum(shard.bytes for shard in self.shards)


class LaneSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """Where one consumer stands in one shard.

    Attributes:
        shard_id: the shard.
        state: `idle`, `running` or `failed`; a `running` that no living runtime owns was cut off.
        attempt: at the batch behind the checkpoint.
        suspect: whether that batch is suspected of bringing runtimes down.
        behind: records between the checkpoint and the end of the shard.
        iterator_age_ms: age of the next record to settle; 0 where all is settled.
        checkpoint_counter: counter of the next record to settle.
        succeeded: records settled by success, ever.
        delivered: records handed to attempts, ever.
        invocations: attempts begun, ever.
        failures: attempts that failed, ever.
        parked: records parked, ever.
        lost: records that passed retention unread, ever.
        error_type: of the last failure of the batch behind the checkpoint.
        error_message: likewise.
    """

    shard_id: str
    state: str
    attempt: int
    suspect: bool
    behind: int
    iterator_age_ms: int
    checkpoint_counter: int
    succeeded: int
    delivered: int
    invocations: int
    failures: int
    parked: int
    lost: int
    error_type: str
    error_message: str


class ConsumerSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """One handler on one stream, with its totals over the stream's life."""

    function: str
    stream: str
    lanes: tuple[LaneSurvey, ...]

    @property
    def processed(self) -> int:
        """Distinct records settled by success."""
        return sum(lane.succeeded for lane in self.lanes)

    @property
    def parked(self) -> int:
        """Records parked."""
        return sum(lane.parked for lane in self.lanes)

    @property
    def redelivered(self) -> int:
        """Records handed to the handler beyond the first time each.

        Records of a batch whose attempts are not over count as handed once too often until they are settled.
        """
        return max(0, sum(lane.delivered - lane.succeeded - lane.parked for lane in self.lanes))

    @property
    def behind(self) -> int:
        """Records not settled yet."""
        return sum(lane.behind for lane in self.lanes)


def streams(folder: DataFolder) -> list[StreamSurvey]:
    """Every stream, by name."""
    return [stream(folder, each) for each in sorted(folder.maps(), key=lambda each: each.name)]


def stream(folder: DataFolder, found: StreamMap) -> StreamSurvey:
    """One stream."""
    return StreamSurvey(
        name=found.name,
        id=f"{found.id:016x}",
        retention_hours=found.retention_hours,
        max_record=found.max_record_bytes,
        shards=tuple(_shard(folder, found, shard) for shard in found.shards),
    )


def consumers(folder: DataFolder) -> list[ConsumerSurvey]:
    """Every consumer with positions, by function and stream."""
    found = sorted(folder.maps(), key=lambda each: each.name)
    checkpoints = folder.path / "checkpoints"
    functions = sorted(each.name for each in checkpoints.iterdir()) if checkpoints.is_dir() else []
    return [
        consumer(folder, function, each)
        for function in functions
        for each in found
        if Path(slots_path(folder.path, function, each.id)).exists()
    ]


def consumer(folder: DataFolder, function: str, found: StreamMap) -> ConsumerSurvey:
    """Where one consumer stands.

    Raises:
        StorageError: it has no positions, or they cannot be read.
    """
    slots = SlotFile.open(folder.path, function, found.id, files=folder.files)
    try:
        keys = slots.keys()
        lanes = tuple(_lane(folder, found, shard, slots.load(shard, lane)) for shard, lane in keys)
    finally:
        slots.close()
    return ConsumerSurvey(function=function, stream=found.name, lanes=lanes)


def is_settled(folder: DataFolder, function: str, found: StreamMap) -> bool:
    """Whether a consumer has settled all that is in its stream at this moment."""
    slots = SlotFile.open(folder.path, function, found.id, files=folder.files)
    try:
        keys = slots.keys()
        return all(slots.load(*key).checkpoint_counter >= _next_counter(folder, found, key[0]) for key in keys)
    finally:
        slots.close()


def stored(folder: DataFolder, found: StreamMap) -> list[int]:
    """How many records each shard was ever given, by index."""
    return [_next_counter(folder, found, shard.index) - BEGIN_COUNTER for shard in found.shards]


@contextmanager
def opened(folder: DataFolder, found: StreamMap, shard: int) -> Iterator[ShardReader]:
    """A reader of one shard, closed afterwards."""
    reader = ShardReader(folder, found, shard)
    try:
        yield reader
    finally:
        reader.close()


def _next_counter(folder: DataFolder, found: StreamMap, shard: int) -> int:
    with opened(folder, found, shard) as reader:
        return reader.next_counter


def _shard(folder: DataFolder, found: StreamMap, info: ShardInfo) -> ShardSurvey:
    with opened(folder, found, info.index) as reader:
        tail, next_counter = reader.tail, reader.next_counter
        horizon = reader.horizon
        first = next(iter(reader.read(horizon, 1)), None) if horizon < tail else None
        return ShardSurvey(
            shard_id=shard_id(info.index),
            start=info.start,
            end=info.end,
            is_open=info.is_open,
            records=next_counter - first.first_counter if first is not None else 0,
            bytes=tail - horizon,
            next_counter=next_counter,
            last_arrival_ms=reader.last_arrival_ms,
        )


def _lane(folder: DataFolder, found: StreamMap, shard: int, slot: Slot) -> LaneSurvey:
    with opened(folder, found, shard) as reader:
        behind = max(0, reader.next_counter - slot.checkpoint_counter)
        age = 0
        if behind:
            at = reader.clamp(slot.checkpoint)
            first = next(iter(reader.read(at.offset, 1)), None)
            age = max(0, time.time_ns() // 1_000_000 - first.arrival_ms) if first is not None else 0
    return LaneSurvey(
        shard_id=shard_id(shard),
        state=slot.state.name.lower(),
        attempt=slot.attempt,
        suspect=slot.suspect,
        behind=behind,
        iterator_age_ms=age,
        checkpoint_counter=slot.checkpoint_counter,
        succeeded=slot.succeeded,
        delivered=slot.delivered,
        invocations=slot.invocations,
        failures=slot.failures,
        parked=slot.parked,
        lost=slot.lost,
        error_type=slot.error_type,
        error_message=slot.error_message,
    )
