"""What a data folder holds, read from its files: streams, and where each consumer stands.

Works whether a node runs or not, asks nobody and changes nothing; each number is as of the moment it was read. What is
damaged is said in its place, and the rest is shown all the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kflow.broker import damage
from kflow.broker.checkpoints import SlotFile, inspect, slots_path
from kflow.broker.damage import LostRange
from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import shard_id
from kflow.broker.slots import Slot, SlotState
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.errors import Damaged, StorageError
from kflow.records import BEGIN_COUNTER
from kflow.runtime.status.behind import Behind, Budget, Checkpoint, of_lanes


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
        stored: how many records were ever put into it.
        lost: what power loss or damage took of it, in order.
        trouble: why it cannot be read as a whole: damage that nobody has quarantined yet; empty where it can.
    """

    shard_id: str
    start: int
    end: int
    is_open: bool
    records: int
    bytes: int
    next_counter: int
    last_arrival_ms: int
    stored: int = 0
    lost: tuple[LostRange, ...] = ()
    trouble: str = ""


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

    @property
    def open_shards(self) -> int:
        """How many shards take records."""
        return sum(shard.is_open for shard in self.shards)

    @property
    def lost(self) -> int:
        """Records that power loss or damage took, in all shards."""
        return sum(each.records for shard in self.shards for each in shard.lost)


class LaneSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """Where one consumer stands in one lane of one shard.

    Attributes:
        shard_id: the shard.
        lane: of the shard; 0 where the consumer has one a shard.
        state: `idle`, `running`, `failed`; `drained`: the shard is closed and all of it settled; `expired`: the
            shard is no more; `damaged`: its slot cannot be read. A `running` that no living runtime owns was cut off.
        attempt: at the batch behind the checkpoint.
        suspect: whether that batch is suspected of bringing runtimes down.
        behind: records of the lane that are not settled.
        exact: whether `behind` was counted; else it is an even share of what the shard holds.
        iterator_age_ms: age of the next record to settle; 0 where all is settled.
        checkpoint_counter: counter of the next record to settle.
        succeeded: records settled by success, ever.
        delivered: records handed to attempts, ever.
        invocations: attempts begun, ever.
        failures: attempts that failed, ever.
        parked: records parked, ever.
        dropped: records given up and kept nowhere, ever.
        lost: records that retention or damage took before they were settled, ever.
        window_start_s: where its open tumbling window begins, seconds since the epoch; 0 where none is open.
        error_type: of the last failure of the batch behind the checkpoint.
        error_message: likewise.
        trouble: damage that it is about to meet, or of its slot; empty where there is none.
    """

    shard_id: str
    lane: int = 0
    state: str
    attempt: int = 0
    suspect: bool = False
    behind: int = 0
    exact: bool = True
    iterator_age_ms: int = 0
    checkpoint_counter: int = 0
    succeeded: int = 0
    delivered: int = 0
    invocations: int = 0
    failures: int = 0
    parked: int = 0
    dropped: int = 0
    lost: int = 0
    window_start_s: int = 0
    error_type: str = ""
    error_message: str = ""
    trouble: str = ""

    @property
    def is_blocked(self) -> bool:
        """Whether the batch behind the checkpoint has failed, and nothing passes it."""
        return bool(self.error_type)

    @property
    def redelivered(self) -> int:
        """Records handed to the handler beyond the first time each; see `ConsumerSurvey.redelivered`."""
        return max(0, self.delivered - self.succeeded - self.parked - self.dropped)


class ConsumerSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """One handler on one stream, with its totals over the stream's life.

    Attributes:
        function: name of the function.
        stream: name of the stream.
        lanes: by shard and lane.
        factor: lanes of each shard.
        trouble: what of its positions is damaged beyond reading; empty where nothing is.
    """

    function: str
    stream: str
    lanes: tuple[LaneSurvey, ...]
    factor: int = 1
    trouble: str = ""

    @property
    def processed(self) -> int:
        """Distinct records settled by success."""
        return sum(lane.succeeded for lane in self.lanes)

    @property
    def parked(self) -> int:
        """Records parked."""
        return sum(lane.parked for lane in self.lanes)

    @property
    def dropped(self) -> int:
        """Records given up and kept nowhere."""
        return sum(lane.dropped for lane in self.lanes)

    @property
    def lost(self) -> int:
        """Records that retention or damage took before they were settled."""
        return sum(lane.lost for lane in self.lanes)

    @property
    def redelivered(self) -> int:
        """Records handed to the handler beyond the first time each.

        Records of a batch whose attempts are not over count as handed once too often until they are settled.
        """
        return max(0, sum(lane.delivered - lane.succeeded - lane.parked - lane.dropped for lane in self.lanes))

    @property
    def behind(self) -> int:
        """Records not settled yet."""
        return sum(lane.behind for lane in self.lanes)

    @property
    def iterator_age_ms(self) -> int:
        """Age of the oldest record that is not settled; 0 where all is."""
        return max((lane.iterator_age_ms for lane in self.lanes), default=0)


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
        shards=tuple(shard(folder, found, info) for info in found.shards),
    )


def consumers(folder: DataFolder) -> list[ConsumerSurvey]:
    """Every consumer with positions, by function and stream; also of other places, where clients have made some."""
    found = sorted(folder.live_maps(), key=lambda each: each.name)
    checkpoints = folder.path / "checkpoints"
    functions = sorted(each.name for each in checkpoints.iterdir()) if checkpoints.is_dir() else []
    budget = Budget()
    return [
        consumer(folder, function, each, budget)
        for function in functions
        for each in found
        if Path(slots_path(folder.path, function, each.id)).exists()
    ]


def consumer(folder: DataFolder, function: str, found: StreamMap, budget: Budget | None = None) -> ConsumerSurvey:
    """Where one consumer stands.

    Raises:
        StorageError: it has no positions, or the file of them cannot be read.
    """
    budget = budget or Budget()
    path = slots_path(folder.path, function, found.id)
    try:
        slots = SlotFile.open(folder.path, function, found.id, files=folder.files)
    except Damaged as error:
        return ConsumerSurvey(function=function, stream=found.name, lanes=(), trouble=str(error))
    try:
        gone = inspect(folder.files.read_bytes(path), function, found.id).lost
        trouble = f"{path}: {gone} of its slots have no valid copy" if gone else ""
        indexes = dict.fromkeys(index for index, _ in slots.keys())  # noqa: SIM118  # a method of its own
        every = [each for index in indexes for each in lanes(folder, found, slots, index, budget)]
        return ConsumerSurvey(
            function=function, stream=found.name, lanes=tuple(every), factor=slots.factor, trouble=trouble
        )
    finally:
        slots.close()


def is_settled(folder: DataFolder, function: str, found: StreamMap) -> bool:
    """Whether a consumer has settled all that is in its stream at this moment."""
    slots = SlotFile.open(folder.path, function, found.id, files=folder.files)
    try:
        for shard, lane in slots.keys():  # noqa: SIM118  # a method of its own
            with opened(folder, found, shard) as reader:
                if reader.issued(slots.load(shard, lane).checkpoint_counter, reader.next_counter):
                    return False
        return True
    finally:
        slots.close()


def stored(folder: DataFolder, found: StreamMap) -> list[int]:
    """How many records each shard was ever given, by index."""
    return [_stored(folder, found, info.index) for info in found.shards]


@contextmanager
def opened(folder: DataFolder, found: StreamMap, shard: int) -> Iterator[ShardReader]:
    """A reader of one shard, closed afterwards."""
    reader = ShardReader(folder, found, shard)
    try:
        yield reader
    finally:
        reader.close()


def _stored(folder: DataFolder, found: StreamMap, shard: int) -> int:
    with opened(folder, found, shard) as reader:
        return reader.issued(BEGIN_COUNTER, reader.next_counter)


