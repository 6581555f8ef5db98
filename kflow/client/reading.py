"""One page of records, as GetRecords answers it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from kflow import limits
from kflow.broker.block import Block
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import STEP, number
from kflow.broker.streammap import ShardInfo
from kflow.records import Position


class Page(NamedTuple):
    """Some records and where the next ones are.

    Attributes:
        records: in boto3's shape.
        position: behind the last one.
        arrival_ms: of the last one.
        is_behind: whether the shard has more.
    """

    records: list[dict[str, Any]]
    position: Position
    arrival_ms: int
    is_behind: bool


def read_page(reader: ShardReader, shard: ShardInfo, position: Position, limit: int) -> Page:
    """Read up to `limit` records and 10 MiB of data and keys, at least one record where there is one.

    Source: documented: GetRecords.
    """
    records: list[dict[str, Any]] = []
    budget = limits.GET_RECORDS_BYTES
    arrival_ms = 0
    position = reader.clamp(position)
    while len(records) < limit:
        blocks = reader.read(position.offset)
        if not blocks:
            return Page(records, position, arrival_ms, is_behind=False)
        for block in blocks:
            begin = position.index if block.offset == position.offset else 0
            taken = _records(block, shard, begin, limit - len(records), budget, first=not records)
            records += taken
            budget -= sum(len(record["Data"]) + len(record["PartitionKey"].encode()) for record in taken)
            end = begin + len(taken)
            if taken:
                arrival_ms = block.arrival_ms
            if end < block.count:
                return Page(records, Position(block.offset, end), arrival_ms, is_behind=True)
            position = Position(block.end, 0)
            if len(records) >= limit:
                break
    return Page(records, position, arrival_ms, is_behind=position.offset < reader.tail)


def _records(
    block: Block, shard: ShardInfo, begin: int, limit: int, budget: int, *, first: bool
) -> list[dict[str, Any]]:
    datas, keys = block.columns()
    moment = datetime.fromtimestamp(block.arrival_ms / 1000, UTC)
    sequence_number = number(shard.created_s, shard.index, block.first_counter + begin, block.arrival_ms)
    taken: list[dict[str, Any]] = []
    for data, key in zip(datas[begin : begin + limit], keys[begin : begin + limit], strict=True):
        budget -= len(data) + len(key.encode())
        if budget < 0 and not (first and not taken):
            break
        taken.append(
            {
                "SequenceNumber": str(sequence_number),
                "ApproximateArrivalTimestamp": moment,
                "Data": data,
                "PartitionKey": key,
            }
        )
        sequence_number += STEP
    return taken
