"""How many events a mapping has read, and what became of them: what is told of each batch, added up."""

from __future__ import annotations

from kflow.interfaces import BatchOutcome, BatchResult
from kflow.lambda_.eventcounts import Counted, EventCounts


def outcome(result: BatchResult, records: int, succeeded: int = 0, duration_us: int = 7) -> BatchOutcome:
    return BatchOutcome(
        function="f",
        stream="s",
        shard_id="shardId-000000000000",
        records=records,
        succeeded=succeeded,
        result=result,
        duration_us=duration_us,
    )


def counted(counts: EventCounts) -> dict[str, int]:
    found = counts.take()
    return {} if found is None else found.counts


def test_each_attempt_counts_its_events_and_those_that_failed() -> None:
    counts = EventCounts("f", "u", filters=False)
    counts.outcome(outcome(BatchResult.OK, 5, 5))
    counts.outcome(outcome(BatchResult.PARTIAL, 4, 1))
    counts.outcome(outcome(BatchResult.FAILED, 3))
    counts.outcome(outcome(BatchResult.BISECT, 2))

    assert counts.take() == Counted("f", "u", {"InvokedEventCount": 14, "FailedInvokeEventCount": 8})
    assert counts.take() is None


def test_what_is_given_up_is_dropped_where_it_has_no_destination() -> None:
    counts = EventCounts("f", "u", filters=False)
    counts.outcome(outcome(BatchResult.PARKED, 2))
    counts.outcome(outcome(BatchResult.DROPPED, 3))
    counts.outcome(outcome(BatchResult.EXPIRED, 4, duration_us=0))  # without an attempt

    assert counted(counts) == {"DroppedEventCount": 9, "InvokedEventCount": 5, "FailedInvokeEventCount": 5}


def test_what_goes_to_a_destination_is_counted_when_it_gets_there() -> None:
    counts = EventCounts("f", "u", filters=False, delivers=True)
    counts.outcome(outcome(BatchResult.PARKED, 2))

    assert counted(counts) == {"InvokedEventCount": 2, "FailedInvokeEventCount": 2}


def test_what_retention_took_is_not_counted() -> None:
    counts = EventCounts("f", "u", filters=False)
    counts.outcome(outcome(BatchResult.LOST, 100, duration_us=0))

    assert counts.take() is None


def test_filtered_events_are_counted_where_there_are_filters_and_0_is_a_value() -> None:
    without, with_filters = EventCounts("f", "u", filters=False), EventCounts("f", "u", filters=True)
    for each in (without, with_filters):
        each.polled(5, 0)
        each.polled(5, 2)

    assert counted(without) == {"PolledEventCount": 10}
    assert counted(with_filters) == {"PolledEventCount": 10, "FilteredOutEventCount": 2}
    with_filters.polled(0, 0)
    assert counted(with_filters) == {"PolledEventCount": 0, "FilteredOutEventCount": 0}