def shard(folder: DataFolder, found: StreamMap, info: ShardInfo) -> ShardSurvey:
    """One shard."""
    with opened(folder, found, info.index) as reader:
        tail, next_counter, horizon = reader.tail, reader.next_counter, reader.horizon
        trouble = ""
        lost: tuple[LostRange, ...] = ()
        records = stored = next_counter - BEGIN_COUNTER
        try:
            lost = damage.read(str(folder.shard_dir(found, info.index)), folder.files)
            stored = damage.issued(lost, BEGIN_COUNTER, next_counter)
            first = next(iter(reader.read(horizon, 1)), None) if horizon < tail else None
            records = 0 if first is None else damage.issued(lost, first.first_counter, next_counter)
            if first is not None:
                records -= sum(each.records for each in lost if each.first_counter >= first.first_counter)
        except Damaged as error:
            trouble = str(error)
        return ShardSurvey(
            shard_id=shard_id(info.index),
            start=info.start,
            end=info.end,
            is_open=info.is_open,
            records=max(0, records),
            bytes=tail - horizon,
            next_counter=next_counter,
            last_arrival_ms=reader.last_arrival_ms,
            stored=stored,
            lost=lost,
            trouble=trouble,
        )


def lanes(folder: DataFolder, found: StreamMap, slots: SlotFile, index: int, budget: Budget) -> list[LaneSurvey]:
    """Where a consumer stands in one shard, lane by lane; the shard is read once for all of them."""
    read: dict[int, Slot] = {}
    troubles: dict[int, str] = {}
    numbers = slots.lanes(index)
    for lane in numbers:
        try:
            read[lane] = slots.load(index, lane)
        except Damaged as error:
            troubles[lane] = str(error)
    behind: dict[int, Behind] = {}
    closed = False
    if not found.knows(index):  # it expired, and its slots hold totals
        return [_lane(index, lane, read.get(lane), None, troubles.get(lane, ""), expired=True) for lane in numbers]
    try:
        with opened(folder, found, index) as reader:
            closed = reader.closed
            if len(read) == slots.factor:
                checkpoints = [Checkpoint(each.checkpoint, each.checkpoint_counter) for each in read.values()]
                behind = dict(zip(read, of_lanes(reader, checkpoints, budget), strict=True))
    except StorageError as error:  # its control page, or its list of damage, cannot be read
        troubles.update({lane: str(error) for lane in read})
    return [
        _lane(index, lane, read.get(lane), behind.get(lane), troubles.get(lane, ""), closed=closed) for lane in numbers
    ]


def _lane(
    index: int,
    lane: int,
    slot: Slot | None,
    behind: Behind | None,
    trouble: str,
    *,
    closed: bool = False,
    expired: bool = False,
) -> LaneSurvey:
    if slot is None:
        return LaneSurvey(shard_id=shard_id(index), lane=lane, state="damaged", trouble=trouble)
    behind = behind or Behind(0, expired, 0)
    age = time.time_ns() // 1_000_000 - behind.oldest_ms if behind.oldest_ms else 0
    if behind.damaged_at >= 0:
        trouble = f"the log is damaged at offset {behind.damaged_at}"
    at_rest = slot.state is SlotState.IDLE and not slot.window_start_s  # a window that is open is still to be ended
    drained = closed and at_rest and behind.exact and not behind.records and not trouble
    state = "expired" if expired else "drained" if drained else slot.state.name.lower()
    return LaneSurvey(
        shard_id=shard_id(index),
        lane=lane,
        state=state,
        attempt=slot.attempt,
        suspect=slot.suspect,
        behind=behind.records,
        exact=behind.exact,
        iterator_age_ms=max(0, age),
        checkpoint_counter=slot.checkpoint_counter,
        succeeded=slot.succeeded,
        delivered=slot.delivered,
        invocations=slot.invocations,
        failures=slot.failures,
        parked=slot.parked,
        dropped=slot.dropped,
        lost=slot.lost,
        window_start_s=slot.window_start_s,
        error_type=slot.error_type,
        error_message=slot.error_message,
        trouble=trouble,
    )
