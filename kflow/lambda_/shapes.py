"""Records of a block in the shape that a handler's form asks for, built once a block and sliced a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, repeat
from typing import Any, Protocol

from kflow.broker import sequence
from kflow.broker.streammap import StreamMap
from kflow.declarations import HandlerForm
from kflow.events.kinesis import event_records
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

    def build(self, block: Columns, start: int, stop: int) -> list[Any]:
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

    __slots__ = ("_created_s", "_shard", "shard_id")

    def __init__(self, created_s: int, shard: int) -> None:
        self._created_s = created_s
        self._shard = shard
        self.shard_id = sequence.shard_id(shard)

    def build(self, block: Columns, start: int, stop: int) -> list[Record[Any]]:
        """The records `start` to `stop` (exclusive) of a block."""
        datas, keys = _slices(block, start, stop)
        first = sequence.number(self._created_s, self._shard, block.first_counter + start, block.arrival_ms)
        numbers = count(first, sequence.STEP)
        return list(map(Record, datas, keys, numbers, repeat(self.shard_id), repeat(block.arrival_ms)))

    def sequence_number(self, record: Record[Any]) -> int:
        """The sequence number of a record in this shape."""
        return record.sequence_number

    def rebuild(self, records: Sequence[Mapping[str, Any] | Any]) -> list[Record[Any]]:
        """The shape of records that were kept by themselves."""
        return [_record(record) for record in records]


class EventShape:
    """Records of Lambda's event."""

    __slots__ = ("_arn", "_created_s", "_region", "_role", "_shard", "shard_id")

    def __init__(self, created_s: int, shard: int, *, arn: str, region: str, role: str) -> None:
        self._created_s = created_s
        self._shard = shard
        self._arn = arn
        self._region = region
        self._role = role
        self.shard_id = sequence.shard_id(shard)

    def build(self, block: Columns, start: int, stop: int) -> list[Any]:
        """The records `start` to `stop` (exclusive) of a block."""
        datas, keys = _slices(block, start, stop)
        first = sequence.number(self._created_s, self._shard, block.first_counter + start, block.arrival_ms)
        return self._events(datas, keys, count(first, sequence.STEP), self.shard_id, block.arrival_ms)

    def sequence_number(self, record: Mapping[str, Any]) -> int:
        """The sequence number of a record in this shape."""
        return int(record["kinesis"]["sequenceNumber"])

    def rebuild(self, records: Sequence[Mapping[str, Any] | Any]) -> list[Any]:
        """The shape of records that were kept by themselves."""
        events: list[Any] = []
        for kept in records:
            record = _record(kept)
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
                arn=self._arn,
                region=self._region,
                role=self._role,
            )
        )


def _slices(block: Columns, start: int, stop: int) -> tuple[list[bytes], list[str]]:
    datas, keys = block.columns()
    if start == 0 and stop >= block.count:
        return datas, keys
    return datas[start:stop], keys[start:stop]


def _record(kept: Mapping[str, Any] | Any) -> Record[Any]:
    if isinstance(kept, Record):
        return kept
    names = Record.__struct_fields__[:5]
    if isinstance(kept, Mapping):
        return Record(*(kept[name] for name in names))
    return Record(*(getattr(kept, name) for name in names))
