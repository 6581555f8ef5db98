"""A worker never waits for who reads its lines, and says how many were lost."""

from __future__ import annotations

import msgspec

from kflow.interfaces import BatchOutcome, BatchResult
from kflow.lambda_.eventcounts import Counted
from kflow.runtime.feed import live_pair
from kflow.runtime.worker.live import Live


def outcome(records: int, result: BatchResult = BatchResult.OK, shard: str = "shardId-000000000000") -> BatchOutcome:
    return BatchOutcome(
        function="bill", stream="orders", shard_id=shard, records=records, succeeded=records, result=result
    )


def test_lines_that_nobody_reads_are_counted_once_and_never_waited_for() -> None:
    reader, writer = live_pair()
    live = Live(writer, 0)
    told = 0
    while not (dropped := live.take_dropped()):
        live.tell(outcome(1), told)
        told += 1

    assert dropped == 1
    assert live.take_dropped() == 0
    reader.close()
    writer.close()


def test_successes_of_a_shard_are_told_as_one_and_a_failure_comes_after_them() -> None:
    reader, writer = live_pair()
    live = Live(writer, 100)

    live.tell(outcome(3), 0)
    live.tell(outcome(4), 50)
    live.tell(outcome(1, BatchResult.PARKED), 60)

    lines = [msgspec.msgpack.decode(reader.recv(65536), type=BatchOutcome) for _ in range(2)]
    assert [(line.records, line.batches, line.result) for line in lines] == [
        (7, 2, BatchResult.OK),
        (1, 1, BatchResult.PARKED),
    ]
    reader.close()
    writer.close()


def test_what_was_counted_of_a_mapping_comes_by_the_same_way() -> None:
    reader, writer = live_pair()
    live = Live(writer, 0)
    live.tell(outcome(3), 0)
    live.count(Counted("bill", "u", {"PolledEventCount": 3}))

    heard = msgspec.msgpack.Decoder(BatchOutcome | Counted)
    assert [heard.decode(reader.recv(65536)) for _ in range(2)] == [
        outcome(3),
        Counted("bill", "u", {"PolledEventCount": 3}),
    ]
    reader.close()
    writer.close()
