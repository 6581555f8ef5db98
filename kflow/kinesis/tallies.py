"""What calls came to, by stream, in numbers: for CloudWatch. An increment costs 0.04 us, and nothing else is done here.

Counted on the loop, taken by another thread: what is counted in the moment in which a tally is taken may be lost.
"""

from __future__ import annotations

from collections.abc import Callable

from kflow.aws.calls import Place
from kflow.kinesis.registry import Stream


class Tally:
    """Of one stream, since it was taken last. Names are CloudWatch's, where it has one."""

    __slots__ = (
        "age_count",
        "age_least_ms",
        "age_most_ms",
        "age_sum_ms",
        "get_bytes",
        "get_calls",
        "get_records",
        "name",
        "place",
        "put_bytes",
        "put_calls",
        "puts_bytes",
        "puts_calls",
        "puts_failed",
        "puts_records",
        "read_throttled",
        "write_throttled",
    )

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self.place = place
        self.put_calls = self.put_bytes = 0
        self.puts_calls = self.puts_bytes = self.puts_records = self.puts_failed = 0
        self.get_calls = self.get_bytes = self.get_records = 0
        self.age_count = self.age_sum_ms = self.age_least_ms = self.age_most_ms = 0
        self.read_throttled = self.write_throttled = 0

    def read(self, records: int, size: int, behind_ms: int) -> None:
        """A GetRecords was answered.

        Args:
            records: in the answer.
            size: of their data, bytes.
            behind_ms: how old the next record is, milliseconds.
        """
        self.get_calls += 1
        self.get_records += records
        self.get_bytes += size
        self.age_least_ms = min(self.age_least_ms, behind_ms) if self.age_count else behind_ms
        self.age_most_ms = max(self.age_most_ms, behind_ms)
        self.age_count += 1
        self.age_sum_ms += behind_ms


class Tallies:
    """Of all streams.

    Args:
        begun: called, on the loop, with the first that is counted after all were taken.

    Attributes:
        by_id: by the stream's id; ask `of` where it has none.
    """

    def __init__(self, begun: Callable[[], object] = lambda: None) -> None:
        self.by_id: dict[int, Tally] = {}
        self._begun = begun

    def of(self, stream: Stream) -> Tally:
        """The tally of a stream."""
        found = self.by_id.get(stream.id)
        if found is None:
            found = self.by_id[stream.id] = Tally(stream.name, stream.place)
            if len(self.by_id) == 1:
                self._begun()
        return found

    def take(self) -> list[Tally]:
        """All of them; they begin anew."""
        taken, self.by_id = self.by_id, {}
        return list(taken.values())
