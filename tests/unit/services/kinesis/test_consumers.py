"""Registered consumers through the service: their states, their limits, and what names them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kflow.kinesis.registry import Stream
from tests.controlling import ARN, Desk

FAST = {"StreamARN": ARN, "ConsumerName": "fast"}
NAMED = f"{ARN}/consumer/fast"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.stream()
    made.clock.advance(500)  # to the second
    return made


def described(desk: Desk, **given: Any) -> dict[str, Any]:
    return dict(desk.call("DescribeStreamConsumer", **given)["ConsumerDescription"])


def listed(desk: Desk) -> list[str]:
    return [each["ConsumerName"] for each in desk.call("ListStreamConsumers", StreamARN=ARN)["Consumers"]]


def test_a_consumer_is_creating_and_then_active_and_then_deleting_and_then_gone(desk: Desk) -> None:
    assert desk.call("RegisterStreamConsumer", **FAST) == {
        "Consumer": {
            "ConsumerName": "fast",
            "ConsumerARN": f"{NAMED}:1700000001",
            "ConsumerStatus": "CREATING",
            "ConsumerCreationTimestamp": datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC),
        }
    }
    assert described(desk, **FAST)["ConsumerStatus"] == "CREATING"
    desk.settle()
    assert described(desk, **FAST) == {
        "ConsumerName": "fast",
        "ConsumerARN": f"{NAMED}:1700000001",
        "ConsumerStatus": "ACTIVE",
        "ConsumerCreationTimestamp": datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC),
        "StreamARN": ARN,
    }
    assert not desk.call("DeregisterStreamConsumer", ConsumerARN=f"{NAMED}:1700000001")
    assert described(desk, **FAST)["ConsumerStatus"] == "DELETING"
    desk.settle()
    assert desk.refusal("DescribeStreamConsumer", **FAST) == (
        "ResourceNotFoundException",
        "Consumer fast, account 123456789012 not found.",
    )
    assert desk.refusal("DescribeStreamConsumer", ConsumerARN=f"{NAMED}:1700000001") == (
        "ResourceNotFoundException",
        f"Consumer {NAMED}:1700000001, account 123456789012 not found.",
    )


def test_a_consumer_that_is_not_active_is_not_deregistered(desk: Desk) -> None:
    desk.call("RegisterStreamConsumer", **FAST)
    assert desk.refusal("DeregisterStreamConsumer", **FAST) == (
        "ResourceInUseException",
        (
            "Consumer fast with creation timestamp 1700000001 under stream: orders , account 123456789012 is not in "
            "ACTIVE status."
        ),
    )


def test_a_name_is_registered_once_and_anew_under_another_arn(tmp_path: Path) -> None:
    desk = Desk(tmp_path, transition_ms=0)
    desk.stream()
    arns = []
    for _ in range(3):
        arns.append(desk.call("RegisterStreamConsumer", **FAST)["Consumer"]["ConsumerARN"])
        assert desk.refusal("RegisterStreamConsumer", **FAST) == (
            "ResourceInUseException",
            "Consumer fast under stream orders already exists for account 123456789012.",
        )
        desk.call("DeregisterStreamConsumer", **FAST)
        desk.settle()
        desk.clock.epoch_ms = 1_700_000_000_000
    assert arns == [f"{NAMED}:1700000000", f"{NAMED}:1700000001", f"{NAMED}:1700000002"]


def test_all_three_names_of_a_consumer_must_agree(desk: Desk) -> None:
    desk.call("RegisterStreamConsumer", **FAST)
    arn = f"{NAMED}:1700000001"
    assert described(desk, ConsumerARN=arn, **FAST)["ConsumerName"] == "fast"
    assert desk.refusal("DescribeStreamConsumer", ConsumerARN=arn, StreamARN=ARN, ConsumerName="slow") == (
        "InvalidArgumentException",
        f"StreamARN {ARN} and ConsumerName slow do not name the consumer {arn}.",
    )
    for too_little in ({}, {"StreamARN": ARN}, {"ConsumerName": "fast"}):
        assert desk.refusal("DescribeStreamConsumer", **too_little) == (
            "InvalidArgumentException",
            "Either ConsumerARN, or both StreamARN and ConsumerName must be provided.",
        )
    assert desk.refusal("DescribeStreamConsumer", ConsumerARN=f"{NAMED}:1700000002")[0] == "ResourceNotFoundException"


def test_five_consumers_are_made_at_a_time(desk: Desk) -> None:
    for number in range(5):
        desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName=f"c{number}")
    assert desk.refusal("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="c5")[0] == "LimitExceededException"
    desk.settle()
    desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="c5")


def fill(desk: Desk, stream: Stream, count: int) -> None:
    for number in range(count):
        desk.call("RegisterStreamConsumer", StreamARN=stream.arn, ConsumerName=f"c{number:02}")
        desk.settle()


def test_queues_count_among_the_twenty_consumers_of_a_stream(desk: Desk) -> None:
    stream = desk.registry.find(desk.place, "orders")
    desk.registry.queues_on = lambda stream_id: 2 if stream_id == stream.id else 0
    fill(desk, stream, 18)
    assert desk.refusal("RegisterStreamConsumer", **FAST) == (
        "LimitExceededException",
        "Stream orders under account 123456789012 has 20 consumers already.",
    )


def test_an_on_demand_advantage_stream_has_fifty(desk: Desk) -> None:
    stream = desk.stream("many", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    desk.call("UpdateAccountSettings", MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    fill(desk, stream, 50)
    assert desk.refusal("RegisterStreamConsumer", StreamARN=stream.arn, ConsumerName="more")[0] == (
        "LimitExceededException"
    )


def test_consumers_are_listed_by_name_in_pages_whose_token_belongs_to_the_stream(desk: Desk) -> None:
    for name in ("c", "a", "b"):
        desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName=name)
    first = desk.call("ListStreamConsumers", StreamARN=ARN, MaxResults=2)
    assert [each["ConsumerName"] for each in first["Consumers"]] == ["a", "b"]
    rest = desk.call("ListStreamConsumers", StreamARN=ARN, NextToken=first["NextToken"])
    assert [each["ConsumerName"] for each in rest["Consumers"]] == ["c"]
    assert "NextToken" not in rest
    other = desk.stream("other")
    assert desk.refusal("ListStreamConsumers", StreamARN=other.arn, NextToken=first["NextToken"])[0] == (
        "InvalidArgumentException"
    )
    desk.host.advance(300_001)
    assert desk.refusal("ListStreamConsumers", StreamARN=ARN, NextToken=first["NextToken"])[0] == (
        "ExpiredNextTokenException"
    )


def test_the_creation_of_the_stream_tells_those_of_one_name_apart(desk: Desk) -> None:
    given = {"StreamARN": ARN, "StreamCreationTimestamp": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)}
    assert desk.call("ListStreamConsumers", **given) == {"Consumers": []}
    given["StreamCreationTimestamp"] = datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC)
    assert desk.refusal("ListStreamConsumers", **given)[0] == "ResourceNotFoundException"


def test_consumers_outlive_a_kill_and_those_that_were_going_are_gone(desk: Desk) -> None:
    desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="stays", Tags={"a": "b"})
    desk.call("RegisterStreamConsumer", **FAST)
    desk.settle()
    desk.call("DeregisterStreamConsumer", **FAST)
    desk.restart()
    assert listed(desk) == ["fast", "stays"]
    desk.settle()
    assert listed(desk) == ["stays"]
    assert [each.name for each in desk.registry.find(desk.place, "orders").attributes.consumers] == ["stays"]
    arn = desk.call("DescribeStreamConsumer", StreamARN=ARN, ConsumerName="stays")["ConsumerDescription"]["ConsumerARN"]
    assert desk.call("ListTagsForResource", ResourceARN=arn) == {"Tags": [{"Key": "a", "Value": "b"}]}


def test_watchers_are_told_when_a_consumer_is_deregistered_and_when_it_is_gone(desk: Desk) -> None:
    desk.call("RegisterStreamConsumer", **FAST)
    desk.settle()
    told: list[int] = []
    end = desk.registry.watch(lambda stream: told.append(len(stream.attributes.consumers)))
    desk.call("DeregisterStreamConsumer", **FAST)
    desk.settle()
    assert told == [1, 0]
    end()
    desk.call("RegisterStreamConsumer", **FAST)
    assert told == [1, 0]
