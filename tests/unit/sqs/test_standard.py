"""Messages of a standard queue, through their lives."""

from __future__ import annotations

import uuid

import pytest

from kflow.aws.calls import Place
from kflow.sqs import errors, limits
from tests.sqsing import BEGIN_MS


def test_a_message_is_sent_received_and_deleted(world):
    url = world.create()
    sent = world.send(url, "hello")
    assert sent == {"MessageId": sent["MessageId"], "MD5OfMessageBody": "5d41402abc4b2a76b9719d911017c592"}
    assert uuid.UUID(sent["MessageId"]).version == 4
    (message,) = world.receive(url)
    assert message == {
        "MessageId": sent["MessageId"],
        "ReceiptHandle": message["ReceiptHandle"],
        "MD5OfBody": "5d41402abc4b2a76b9719d911017c592",
        "Body": "hello",
    }
    world.delete(url, message)
    world.host.advance(60_000)
    assert world.call("ReceiveMessage", QueueUrl=url) == {}


def test_a_receive_gives_one_message_where_it_does_not_say_how_many(world):
    url = world.create()
    for body in "abc":
        world.send(url, body)
    assert [m["Body"] for m in world.call("ReceiveMessage", QueueUrl=url)["Messages"]] == ["a"]
    assert world.bodies(url) == ["b", "c"]


def test_system_attributes_are_shown_to_who_asks(world):
    url = world.create()
    world.send(
        url,
        "x",
        MessageGroupId="tenant",
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}},
    )
    world.host.advance(1000)
    (first,) = world.receive(url, VisibilityTimeout=0, AttributeNames=["All"])
    assert first["Attributes"] == {
        "SenderId": "AKID",
        "SentTimestamp": str(BEGIN_MS),
        "ApproximateReceiveCount": "1",
        "ApproximateFirstReceiveTimestamp": str(BEGIN_MS + 1000),
        "MessageGroupId": "tenant",
        "AWSTraceHeader": "Root=1",
    }
    world.host.advance(1000)
    asked = {"AttributeNames": ["SenderId"], "MessageSystemAttributeNames": ["ApproximateReceiveCount"]}
    (again,) = world.receive(url, **asked)
    assert again["Attributes"] == {"SenderId": "AKID", "ApproximateReceiveCount": "2"}
    assert again["ReceiptHandle"] != first["ReceiptHandle"]


def test_what_is_in_flight_is_hidden_until_its_time_is_over(world):
    url = world.create(VisibilityTimeout="5")
    world.send(url, "x")
    assert world.bodies(url) == ["x"]
    world.host.advance(4_999)
    assert world.bodies(url) == []
    world.host.advance(1)
    assert world.bodies(url, VisibilityTimeout=60) == ["x"]
    world.host.advance(59_999)
    assert world.bodies(url) == []


def test_a_timeout_of_zero_leaves_it_visible(world):
    url = world.create()
    for body in "abc":
        world.send(url, body)
    assert sorted(world.bodies(url, VisibilityTimeout=0)) == ["a", "b", "c"]
    assert sorted(world.bodies(url)) == ["a", "b", "c"]


def test_a_delay_hides_a_new_message(world):
    url = world.create(DelaySeconds="2")
    world.send(url, "queue's")
    world.send(url, "own", DelaySeconds=5)
    world.send(url, "none", DelaySeconds=0)
    assert world.counts(url) == (1, 0, 2)
    assert world.bodies(url) == ["none"]
    assert world.counts(url) == (0, 1, 2)
    world.host.advance(2000)
    assert world.bodies(url) == ["queue's"]
    world.host.advance(3000)
    assert world.bodies(url) == ["own"]


def test_an_expired_handle_still_deletes(world):
    url = world.create(VisibilityTimeout="1")
    world.send(url, "x")
    (message,) = world.receive(url)
    world.host.advance(1000)
    world.delete(url, message)
    assert world.bodies(url) == []
    world.delete(url, message)


def test_a_handle_of_another_queue_is_none(world):
    url, other = world.create(), world.create("other")
    world.send(url, "x")
    (message,) = world.receive(url)
    with pytest.raises(errors.ReceiptHandleIsInvalid):
        world.delete(other, message)
    with pytest.raises(errors.ReceiptHandleIsInvalid) as caught:
        world.delete(url, {"ReceiptHandle": "garbage"})
    assert str(caught.value) == 'The input receipt handle "garbage" is not a valid receipt handle.'


