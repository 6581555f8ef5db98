"""Kinesis' own metrics, by `StreamName`: what was put and read, through the API and past it.

    AWS/Kinesis   IncomingRecords IncomingBytes GetRecords.IteratorAgeMilliseconds
                  PutRecord.Bytes PutRecord.Success PutRecords.Bytes PutRecords.Success PutRecords.TotalRecords ...
                  GetRecords.Bytes GetRecords.Records GetRecords.Success
                  ReadProvisionedThroughputExceeded WriteProvisionedThroughputExceeded

`IncomingRecords` and `IncomingBytes` come from the log's own counters, so puts by `kflow.put` are in them; bytes are
those that the records take in the log (chosen). Latencies are not measured.
Source: documented: Kinesis Developer Guide, monitoring with CloudWatch.
"""

from __future__ import annotations

from typing import Final

from kflow.broker.metricpoints import Point, of
from kflow.kinesis.tallies import Tallies, Tally
from kflow.monitoring.measures import Measures

NAMESPACE: Final = "AWS/Kinesis"
AGE: Final = "GetRecords.IteratorAgeMilliseconds"
_BYTES: Final = "Bytes"


class KinesisMeasures:
    """Belongs to one thread at a time.

    Args:
        measures: where they go.
    """

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._stored: dict[tuple[str, int], tuple[int, int]] = {}

    def shard(self, stream: str, shard: int, records: int, size: int, *, is_first: bool) -> None:
        """What a shard of a stream of the data folder's own place holds now.

        Args:
            stream: its name.
            shard: the shard.
            records: that were ever put.
            size: bytes of the log.
            is_first: whether this is the first look since the start: what is there is not new.
        """
        before = self._stored.get((stream, shard), (records, size) if is_first else (0, 0))
        self._stored[stream, shard] = (records, size)
        if records > before[0]:
            self._note(stream, "IncomingRecords", of(records - before[0]))
            self._note(stream, "IncomingBytes", of(max(0, size - before[1])), _BYTES)

    def forget(self, stream: str, shard: int) -> None:
        """A shard is no more."""
        self._stored.pop((stream, shard), None)

    def age(self, stream: str, age_ms: int) -> None:
        """How old the oldest record is that a function has not settled."""
        self._note(stream, AGE, of(age_ms), "Milliseconds")

    def take(self, tallies: Tallies) -> None:
        """Take over what was counted."""
        for tally in tallies.take():
            self._tally(tally)

    def _tally(self, tally: Tally) -> None:
        place = tuple(tally.place)

        def note(name: str, point: Point, unit: str = "Count") -> None:
            if point.count:
                self._note(tally.name, name, point, unit, place)

        note("PutRecord.Success", of(1, tally.put_calls))
        note("PutRecord.Bytes", _summed(tally.put_bytes, tally.put_calls), _BYTES)
        note("PutRecords.Success", of(1, tally.puts_calls))
        note("PutRecords.Bytes", _summed(tally.puts_bytes, tally.puts_calls), _BYTES)
        note("PutRecords.TotalRecords", _summed(tally.puts_records, tally.puts_calls))
        note("PutRecords.SuccessfulRecords", _summed(tally.puts_records - tally.puts_failed, tally.puts_calls))
        note("PutRecords.FailedRecords", _summed(tally.puts_failed, tally.puts_calls))
        note("GetRecords.Success", of(1, tally.get_calls))
        note("GetRecords.Bytes", _summed(tally.get_bytes, tally.get_calls), _BYTES)
        note("GetRecords.Records", _summed(tally.get_records, tally.get_calls))
        ages = Point(tally.age_count, tally.age_sum_ms, tally.age_least_ms, tally.age_most_ms, {})
        note(AGE, ages, "Milliseconds")
        note("ReadProvisionedThroughputExceeded", of(1, tally.read_throttled))
        note("WriteProvisionedThroughputExceeded", of(1, tally.write_throttled))

    def _note(
        self, stream: str, name: str, point: Point, unit: str = "Count", place: tuple[str, ...] | None = None
    ) -> None:
        where = None if place is None else (place[0], place[1])
        self._measures.note(NAMESPACE, name, point, (("StreamName", stream),), unit=unit, place=where)


def _summed(total: int, count: int) -> Point:
    """Values of which the sum and the number are known: each is taken for the mean (chosen)."""
    return of(total / count, count) if count else of(0, 0)
