"""What a subscription sends, and when: stepped by hand, with pages made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kflow.aws.columns import Columns
from kflow.broker.sequence import number, parse
from kflow.broker.streammap import ShardInfo
from kflow.errors import KflowError, ResourceInUse
from kflow.kinesis.reading import Page, Span
from kflow.kinesis.subscriptions import EVENT, FULL_BYTES, Act, Start, Step, Subscription
from kflow.records import Position

NOW = 1_700_000_000_000
SHARD = ShardInfo(index=3, start=0, end=(1 << 128) - 1, created_s=1_600_000_000)
CHILDREN = [{"ShardId": "shardId-000000000004", "ParentShards": ["shardId-000000000003"], "HashKeyRange": {}}]


class Out:
    """An event stream that keeps what it is sent."""

    def __init__(self) -> None:
        self.buffered = 0
        self.on_drain = None
        self.on_close = None
        self.is_closed = False
        self.events: list[Mapping[str, Any]] = []
        self.error: KflowError | None = None

    def send(self, event: str, members: Mapping[str, Any]) -> None:
        assert event == EVENT
        self.events.append(members)

    def fail(self, error: KflowError) -> None:
        self.error = error
        self.is_closed = True

    def end(self) -> None:
        self.is_closed = True


def page(count: int, first: int = 1, *, behind: bool = False, at_ms: int = NOW, size: int = 1) -> Page:
    """Records from counter `first` on, each of `size` bytes and keyed `k`."""
    spans = [Span(0, 0, count, first, at_ms, 0)] if count else []
    return Page(
        SHARD,
        [b"x" * size] * count,
        ["k"] * count,
        spans,
        count * (size + 1),
        Position(1000, 0),
        first + count,
        is_behind=behind,
    )


def subscription(out: Out, *, counter: int = 1, paced: bool = False) -> Subscription:
    return Subscription(SHARD, Start(Position(0, 0), counter), out, NOW, is_paced=paced)


def read(it: Subscription, found: Page, now_ms: int = NOW, children: Any = ()) -> None:
    """One step that asks for a page, and the page."""
    assert it.step(now_ms).act is Act.READ
    it.take(found, children, now_ms)


def test_records_go_out_in_one_event_with_the_number_of_the_last():
    out = Out()
    it = subscription(out)
    read(it, page(2))
    (event,) = out.events
    assert isinstance(event["Records"], Columns)
    assert event["Records"].count == 2
    assert event["Records"].members["SequenceNumber"] == [
        str(number(1_600_000_000, 3, 1, NOW)),
        str(number(1_600_000_000, 3, 2, NOW)),
    ]
    assert event["ContinuationSequenceNumber"] == str(number(1_600_000_000, 3, 2, NOW))
    assert event["MillisBehindLatest"] == 0
    assert "ChildShards" not in event
    assert it.position == (1000, 0)


def test_at_the_tip_it_rests_until_a_heartbeat_is_due():
    out = Out()
    it = subscription(out)
    read(it, page(0))
    assert it.step(NOW + 10) == Step(Act.REST, NOW + 5_000)
    assert out.events == []


def test_news_make_it_read_again():
    it = subscription(Out())
    read(it, page(0))
    it.news()
    assert it.step(NOW).act is Act.READ


def test_news_that_come_while_a_page_is_read_are_not_lost():
    it = subscription(Out())
    assert it.step(NOW).act is Act.READ
    it.news()
    assert it.step(NOW) == Step(Act.REST, NOW + 300_000)  # one page at a time
    it.take(page(1), (), NOW)
    assert it.step(NOW).act is Act.READ


def test_a_page_with_more_behind_it_is_followed_by_the_next_one():
    out = Out()
    it = subscription(out)
    read(it, page(1, behind=True, at_ms=NOW - 70), NOW)
    assert out.events[0]["MillisBehindLatest"] == 70
    assert it.step(NOW).act is Act.READ


def test_an_idle_subscription_sends_events_without_records_whose_number_advances():
    out = Out()
    it = subscription(out)
    read(it, page(1))
    assert it.step(NOW + 5_000) == Step(Act.REST, NOW + 10_000)
    assert it.step(NOW + 10_000) == Step(Act.REST, NOW + 15_000)
    record, first, second = out.events
    assert list(first["Records"]) == []
    assert first["MillisBehindLatest"] == 0
    numbers = [int(event["ContinuationSequenceNumber"]) for event in (record, first, second)]
    assert sorted(numbers) == numbers
    assert len(set(numbers)) == 3
    assert {parse(each).counter for each in numbers} == {1}


def test_the_number_of_a_heartbeat_is_below_that_of_every_record_to_come():
    out = Out()
    it = subscription(out, counter=8)
    read(it, page(0))
    it.step(NOW + 5_000)
    sent = int(out.events[0]["ContinuationSequenceNumber"])
    assert parse(sent).counter == 7
    assert sent < number(1_600_000_000, 3, 8, NOW + 5_000)


def test_a_clock_that_goes_back_takes_no_number_back():
    out = Out()
    it = subscription(out)
    read(it, page(1, at_ms=NOW + 60_000))
    it.step(NOW + 5_000)
    record, beat = (int(event["ContinuationSequenceNumber"]) for event in out.events)
    assert beat == record


def test_a_subscription_to_an_empty_shard_continues_at_the_shards_own_number():
    out = Out()
    it = subscription(out, counter=1)
    read(it, page(0))
    it.step(NOW + 5_000)
    assert parse(int(out.events[0]["ContinuationSequenceNumber"])).counter == 0


def test_a_peer_that_takes_nothing_is_sent_nothing():
    out = Out()
    it = subscription(out)
    read(it, page(1, behind=True))
    out.buffered = FULL_BYTES + 1
    assert it.step(NOW + 1) == Step(Act.REST, NOW + 5_001)
    assert it.step(NOW + 60_000) == Step(Act.REST, NOW + 65_000)
    out.buffered = 0
    assert it.step(NOW + 60_000).act is Act.READ
    assert len(out.events) == 1


def test_after_five_minutes_it_ends_without_an_error():
    out = Out()
    it = subscription(out)
    read(it, page(0))
    assert it.step(NOW + 299_999) == Step(Act.REST, NOW + 300_000)
    assert it.step(NOW + 300_000).act is Act.OVER
    assert out.is_closed
    assert out.error is None


def test_what_was_read_when_it_ended_is_dropped():
    out = Out()
    it = subscription(out)
    it.step(NOW)
    it.step(NOW + 300_000)
    it.take(page(1), (), NOW + 300_000)
    assert out.events == []


def test_the_end_of_the_shard_is_an_event_with_children_and_no_number_and_then_it_ends():
    out = Out()
    it = subscription(out)
    read(it, page(2), children=CHILDREN)
    records, last = out.events
    assert records["Records"].count == 2
    assert records["ContinuationSequenceNumber"] == str(number(1_600_000_000, 3, 2, NOW))
    assert last == {"Records": (), "MillisBehindLatest": 0, "ChildShards": CHILDREN}
    assert out.is_closed
    assert it.step(NOW).act is Act.OVER


def test_an_error_ends_it():
    out = Out()
    it = subscription(out)
    error = ResourceInUse("taken")
    it.fail(error)
    assert out.error is error
    assert it.step(NOW).act is Act.OVER


def test_a_peer_that_went_away_is_sent_nothing_more():
    out = Out()
    it = subscription(out)
    out.is_closed = True
    assert it.step(NOW).act is Act.OVER


def test_a_paced_one_sends_two_mebibytes_a_second():
    out = Out()
    it = subscription(out, paced=True)
    mebibyte = (1 << 20) - 1  # and a byte of key
    read(it, page(3, behind=True, size=mebibyte))
    assert it.step(NOW) == Step(Act.REST, NOW + 501)  # a mebibyte is owed
    assert it.step(NOW + 501).act is Act.READ


def test_a_paced_one_saves_no_more_than_a_second_up():
    out = Out()
    it = subscription(out, paced=True)
    later = NOW + 60_000
    read(it, page(3, behind=True, size=(1 << 20) - 1), later)
    assert it.step(later).act is Act.REST


@pytest.mark.parametrize("passed", [0, 4_999])
def test_records_put_the_heartbeat_off(passed: int):
    out = Out()
    it = subscription(out)
    read(it, page(0))
    it.news()
    read(it, page(1), NOW + passed)
    assert it.step(NOW + passed) == Step(Act.REST, NOW + passed + 5_000)
    assert len(out.events) == 1
