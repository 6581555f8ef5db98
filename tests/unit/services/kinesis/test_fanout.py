"""SubscribeToShard over a real log, on a host that does what it is told when it is told."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kflow.aws.calls import Place
from kflow.broker.sequence import number
from kflow.errors import DryRunOperation, InvalidArgument, KflowError, ResourceInUse, ResourceNotFound
from tests.storing import FaultyFiles
from tests.subscribing import FAST, OTHER, STREAM_ARN, Call, Desk, Given, Position


def refusal(desk: Desk, *arguments: Any, **more: Any) -> KflowError:
    with pytest.raises(KflowError) as caught:
        desk.subscribe(*arguments, **more)
    return caught.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_what_is_put_after_a_subscription_to_the_latest_is_pushed(desk: Desk):
    desk.put(b"before")
    call = desk.subscribe("LATEST")
    assert call.out is not None
    assert call.out.events == []
    (first, last) = desk.put(b"one", b"two")
    (event,) = call.out.events
    assert dict(event["Records"].members) == {
        "SequenceNumber": [str(first), str(last)],
        "ApproximateArrivalTimestamp": [1_700_000_000_000, 1_700_000_000_000],
        "Data": [b"one", b"two"],
        "PartitionKey": ["k", "k"],
    }
    assert event["ContinuationSequenceNumber"] == str(last)
    assert event["MillisBehindLatest"] == 0


@pytest.mark.parametrize(
    ("kind", "which", "expected"),
    [
        ("TRIM_HORIZON", None, [b"1", b"2", b"3"]),
        ("AT_SEQUENCE_NUMBER", 1, [b"2", b"3"]),
        ("AFTER_SEQUENCE_NUMBER", 1, [b"3"]),
        ("AFTER_SEQUENCE_NUMBER", 2, []),
        ("LATEST", None, []),
    ],
)
def test_each_starting_position_begins_where_it_says(desk: Desk, kind: str, which: int | None, expected: list[bytes]):
    numbers = desk.put(b"1", b"2", b"3")
    call = desk.subscribe(kind, None if which is None else numbers[which])
    assert call.datas == expected
    desk.put(b"4")
    assert call.datas == [*expected, b"4"]


def test_a_timestamp_begins_with_the_first_record_that_arrived_then_or_later(desk: Desk):
    desk.put(b"old")
    desk.store.clock.advance(1_000)
    desk.put(b"new")
    call = desk.subscribe("AT_TIMESTAMP", timestamp=desk.host.now_ms())
    assert call.datas == [b"new"]


def test_the_shards_own_starting_number_is_a_valid_place(desk: Desk):
    info = desk.store.stream.shards[0]
    own = number(info.created_s, 0, 0, info.created_s * 1000)
    desk.put(b"1")
    assert desk.subscribe("AT_SEQUENCE_NUMBER", own).datas == [b"1"]
    assert desk.subscribe("AFTER_SEQUENCE_NUMBER", own, arn=OTHER).datas == [b"1"]


def test_a_deep_backlog_comes_in_events_that_say_how_far_behind_they_are(desk: Desk):
    desk.put(*(b"%d" % each for each in range(1_200)))
    desk.store.clock.advance(70)
    call = desk.subscribe("TRIM_HORIZON")
    assert call.datas == [b"%d" % each for each in range(1_200)]
    assert call.out is not None
    assert [event["Records"].count for event in call.out.events] == [250] * 4 + [200]
    assert [event["MillisBehindLatest"] for event in call.out.events] == [70] * 4 + [0]


def test_a_large_record_has_an_event_of_its_own(desk: Desk):
    large = b"x" * ((1 << 20) - 1)
    desk.put(b"small", large, b"small")
    call = desk.subscribe("TRIM_HORIZON")
    assert call.datas == [b"small", large, b"small"]
    assert call.out is not None
    assert [event["Records"].count for event in call.out.events] == [1, 1, 1]


def test_who_subscribes_again_behind_the_last_number_misses_and_repeats_nothing(desk: Desk):
    first = desk.subscribe("TRIM_HORIZON")
    desk.put(b"1", b"2")
    desk.host.advance(300_000)
    assert first.ending == ""
    desk.put(b"3")
    second = desk.subscribe("AFTER_SEQUENCE_NUMBER", first.last["ContinuationSequenceNumber"])
    assert second.datas == [b"3"]


def test_the_number_of_an_idle_subscription_is_a_place_to_go_on_from(desk: Desk):
    desk.put(b"1")
    first = desk.subscribe("LATEST")
    desk.host.advance(300_000)
    assert len(first.datas) == 0
    at = first.last["ContinuationSequenceNumber"]
    desk.put(b"2")
    assert desk.subscribe("AFTER_SEQUENCE_NUMBER", at).datas == [b"2"]


def test_an_idle_subscription_sends_an_event_every_five_seconds_and_ends_after_five_minutes(desk: Desk):
    call = desk.subscribe()
    assert call.out is not None
    desk.host.advance(299_999)
    assert call.ending is None
    assert len(call.out.events) == 59
    desk.host.advance(1)
    assert call.ending == ""


def test_nothing_is_due_and_nobody_is_watched_once_all_subscriptions_have_ended(desk: Desk):
    call = desk.subscribe()
    other = desk.subscribe(arn=OTHER)
    assert call.out is not None
    assert desk.host.timers == 2
    call.out.hang_up()
    desk.fanout.end_subscriptions()
    assert other.ending == ""
    assert desk.host.timers == 0
    assert desk.host.readers == {(desk.store.stream.id, 0): []}


def test_a_slow_peer_is_sent_more_once_it_has_taken_what_was_sent(desk: Desk):
    call = desk.subscribe()
    assert call.out is not None
    call.out.buffered = 1 << 20
    desk.put(b"1")
    desk.host.advance(60_000)
    assert call.datas == []
    call.out.buffered = 0
    assert call.out.on_drain is not None
    call.out.on_drain()
    desk.host.settle()
    assert call.datas == [b"1"]


def test_two_consumers_receive_all_records_each(desk: Desk):
    calls = [desk.subscribe(arn=FAST), desk.subscribe(arn=OTHER)]
    desk.put(b"1")
    desk.put(b"2")
    assert [call.datas for call in calls] == [[b"1", b"2"]] * 2


def test_a_split_ends_the_parents_subscription_with_its_children(desk: Desk):
    call = desk.subscribe("LATEST")
    desk.put(b"last")
    desk.split()
    assert call.datas == [b"last"]
    assert call.last["ChildShards"] == [
        {
            "ShardId": "shardId-000000000001",
            "ParentShards": ["shardId-000000000000"],
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "170141183460469231731687303715884105727"},
        },
        {
            "ShardId": "shardId-000000000002",
            "ParentShards": ["shardId-000000000000"],
            "HashKeyRange": {
                "StartingHashKey": "170141183460469231731687303715884105728",
                "EndingHashKey": "340282366920938463463374607431768211455",
            },
        },
    ]
    assert "ContinuationSequenceNumber" not in call.last
    assert call.ending == ""


def test_a_closed_shard_is_read_to_its_end_first(desk: Desk):
    desk.put(*(b"%d" % each for each in range(700)))
    desk.split()
    call = desk.subscribe("TRIM_HORIZON")
    assert len(call.datas) == 700
    assert len(call.last["ChildShards"]) == 2
    assert call.ending == ""
    assert call.out is not None
    assert all("ContinuationSequenceNumber" in event for event in call.out.events[:-1])


def test_a_stream_that_is_deleted_ends_its_subscriptions_with_an_error(desk: Desk):
    call = desk.subscribe()
    desk.host.maps.clear()
    desk.registry.forget(desk.store.stream.id)
    desk.host.tell()
    desk.host.settle()
    assert call.ending == "ResourceNotFound: Stream orders under account 123456789012 not found."


def test_a_consumer_that_is_deregistered_loses_its_subscriptions_and_others_keep_theirs(desk: Desk):
    call, other = desk.subscribe(), desk.subscribe(arn=OTHER)
    fast, rest, *_ = desk.registry.find(Place("123456789012", "us-east-1"), "orders").attributes.consumers
    desk.change_consumers(msgspec.structs.replace(fast, gone_ms=desk.host.now_ms() + 500), rest)
    assert call.ending == f"ResourceNotFound: Consumer {FAST}, account 123456789012 not found."
    assert other.ending is None


def test_tags_that_change_end_no_subscription(desk: Desk):
    call = desk.subscribe()
    stream = desk.registry.find(Place("123456789012", "us-east-1"), "orders")
    desk.registry.change(stream, lambda _: None, tags={"a": "b"})
    desk.host.settle()
    assert call.ending is None


def test_a_second_subscription_takes_over_after_five_seconds_and_not_before(desk: Desk):
    taken = "Another active subscription exists for this consumer: 123456789012:orders:shardId-000000000000:fast"
    first = desk.subscribe()
    desk.host.advance(4_999)
    error = refusal(desk)
    assert isinstance(error, ResourceInUse)
    assert str(error) == taken
    assert first.ending is None
    desk.host.advance(1)
    second = desk.subscribe()
    assert first.ending == f"ResourceInUse: {taken}"
    desk.put(b"1")
    assert first.datas == []
    assert second.datas == [b"1"]


def test_a_caller_that_is_gone_before_the_answer_takes_nobodys_place(desk: Desk):
    call = Call()
    given = Given(FAST, "shardId-000000000000", Position("LATEST"))
    desk.fanout.subscribe_to_shard(call, given)
    call.is_closed = True
    desk.host.settle()
    assert call.out is None
    assert desk.subscribe().out is not None


def test_a_stream_that_goes_while_the_place_is_looked_up_refuses_the_call(desk: Desk):
    call = Call()
    desk.fanout.subscribe_to_shard(call, Given(FAST, "shardId-000000000000", Position("LATEST")))
    desk.host.maps.clear()
    desk.registry.forget(desk.store.stream.id)
    desk.host.settle()
    assert call.out is None
    assert str(call.refusal) == "Stream orders under account 123456789012 not found."


@pytest.mark.parametrize(
    ("name", "created_s"),
    [("new", 1_600_000_002), ("old", 1_600_000_003)],
)
def test_a_consumer_that_is_not_active_is_refused(desk: Desk, name: str, created_s: int):
    error = refusal(desk, arn=f"{STREAM_ARN}/consumer/{name}:{created_s}")
    assert isinstance(error, ResourceInUse)
    assert str(error) == (
        f"Consumer {name} with creation timestamp {created_s} under stream: orders , account 123456789012 "
        "is not in ACTIVE status."
    )


@pytest.mark.parametrize(
    "arn",
    [f"{STREAM_ARN}/consumer/fast:1", f"{STREAM_ARN}/consumer/none:1600000000", FAST.replace("us-east-1", "eu-west-1")],
)
def test_an_unknown_consumer_is_not_found(desk: Desk, arn: str):
    error = refusal(desk, arn=arn)
    assert isinstance(error, ResourceNotFound)
    assert str(error) == f"Consumer {arn}, account 123456789012 not found."


def test_an_unknown_shard_is_not_found(desk: Desk):
    error = refusal(desk, shard=7)
    assert isinstance(error, ResourceNotFound)
    assert str(error) == "Shard shardId-000000000007 in stream orders under account 123456789012 does not exist"


def test_a_number_of_another_shard_is_refused(desk: Desk):
    error = refusal(desk, "AT_SEQUENCE_NUMBER", number(desk.store.stream.shards[0].created_s, 5, 1, 0))
    assert isinstance(error, InvalidArgument)
    assert str(error) == (
        "Invalid StartingSequenceNumber. It encodes shardId-000000000005, "
        "while it was used in a call to a shard with shardId-000000000000"
    )


def test_a_type_that_needs_a_number_is_refused_without_one(desk: Desk):
    assert isinstance(refusal(desk, "AFTER_SEQUENCE_NUMBER"), InvalidArgument)


def test_a_dry_run_says_that_it_would_have_worked_and_changes_nothing(desk: Desk):
    first = desk.subscribe()
    desk.host.advance(5_000)
    assert isinstance(refusal(desk, DryRun=True), DryRunOperation)
    assert first.ending is None
    desk.subscribe()


def test_with_limits_a_subscription_sends_two_mebibytes_a_second(tmp_path: Path):
    desk = Desk(tmp_path, enforce_limits=True)
    for _ in range(5):
        desk.put(b"x" * ((1 << 20) - 1))
    call = desk.subscribe("TRIM_HORIZON")
    assert len(call.datas) == 2
    desk.host.advance(10)
    assert len(call.datas) == 3
    desk.host.advance(500)
    assert len(call.datas) == 4
    desk.host.advance(500)
    assert len(call.datas) == 5


def test_a_damaged_record_is_left_out_and_the_subscription_goes_on(desk: Desk):
    desk.put(b"1")
    for segment in desk.store.shard_path.glob("*.seg"):
        content = bytearray(segment.read_bytes())
        content[-1] ^= 1
        segment.write_bytes(content)
    call = desk.subscribe("TRIM_HORIZON")
    desk.put(b"2")
    assert call.datas == [b"2"]
    assert call.ending is None


def test_a_disk_that_fails_ends_the_subscription_with_an_error(tmp_path: Path):
    files = FaultyFiles()
    desk = Desk(tmp_path, files=files)
    desk.put(b"1")
    call = Call()
    desk.fanout.subscribe_to_shard(call, Given(FAST, "shardId-000000000000", Position("TRIM_HORIZON")))
    desk.host.step()
    files.errors["pread"] = errno.EIO
    desk.host.settle()
    assert call.ending is not None
    assert call.ending.startswith("StorageError: cannot read shard 0 of stream orders")
    assert desk.host.timers == 0


def test_at_the_number_of_an_idle_event_no_record_comes_twice(desk: Desk):
    first = desk.subscribe("TRIM_HORIZON")
    desk.put(b"1")
    desk.host.advance(300_000)
    assert first.datas == [b"1"]
    again = desk.subscribe("AT_SEQUENCE_NUMBER", first.last["ContinuationSequenceNumber"])
    desk.put(b"2")
    assert again.datas == [b"2"]


@pytest.mark.parametrize("already_read", [False, True])
def test_what_is_broken_ends_one_subscription_and_no_other(desk: Desk, already_read: bool):
    call, other = desk.subscribe(), desk.subscribe(arn=OTHER)
    if already_read:  # the next page comes at once, not out of a thread
        desk.put(b"0")
    assert call.out is not None

    def broken(event: str, members: Any) -> None:
        raise ValueError(event)

    call.out.send = broken
    desk.put(b"1")
    assert call.ending == "InternalError: ValueError: SubscribeToShardEvent; please report it"
    assert other.datas[-1:] == [b"1"]
    assert desk.host.timers == 1