def test_visibility_is_changed_from_now_on(world):
    url = world.create()
    world.send(url, "x")
    (message,) = world.receive(url, VisibilityTimeout=10)
    world.host.advance(5000)
    world.hide(url, message, 10)
    world.host.advance(9_999)
    assert world.bodies(url) == []
    world.host.advance(1)
    world.hide(url, message, 0)  # it expired: a standard queue does not mind
    (message,) = world.receive(url)
    world.hide(url, message, 0)
    assert world.bodies(url) == ["x"]


def test_visibility_of_what_is_gone_or_received_again_cannot_be_changed(world):
    url = world.create()
    world.send(url, "x")
    (old,) = world.receive(url, VisibilityTimeout=0)
    (message,) = world.receive(url)
    reason = "Reason: Message does not exist or is not available for visibility timeout change."
    with pytest.raises(errors.InvalidParameterValue) as caught:
        world.hide(url, old, 1)
    assert str(caught.value) == f"Value {old['ReceiptHandle']} for parameter ReceiptHandle is invalid. {reason}"
    world.delete(url, message)
    with pytest.raises(errors.InvalidParameterValue, match="Message does not exist"):
        world.hide(url, message, 1)


def test_visibility_cannot_go_on_for_more_than_twelve_hours(world):
    url = world.create()
    world.send(url, "x")
    (message,) = world.receive(url)
    world.hide(url, message, 43_200)
    world.host.advance(3_600_000)
    with pytest.raises(errors.InvalidParameterValue) as caught:
        world.hide(url, message, 43_200)
    assert str(caught.value) == (
        "Value 43200 for parameter VisibilityTimeout is invalid. "
        "Reason: Total VisibilityTimeout for the message is beyond the limit [43200 seconds]"
    )
    world.hide(url, message, 39_600)


def test_messages_expire_in_any_state(world):
    url = world.create(MessageRetentionPeriod="60")
    world.send(url, "seen")
    world.receive(url, VisibilityTimeout=43_200)
    world.send(url, "unseen")
    world.send(url, "delayed", DelaySeconds=900)
    world.host.advance(60_000)
    assert world.counts(url) == (1, 1, 1)
    world.host.advance(1)
    assert world.counts(url) == (0, 0, 0)


def test_a_purge_removes_all_and_is_allowed_once_a_minute(world):
    url = world.create()
    for body in "abc":
        world.send(url, body)
    world.receive(url, 1)
    world.send(url, "later", DelaySeconds=10)
    world.call("PurgeQueue", QueueUrl=url)
    assert world.counts(url) == (0, 0, 0)
    world.host.advance(59_999)
    with pytest.raises(errors.PurgeQueueInProgress) as caught:
        world.call("PurgeQueue", QueueUrl=url)
    assert str(caught.value) == "Only one PurgeQueue operation on jobs is allowed every 60 seconds."
    assert caught.value.http_status == 403
    world.host.advance(1)
    world.call("PurgeQueue", QueueUrl=url)


def test_only_so_many_messages_are_in_flight(world, monkeypatch):
    monkeypatch.setattr(limits, "IN_FLIGHT", 5)
    url = world.create()
    for number in range(8):
        world.send(url, str(number))
    first = world.receive(url, 3)
    assert len(world.receive(url, 3)) == 2
    with pytest.raises(errors.OverLimit):
        world.receive(url, 1)
    world.delete(url, first[0])
    world.delete(url, first[1])
    assert len(world.receive(url, 1)) == 1


def test_all_of_it_is_there_after_a_restart(world):
    url = world.create(VisibilityTimeout="7")
    world.send(url, "gone")
    world.send(url, "in flight")
    world.send(url, "waiting")
    world.delete(url, world.receive(url, 1)[0])
    (message,) = world.receive(url, 1)
    world.restart()
    assert world.counts(url) == (1, 1, 0)
    assert world.bodies(url) == ["waiting"]
    world.delete(url, message)
    world.host.advance(7000)
    assert world.bodies(url) == ["waiting"]


def test_places_are_side_by_side(world):
    here = world.create()
    there = world.create(place=Place("123456789012", "eu-west-1"))
    other = world.create(place=Place("999999999999", "us-east-1"))
    assert (here, there) == ("http://localhost:4566/123456789012/jobs",) * 2
    assert other == "http://localhost:4566/999999999999/jobs"
    world.send(here, "here")
    assert world.call("ReceiveMessage", place=Place("123456789012", "eu-west-1"), QueueUrl=there) == {}
    assert world.bodies(other) == []
    assert world.bodies(here) == ["here"]
