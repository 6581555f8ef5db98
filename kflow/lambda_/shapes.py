"""Records of a block in the shape that a handler's form asks for, built once a block and sliced a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count, repeat
from operator import itemgetter
from typing import Any, Final, Protocol

from kflow.broker import sequence
from kflow.broker.streammap import StreamMap
from kflow.declarations import HandlerForm
from kflow.events.kinesis import event_records
from kflow.lambda_.picked import Picked
from kflow.records import Record


class Columns(Protocol):
    """What a shape reads of a block."""

    @property
    def first_counter(self) -> int:
        """Counter of the first record."""
        ...

    @property
    def arrival_ms(self) -> int:
        """Arrival of all its records, milliseconds since the epoch."""
        ...

    @property
    def count(self) -> int:
        """How many records."""
        ...

    def columns(self) -> tuple[list[bytes], list[str]]:
        """Payloads and partition keys."""
        ...


class Shape(Protocol):
    """How records of one shard are shown to a handler."""

    @property
    def is_shared(self) -> bool:
        """Whether nobody can change a record of this shape: what is built once may be handed out by anybody."""
        ...

    @property
    def source_arn(self) -> str:
        """The mapping's event source ARN, where the form shows it; else empty."""
        ...

    def build(self, block: Columns, start: int, stop: int) -> Sequence[Any]:
        """The records `start` to `stop` (exclusive) of a block."""
        ...

    def sequence_number(self, record: Any) -> int:
        """The sequence number of a record in this shape."""
        ...

    def rebuild(self, records: Sequence[Mapping[str, Any] | Any]) -> list[Any]:
        """The shape of records that were kept by themselves (parked ones).

        Args:
            records: mappings or objects with the fields of a `Record`.
        """
        ...


def shape_for(form: HandlerForm, *, stream: StreamMap, shard: int, arn: str, region: str, role: str) -> Shape:
    """The shape that a handler of this form receives.

    Args:
        form: the handler's form.
        stream: map of the stream.
        shard: index of the shard.
        arn: the mapping's event source ARN.
        region: region of the stream.
        role: ARN of the function's execution role.
    """
    created_s = next(info.created_s for info in stream.shards if info.index == shard)
    if form is HandlerForm.EVENT:
        return EventShape(created_s, shard, arn=arn, region=region, role=role)
    return RecordShape(created_s, shard)


class RecordShape:
    """`Record`s, for the batch and the record form."""

    __slots__ = ("_zero", "shard_id")

    is_shared = True
    source_arn = ""

    def __init__(self, created_s: int, shard: int) -> None:
        self._zero = sequence.number(created_s, shard, 0, 0)
        self.shard_id = sequence.shard_id(shard)

    def build(self, block: Columns, start: int, stop: int) -> list[Record[Any]]:
        """The records `start` to `stop` (exclusive) of a block."""
        datas, keys = slices_of(block, start, stop)
        numbers = numbers_of(block, start, stop, self._zero)
        return list(map(Record, datas, keys, numbers, repeat(self.shard_id), repeat(block.arrival_ms)))

    def sequence_number(self, record: Record[Any]) -> int:
        """The sequence number of a record in this shape."""
        return record.sequence_number

    def rebuild(self, records: Sequence[Mapping[str, Any] | Any]) -> list[Record[Any]]:
        """The shape of records that were kept by themselves."""
        return [record_of(record) for record in records]


class EventShape:
    """Records of Lambda's event."""

    __slots__ = ("_region", "_role", "_zero", "shard_id", "source_arn")

    is_shared = False

    def __init__(self, created_s: int, shard: int, *, arn: str, region: str, role: str) -> None:
        self._zero = sequence.number(created_s, shard, 0, 0)
        self.source_arn = arn
        self._region = region
        self._role = role
        self.shard_id = sequence.shard_id(shard)

    def build(self, block: Columns, start: int, stop: int) -> list[Any]:
        """The records `start` to `stop` (exclusive) of a block."""
        datas, keys = slices_of(block, start, stop)
        numbers = numbers_of(block, start, stop, self._zero)
        return self._events(datas, keys, numbers, self.shard_id, block.arrival_ms)

    def sequence_number(self, record: Mapping[str, Any]) -> int:
        """The sequence number of a record in this shape."""
        return int(record["kinesis"]["sequenceNumber"])

    def rebuild(self, records: Sequence[Mapping[str, Any] | Any]) -> list[Any]:
        """The shape of records that were kept by themselves."""
        events: list[Any] = []
        for kept in records:
            record = record_of(kept)
            events += self._events(
                [record.data], [record.partition_key], [record.sequence_number], record.shard_id, record.arrival_ms
            )
        return events

    def _events(self, datas: list[bytes], keys: list[str], numbers: Any, shard_id: str, arrival_ms: int) -> list[Any]:
        return list(
            event_records(
                datas,
                keys,
                numbers,
                shard_id=shard_id,
                arrival_ms=arrival_ms,
                arn=self.source_arn,
                region=self._region,
                role=self._role,
            )
        )


_MULTIPLES: Final = 4096
_AHEAD: Final = [place * sequence.STEP for place in range(_MULTIPLES)]
"""How far the number of a record is ahead of its block's first: taken from a table, 20 ns a picked record less."""


def numbers_of(block: Columns, start: int, stop: int, zero: int) -> Iterable[int]:
    """The sequence numbers of some records of a block, or of what is picked of it; may be endless.

    Args:
        block: the block.
        start: the first record.
        stop: behind the last one.
        zero: the shard's number with no counter and no arrival in it.
    """
    first = zero + sequence.ahead(block.first_counter, block.arrival_ms)
    if isinstance(block, Picked):
        places = block.places[start:stop]
        if places[-1] < _MULTIPLES:
            return [first + ahead for ahead in itemgetter(*places, 0)(_AHEAD)]
        return [first + at * sequence.STEP for at in places]
    return count(first + start * sequence.STEP, sequence.STEP)


def slices_of(block: Columns, start: int, stop: int) -> tuple[list[bytes], list[str]]:
    """Payloads and keys of the records `start` to `stop` (exclusive) of a block."""
    datas, keys = block.columns()
    if start == 0 and stop >= block.count:
        return datas, keys
    return datas[start:stop], keys[start:stop]


def record_of(kept: Mapping[str, Any] | Any) -> Record[Any]:
    """A record that was kept by itself, as it was in its block."""
    if isinstance(kept, Record):
        return kept
    names = Record.__struct_fields__[:5]
    if isinstance(kept, Mapping):
        return Record(*(kept[name] for name in names))
    return Record(*(getattr(kept, name) for name in names))
